"""A stage: one program with its settings, which runs unless its folder has the result of the same settings."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NotRequired, TypedDict

from uov_hf.data.shard_file import write_atomically
from uov_hf.recipe.processes import Cost, run_program
from uov_hf.recipe.programs import Launch, script_path
from uov_hf.training.interruption import RESUME_STATUS


RECORD = "stage.json"
TRACEBACK = "Traceback (most recent call last):"
NUM_SHOWN = 15  # last lines of the log in the message of a stage that failed
Settings = Mapping[str, object]


class StageRecord(TypedDict):
    """What a stage leaves in its folder: it writes its settings and inputs at its start, and its cost at its end."""

    settings: dict[str, object]
    inputs: dict[str, str]
    cost: NotRequired[dict[str, float]]  # as `Cost`


@dataclass(frozen=True)
class Stage:
    """One program with its settings, and the folder of its result.

    Args:
        name (`str`): Of the stage.
        settings (`Mapping[str, object]`): Arguments of the program that the result depends on.
        output_dir (`Path`): The folder of its result, and of its record.
        paths (`Mapping[str, object]`, *optional*):
            Further arguments: where its results and those of earlier stages are. The record does not contain them.
        inputs (`Mapping[str, str]`, *optional*): Name -> digest of what it reads: frames, files, earlier stages.
        program (`tuple[str, ...]`, *optional*):
            Words before the arguments, if it is not the script of its name in `examples/`.
    """

    name: str
    settings: Settings
    output_dir: Path
    paths: Settings = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The program and its arguments, without a launcher."""
        return [*(self.program or (str(script_path(self.name)),)), *flags({**self.settings, **self.paths})]

    @property
    def digest(self) -> str:
        """What identifies its result for later stages."""
        content = json.dumps([self.name, *self._identity], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def _identity(self) -> tuple[dict[str, object], dict[str, str]]:
        """Settings and inputs, as JSON returns them."""
        return json.loads(json.dumps([dict(self.settings), dict(self.inputs)], default=str))

    @property
    def record(self) -> StageRecord | None:
        """The record in the folder; None before the stage has started, and where it cannot be read."""
        try:
            record: StageRecord = json.loads((self.output_dir / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if record.keys() >= StageRecord.__required_keys__ else None

    @property
    def changes(self) -> list[str]:
        """The settings and inputs that differ from those of the record; none without a record."""
        if (record := self.record) is None:
            return []
        settings, inputs = self._identity
        changed = [f"{name} = {old}, now {new}" for name, old, new in _differences(record["settings"], settings)]
        return [*changed, *(f"{name} changed" for name, _, _ in _differences(record["inputs"], inputs))]

    @property
    def is_done(self) -> bool:
        """Whether the folder has the result of these settings and inputs."""
        return self.cost is not None and not self.changes

    @property
    def cost(self) -> Cost | None:
        """What it took, from its record; None before it has finished."""
        return Cost(**record["cost"]) if (record := self.record) and "cost" in record else None

    def run(self, launch: Launch, log: Path, show: bool = False) -> Cost:
        """Run the program unless it is done.

        Args:
            launch (`Launch`): How it is started.
            log (`Path`): Its output is appended to this file.
            show (`bool`, *optional*, defaults to `False`): Whether its output appears on stderr, too.

        Returns:
            `Cost`: What it took, now or when it was run.

        Raises:
            ChildProcessError: The program failed; the message has the last lines of the log.
            SystemExit: The program was interrupted, and its launcher has passed on `RESUME_STATUS`.
        """
        if self.is_done and self.cost:
            return self.cost
        self.output_dir.mkdir(parents=True, exist_ok=True)
        settings, inputs = self._identity
        record: StageRecord = {"settings": settings, "inputs": inputs}
        self._write(record)  # without a cost, the folder has no finished result
        try:
            cost = run_program([*launch.words, *self.words], launch.environment, log, show)
        except subprocess.CalledProcessError as error:
            if error.returncode == RESUME_STATUS:
                raise SystemExit(RESUME_STATUS) from error
            raise ChildProcessError(
                f"The stage {self.name} ended with status {error.returncode}. The end of its log, {log}:\n"
                f"{_last_lines(log)}"
            ) from error
        self._write({**record, "cost": asdict(cost)})
        return cost

    def _write(self, record: StageRecord) -> None:
        write_atomically(self.output_dir / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _differences(theirs: Settings, ours: Settings) -> list[tuple[str, object, object]]:
    """Each name with another value, and both values."""
    pairs = [(name, theirs.get(name), ours.get(name)) for name in {**theirs, **ours}]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if lines and lines[-1].startswith("subprocess.CalledProcessError") and TRACEBACK in lines:  # of accelerate
        del lines[-1 - lines[::-1].index(TRACEBACK) :]
    return "\n".join(f"  {line}" for line in lines[-NUM_SHOWN:])


def flags(settings: Settings) -> list[str]:
    """`{"voxel_size": [0.2, 0.2], "mix_sectors": True}` as on a command line; what is None or empty is left out."""
    words: list[str] = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        if value is not None and values:
            words += [f"--{name}", *([] if value is True else map(str, values))]
    return words
