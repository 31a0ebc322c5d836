"""Flaky tests: runs tests many times in random order, and lists those that did not always pass, with their seeds.

    python benchmarks/flaky.py --output_dir out/reliability
    python benchmarks/flaky.py tests/training tests/test_cli.py --repetitions 20

The order is that of pytest-random-order: the files are shuffled, and the tests within each file. A seed gives its
order again: `pytest tests/training -m "not slow" --random-order --random-order-seed=7`. Repetitions that an earlier
run into the same folder finished are not repeated; delete `<output_dir>/flaky` after a change of the code. Needs the
extra `reliability`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from common import REPOSITORY, make_parser, write_result

from uov_hf.data.shard_file import write_atomically


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or folders, each by itself; default: all")
    parser.add_argument("--repetitions", type=int, default=20, help="seeds 0, 1, …; default: 20")
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    args = parser.parse_args()
    folder = args.output_dir / "flaky"
    for seed in range(args.repetitions):
        for tests in args.tests:
            path = folder / tests.strip("/").replace("/", "-") / f"{seed}.json"
            if not path.exists():
                repetition = {"tests": tests, "seed": seed} | run_tests(tests, seed)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(repetition, indent=1).encode())
                print(f"{tests}, seed {seed}: {repetition['num_tests']} tests, {repetition['failed']}", flush=True)
    write_results(args.output_dir, [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))])


def run_tests(tests: str, seed: int) -> dict[str, Any]:
    """The number of tests, and the names of those that did not pass.

    Raises:
        RuntimeError: pytest did not run, as for a path that does not exist.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", tests, "-q", "-m", "not slow", "--tb=short", f"--junitxml={report}"),
            *("-p", "no:cacheprovider", "--random-order", f"--random-order-seed={seed}"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):  # 1: tests failed
            raise RuntimeError(f"pytest {tests} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        if done.returncode:
            print(done.stdout, file=sys.stderr)
        cases = ElementTree.parse(report).findall(".//testcase")
    failed = {f"{case.get('classname')}::{case.get('name')}" for case in cases if {"failure", "error"} & tags_in(case)}
    return {"num_tests": len(cases), "failed": sorted(failed)}


def tags_in(case: ElementTree.Element) -> set[str]:
    return {child.tag for child in case}


def write_results(output_dir: Path, repetitions: list[dict[str, Any]]) -> None:
    """A row for each part of the suite, and the seeds of each test that did not always pass."""
    parts = defaultdict(list)
    seeds = defaultdict(list)
    for repetition in repetitions:
        parts[repetition["tests"]].append(repetition)
        for name in repetition["failed"]:
            seeds[name].append(repetition["seed"])
    rows = [
        {
            "tests": tests,
            "number of tests": max(done["num_tests"] for done in runs),
            "repetitions": len(runs),
            "tests that did not always pass": len({name for done in runs for name in done["failed"]}),
        }
        for tests, runs in parts.items()
    ]
    summary = {
        "tests run": sum(done["num_tests"] for done in repetitions),
        "tests that did not always pass": len(seeds),
    }
    flaky = [{"test": name, "seeds": found} for name, found in sorted(seeds.items())]
    write_result(output_dir, "flaky", summary, rows, flaky=flaky)


if __name__ == "__main__":
    main()
