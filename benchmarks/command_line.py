"""How soon `uov-hf --help` is there: whole processes, from start to end, beside a Python that does nothing.

    python benchmarks/command_line.py --output out/command_line.json

By turns, after one round to warm up the disk; medians over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path


COMMANDS = {
    "python, nothing": [sys.executable, "-c", "pass"],
    "uov-hf --help": [str(Path(sys.executable).with_name("uov-hf")), "--help"],
    "uov-hf segment --help": [str(Path(sys.executable).with_name("uov-hf")), "segment", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    rounds = [{name: measure(command) for name, command in COMMANDS.items()} for _ in range(args.rounds + 1)][1:]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    seconds = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}
    print(f"{machine}, {args.rounds} rounds", "", "| command | ms |", "|---|---|", sep="\n")
    for name, value in seconds.items():
        print(f"| `{name}` | {1000 * value:.0f} |")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"machine": machine, "seconds": seconds}, indent=2) + "\n")


def measure(command: list[str]) -> float:
    """Seconds until the process has ended.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
