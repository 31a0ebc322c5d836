"""What the benchmarks share: arguments, the real samples, times, tables, and a line about the machine."""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from uov_hf.data import Frames, load_frames
from uov_hf.data.shard_file import write_atomically
from uov_hf.labels import LabelSet
from uov_hf.reproduction.environment import processor_name
from uov_hf.teachers import find_teacher, load_teacher
from uov_hf.vocabulary import load_vocabulary


REPOSITORY = Path(__file__).resolve().parents[1]
REAL_SAMPLES = REPOSITORY.parent / "shared" / "data"


def make_parser(doc: str, with_data_dir: bool = False) -> argparse.ArgumentParser:
    """A parser whose help is the docstring of a file."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if with_data_dir:
        parser.add_argument("--data_dir", type=Path, default=REAL_SAMPLES, help="real scans; default: %(default)s")
    return parser


def add_real(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the argument of the folder for `make_real_label_set`."""
    parser.add_argument("--real", type=Path, help="Folder with `pandaset` and `espnetv2_cityscapes/pandaset`.")
    return parser


def make_real_label_set(real: Path, output_dir: Path) -> tuple[LabelSet, Frames]:
    """The segments of a real network in PandaSet's images, made where they are missing, and the frames."""
    predictions = str(real / "espnetv2_cityscapes" / "pandaset")
    vocabulary = find_teacher("files").fit_vocabulary(load_vocabulary("pandaset"), predictions)
    teacher = load_teacher("files", prompts=vocabulary.prompts, model_name_or_path=predictions)
    frames = load_frames("pandaset", "all", data_dir=real / "pandaset")
    label_set = LabelSet.create(output_dir, teacher, vocabulary, {})
    label_set.write(frames, teacher)
    shutil.rmtree(output_dir / "points", ignore_errors=True)  # of other code, perhaps
    return label_set, frames


def describe_machine() -> str:
    """Processor, cores, load, threads and versions, for the head of a table."""
    processor = processor_name()
    return (
        f"{processor}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} "
        f"threads, Python {platform.python_version()}, torch {torch.__version__}"
    )


def write_result(
    output_dir: Path, name: str, summary: dict[str, Any], rows: list[dict[str, Any]], command: str = "", **more: Any
) -> None:
    """Write `<name>.json`, from which benchmarks/reliability.py makes its page.

    Args:
        output_dir (`Path`): The folder of the results.
        name (`str`): The name of the benchmark.
        summary (`dict`): Numbers and strings, by name.
        rows (`list`): The table; keys are the column heads.
        command (`str`, *optional*): What gives all rows; by default the command that is running.
        more: Further results, which the page does not show.
    """
    head = ["git", "rev-parse", "--short", "HEAD"]
    about = {
        "command": command or shlex.join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "date": date.today().isoformat(),
        "commit": subprocess.run(head, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip(),
    }
    content = about | {"summary": summary, "rows": rows} | more
    output_dir.mkdir(parents=True, exist_ok=True)
    write_atomically(output_dir / f"{name}.json", json.dumps(content, indent=1, ensure_ascii=False).encode())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of a call."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def table(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table; all columns but the first are flush right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
