"""The long checks of reliability, and the page docs/reliability.md that is made from their results.

    python benchmarks/reliability.py --output_dir out/reliability
    python benchmarks/reliability.py --checks kills mutants --output_dir out/reliability
    python benchmarks/reliability.py --checks --output_dir out/reliability

Runs each check, which continues where an earlier run into the same folder ended, and then writes the page. The last
line only writes the page. All checks together take a night on two cores. Needs the extra `reliability`.
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


def read_results(output_dir: Path) -> dict[str, dict[str, Any]]:
    """The results of the checks that have run, by name, each with its `table` as Markdown."""
    results = {}
    for name in CHECKS:
        path = output_dir / f"{name}.json"
        if not path.exists():
            continue
        results[name] = result = json.loads(path.read_text())
        result["command"] = re.sub(r" --output_dir \S+", "", result["command"])  # a folder of one machine
        rows = _by_file(result["rows"]) if name == "properties" else result["rows"]
        result["table"] = table(list(rows[0]), [row.values() for row in rows]) if rows else ""
    return results


def _by_file(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sums of the properties of each file: there are a hundred properties."""
    files = {row["file"]: [own for own in rows if own["file"] == row["file"]] for row in rows}
    sums = ("examples", "failures")
    return [
        {"file": file, "properties": len(own), **{name: sum(row[name] for row in own) for name in sums}}
        for file, own in files.items()
    ]


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
    write_atomically(PAGE, render(read_results(args.output_dir), read_faults()).encode())
    print(f"Wrote {PAGE}.")


if __name__ == "__main__":
    main()
