"""The long checks of reliability, and the page docs/reliability.md that is made from their results.

    python benchmarks/reliability.py --output_dir out/reliability
    python benchmarks/reliability.py --checks kills mutants --output_dir out/reliability
    python benchmarks/reliability.py --checks --output_dir out/reliability

Runs each check, which continues where an earlier run into the same folder ended. The results in that folder replace
those in benchmarks/reliability_results, from which the page is then written. The last line runs no check. All checks
together take a night on two cores. Needs the extra `reliability`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import yaml
from common import REPOSITORY, make_parser, table

from uov_hf.data.shard_file import write_atomically


CHECKS = ("properties", "fuzz", "kills", "mutants", "flaky")
PAGE = REPOSITORY / "docs" / "reliability.md"
FAULTS = REPOSITORY / "benchmarks" / "reliability_faults.yaml"
TEMPLATE = REPOSITORY / "benchmarks" / "reliability_page.md.jinja"
RESULTS = REPOSITORY / "benchmarks" / "reliability_results"


def commit_of(test: str) -> str:
    """The commit that added a test, given as `path::name`, abbreviated."""
    path, name = test.split("::")
    # The file may have moved since, so the whole history is searched.
    command = ["git", "log", "--reverse", "--format=%h", "-G", rf"^def {name}\(", "--", "tests"]
    commits = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    if not commits:
        raise ValueError(f"{FAULTS.name}: no commit added the test {test}.")
    return commits[0]


def read_faults() -> list[dict[str, str]]:
    """The faults, each with the `commit` of its test."""
    faults = yaml.safe_load(FAULTS.read_text())
    return [fault | {"commit": commit_of(fault["test"])} for fault in faults]


def keep_results(output_dir: Path, folder: Path = RESULTS) -> None:
    """Copy the results of the checks that ran into the folder of the repository; what the page does not show stays."""
    shown = ("command", "machine", "date", "commit", "summary", "rows")
    for name in CHECKS:
        path = output_dir / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            result = {key: found[key] for key in shown}
            result["command"] = re.sub(r" --output_dir \S+", "", result["command"])  # a folder of one machine
            folder.mkdir(exist_ok=True)
            content = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            write_atomically(folder / path.name, content.encode())


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The results of the checks that have run, by name, each with its `table` as Markdown."""
    results = {}
    for name in CHECKS:
        path = folder / f"{name}.json"
        if path.exists():
            results[name] = result = json.loads(path.read_text())
            rows = result["rows"]
            result["table"] = table(list(rows[0]), [row.values() for row in rows]) if rows else ""
    return results


def render(results: dict[str, dict[str, Any]], faults: list[dict[str, str]]) -> str:
    """The page."""
    # A value that the template names and a result lacks is an error.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(results=results, faults=faults, checks=CHECKS)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--checks", nargs="*", choices=CHECKS, default=CHECKS, help="which to run; default: all")
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    args = parser.parse_args()
    for name in args.checks:
        program = REPOSITORY / "benchmarks" / f"{name}.py"
        subprocess.run([sys.executable, str(program), "--output_dir", str(args.output_dir)], check=True)
    keep_results(args.output_dir)
    write_atomically(PAGE, render(read_results(), read_faults()).encode())
    print(f"Wrote {PAGE}.")


if __name__ == "__main__":
    main()
