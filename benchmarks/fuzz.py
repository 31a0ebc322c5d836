"""Coverage-guided fuzzing of every reader of files.

    python benchmarks/fuzz.py --minutes 20 --output_dir out/reliability
    python benchmarks/fuzz.py --reader las laz --minutes 1
    python benchmarks/fuzz.py --reader pcd --samples ~/scans

Atheris changes small files, and prefers changes that reach new lines of `uov_hf`. Each file must be read, or refused
with a `ValueError` or an `OSError` (also of a subclass) that names a file. Anything else is a finding: another error,
the end of the process, more than 10 seconds for one file, more than 64 MiB beside 50 times its size, a file
opened outside the folder, and code or a program that is run. The files that led to findings are in
`fuzz/<reader>/findings`.

The readers and their first files are in benchmarks/fuzz_readers.py. A minute is a minute of the processor. A second
run into the same folder adds to the first one: after a change of a reader, delete `fuzz/<reader>/state.json` and
`fuzz/<reader>/findings`, and it starts anew. Needs the extra `reliability`, and Linux.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from common import make_parser, table, write_result
from fuzz_readers import READERS


MAX_DEATHS = 20  # of the process; then the reader is to be mended first


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS), help="default: all")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the processor for each; default: %(default)s")
    parser.add_argument("--samples", type=Path, help="a folder of files to begin with, beside the generated ones")
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    args = parser.parse_args()
    for name in args.reader:
        fuzz(name, args.output_dir / "fuzz" / name, 60 * args.minutes, args.samples)
        rows = [row for row in report(args.output_dir) if row["reader"] == name]
        print(table(rows[0].keys(), [row.values() for row in rows]), flush=True)


def fuzz(name: str, folder: Path, cpu_seconds: float, samples: Path | None) -> None:
    """Fuzz a reader until its state has this time of the processor; a process that ends is started again."""
    folder.mkdir(parents=True, exist_ok=True)
    program = str(Path(__file__).with_name("fuzz_process.py"))
    command = [sys.executable, program, name, str(folder.resolve()), str(cpu_seconds)]
    command += ["--samples", str(samples)] if samples else []
    # The first trace of a library in Rust reads 50 MiB of symbols, which are not the file's.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    num_deaths = 0
    while num_deaths < MAX_DEATHS and _state_of(folder)["cpu_seconds"] < cpu_seconds:
        before = _findings_of(folder)
        with (folder / "log.txt").open("wb") as log:
            ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False)
        num_deaths += ended.returncode != 0
        if ended.returncode and _findings_of(folder) == before:
            raise SystemExit(f"{name}: the process ended with status {ended.returncode}: see {folder / 'log.txt'}.")


def report(output_dir: Path) -> list[dict[str, object]]:
    """Write `fuzz.json` from the states of all readers, and return its rows."""
    rows: list[dict[str, object]] = []
    for name in READERS:
        folder = output_dir / "fuzz" / name
        state = _state_of(folder)
        if state["inputs"]:
            minutes = round(state["cpu_seconds"] / 60, 1)
            findings = len(_findings_of(folder))
            rows.append({"reader": name, "minutes": minutes, "files": state["inputs"], "findings": findings})
    summary = {
        "readers": len(rows),
        "minutes of the processor": round(sum(row["minutes"] for row in rows), 1),
        "files": f"{sum(row['files'] for row in rows):,}",
        "findings that are not mended": sum(row["findings"] for row in rows),
    }
    write_result(output_dir, "fuzz", summary, rows, "python benchmarks/fuzz.py")
    return rows


def _state_of(folder: Path) -> dict[str, float]:
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {"cpu_seconds": 0.0, "inputs": 0}


def _findings_of(folder: Path) -> set[str]:
    return {path.name for path in (folder / "findings").glob("*")}


if __name__ == "__main__":
    main()
