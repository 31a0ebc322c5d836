"""Time to start: importing the package beside importing its libraries, and `uov-hf --help` beside a bare Python.

    python benchmarks/imports.py

Everything runs by turns, in fresh processes. `transformers` stands for the classes that the package must subclass or
register with, and nothing else. Times of imports exclude the start of Python; times of commands include it.
Processor time is disturbed less by other programs. A ratio is the median over rounds of times of the same round.
"""

import os
import resource
import statistics
import subprocess
import sys
from operator import truediv
from pathlib import Path

from common import describe_machine, make_parser, table, timed


TRANSFORMERS = (
    "from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, "
    "AutoModelForSemanticSegmentation, AutoProcessor, CLIPTextModelWithProjection, FeatureExtractionMixin, Pipeline, "
    "PreTrainedConfig, PreTrainedModel, ProcessorMixin"
)
IMPORTS = {
    "import transformers": TRANSFORMERS,
    "import uov_hf": "import uov_hf",
    "import transformers and datasets": f"{TRANSFORMERS}; import datasets",
    "import uov_hf.data": "from uov_hf.data import load_frames",
}
UOV_HF = str(Path(sys.executable).with_name("uov-hf"))
COMMANDS = {
    "python, nothing": [sys.executable, "-c", "pass"],
    "uov-hf --help": [UOV_HF, "--help"],
    "uov-hf segment --help": [UOV_HF, "segment", "--help"],
}
BESIDE = {
    "import uov_hf": "import transformers",
    "import uov_hf.data": "import transformers and datasets",
    "uov-hf --help": "python, nothing",
    "uov-hf segment --help": "python, nothing",
}
PROGRAM = """
import time
start, used = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - start, time.process_time() - used)
"""
Times = tuple[float, float]  # seconds by the clock, and of the processor


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one to warm up the disk")
    args = parser.parse_args()
    rounds = [measure() for _ in range(args.rounds + 1)][1:]
    rows = [(name, *(describe(name, rounds, clock) for clock in (0, 1)), BESIDE.get(name, "")) for name in rounds[0]]
    print(describe_machine(), "", table(["", "seconds", "processor seconds", "beside"], rows), sep="\n")


def measure() -> dict[str, Times]:
    """The times of each import and command, each in a process of its own."""
    return {name: time_import(statement) for name, statement in IMPORTS.items()} | {
        name: time_command(command) for name, command in COMMANDS.items()
    }


def time_import(statement: str) -> Times:
    printed = run([sys.executable, "-c", PROGRAM.format(statement=statement)])
    seconds, used = map(float, printed.split())
    return seconds, used


def time_command(command: list[str]) -> Times:
    used = children_used()
    return timed(lambda: run(command))[0], children_used() - used


def run(command: list[str]) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def children_used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def describe(name: str, rounds: list[dict[str, Times]], clock: int) -> str:
    """The median, and its ratio to the median of what the row is beside."""
    times = [one[name][clock] for one in rounds]
    cell = f"{statistics.median(times):.2f}"
    if name in BESIDE:
        bases = [one[BESIDE[name]][clock] for one in rounds]
        cell += f" ({statistics.median(map(truediv, times, bases)):.2f} ×)"
    return cell


if __name__ == "__main__":
    main()
