"""The log of a run: a line per optimiser step, which outlives a kill and is cut back on resume."""

import json
import os
from pathlib import Path

from uov_hf.data.shard_file import errors_named


LOG_FILE = "train_log.jsonl"
LogRecord = dict[str, float]  # `step`, `epoch`, `loss`, its terms, `learning_rate`, … of one optimiser step


class TrainLog:
    """`train_log.jsonl`: a JSON record a line. Those of steps after `start_step`, from before a kill, are dropped."""

    def __init__(self, path: Path, start_step: int = 0):
        self.path = path
        kept = [record for record in read_log(path) if record["step"] <= start_step] if start_step else []
        partial = path.with_name(f".{path.name}.partial")
        with errors_named(path):
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
            os.replace(partial, path)

    def write(self, record: LogRecord) -> None:
        with errors_named(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_log(path: Path) -> list[LogRecord]:
    """The records of a log; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
