"""What importing the package costs beside importing what it is built on, by turns in fresh processes.

    python benchmarks/imports.py --output out/imports.json

`transformers` are the classes that the package must subclass or register with, and nothing else. Times are of the
import alone, without the start of Python; a ratio is the median over rounds of times of the same round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm


TRANSFORMERS = (
    "from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, "
    "AutoModelForSemanticSegmentation, AutoProcessor, CLIPTextModelWithProjection, FeatureExtractionMixin, Pipeline, "
    "PreTrainedConfig, PreTrainedModel, ProcessorMixin"
)
STATEMENTS = {
    "transformers": TRANSFORMERS,
    "uov_hf": "import uov_hf",
    "transformers and datasets": f"{TRANSFORMERS}; import datasets",
    "uov_hf.data": "from uov_hf.data import load_frames",
}
RATIOS = {"uov_hf": "transformers", "uov_hf.data": "transformers and datasets"}
PROGRAM = "import time; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed, after one to warm up the disk")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    rounds = [measure() for _ in tqdm(range(args.rounds + 1), unit="round", disable=None)][1:]
    results = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "seconds": {name: statistics.median(times[name] for times in rounds) for name in STATEMENTS},
        "ratios": {
            name: statistics.median(times[name] / times[base] for times in rounds) for name, base in RATIOS.items()
        },
    }
    print(to_markdown(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2))


def measure() -> dict[str, float]:
    """Seconds of each import, each in a process of its own."""
    return {name: time_import(statement) for name, statement in STATEMENTS.items()}


def time_import(statement: str) -> float:
    command = [sys.executable, "-c", PROGRAM.format(statement)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def to_markdown(results: dict) -> str:
    lines = [results["machine"], "", "| import | seconds | beside |", "|---|---|---|"]
    for name, seconds in results["seconds"].items():
        beside = f"{results['ratios'][name]:.2f} × {RATIOS[name]}" if name in RATIOS else ""
        lines.append(f"| {name} | {seconds:.2f} | {beside} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
