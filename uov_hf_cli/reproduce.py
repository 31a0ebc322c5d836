"""Run a recorded run again and compare the results, from the run.json that every run leaves in its output folder.

It needs the data, the label set and the checkpoint of the first run, and stops before anything runs if they differ
from their digests in run.json. The second run has the same arguments, processes and threads. The exit status is 0 if
the results are the same: bit for bit with the torch engine on the CPU, elsewhere within bounds of the metrics
(docs/how_to/reproduce.md).

examples:
  uov-hf reproduce out/finetuned/run.json
  uov-hf reproduce theirs/run.json --output_dir out/again --set data_dir=data/nuscenes model_name_or_path=out/uov
  uov-hf reproduce theirs/run.json --against out/finetuned/run.json     compare two runs, and run nothing
"""

import argparse
import subprocess
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", type=Path, metavar="run.json", help="the record of a run")
    parser.add_argument("--output_dir", type=Path, help="new folder; default: that of run.json and -reproduced")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="arguments with another value here, such as data_dir=data/nuscenes; of a recipe also STAGE.NAME=VALUE",
    )
    parser.add_argument("--trust_code", action="store_true", help="run the Python files that the record names")
    parser.add_argument("--launcher", help="of a recipe: words before each script, as of `uov-hf train`")
    parser.add_argument("--against", type=Path, metavar="run.json", help="compare with this run, and run nothing")


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.reproduction.comparison import compare
    from uov_hf.reproduction.record import read_record
    from uov_hf.reproduction.rerun import check_inputs, default_folder, prepare, run_again

    if args.record.is_dir():
        raise ValueError(f"{args.record} is a folder: give {args.record / 'run.json'}.")
    first = read_record(args.record)
    other = args.against
    if other is None:
        output_dir = args.output_dir or default_folder(first, args.record)
        rerun = prepare(first, output_dir, parse_set(args.set), args.trust_code, args.launcher)
        check_inputs(first, rerun)
        yield f"All inputs ({len(first['inputs'])}) are those of the first run: {first['command']}"
        yield f"Running it again into {output_dir}{''.join(f', with {text}' for text in args.set)} …"
        try:
            run_again(rerun)
        except subprocess.CalledProcessError as error:
            raise ValueError(f"The second run ended with status {error.returncode}; its output is above.") from error
        other = rerun.record
    comparison = compare(first, read_record(other))
    yield from comparison.lines()
    if not comparison.is_reproduced:
        raise ValueError(f"{args.record} and {other} have different results.")


def parse_set(texts: list[str]) -> dict[str, object]:
    """`["NAME=VALUE", …]` as a mapping; the values are YAML."""
    import yaml

    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set: expected NAME=VALUE, such as data_dir=data/nuscenes, got {text!r}.")
        if name == "output_dir":
            raise ValueError("--set output_dir: give the folder of the second run as --output_dir.")
        changes[name] = yaml.safe_load(value)
    return changes
