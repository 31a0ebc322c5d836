"""What importing the package costs beside importing what it is built on, by turns in fresh processes.

    python benchmarks/imports.py --output out/imports.json

`transformers` are the classes that the package must subclass or register with, and nothing else. Times are of the
import alone, without the start of Python: by the clock, and of the processor, which others on the machine disturb
less. A ratio is the median over rounds of times of the same round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from operator import truediv
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
CLOCKS = {"seconds": "perf_counter", "processor seconds": "process_time"}
PROGRAM = """
import time
starts = [clock() for clock in ({clocks})]
{statement}
print(*(clock() - start for clock, start in zip(({clocks}), starts)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed, after one to warm up the disk")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    args = parser.parse_args()
    rounds = [measure() for _ in tqdm(range(args.rounds + 1), unit="round", disable=None)][1:]
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    results = {"machine": machine}
    for clock in CLOCKS:
        times = {name: [one[name][clock] for one in rounds] for name in STATEMENTS}
        results[clock] = {name: statistics.median(own) for name, own in times.items()}
        results[f"ratios of {clock}"] = {
            name: statistics.median(map(truediv, times[name], times[base])) for name, base in RATIOS.items()
        }
    print(to_markdown(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2))


def measure() -> dict[str, dict[str, float]]:
    """The times of each import, each in a process of its own."""
    return {name: time_import(statement) for name, statement in STATEMENTS.items()}


def time_import(statement: str) -> dict[str, float]:
    program = PROGRAM.format(clocks=", ".join(f"time.{clock}" for clock in CLOCKS.values()), statement=statement)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    return dict(zip(CLOCKS, map(float, done.stdout.split()), strict=True))


def to_markdown(results: dict) -> str:
    lines = [results["machine"], "", f"| import | {' | '.join(CLOCKS)} | beside |", "|---|---|---|---|"]
    for name in STATEMENTS:
        cells = [f"{results[clock][name]:.2f}" for clock in CLOCKS]
        if name in RATIOS:
            cells = [
                f"{cell} ({results[f'ratios of {clock}'][name]:.2f} ×)"
                for cell, clock in zip(cells, CLOCKS, strict=True)
            ]
        lines.append(f"| {name} | {' | '.join(cells)} | {RATIOS.get(name, '')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
