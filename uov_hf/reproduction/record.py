"""`run.json`: what a finished run was, in its output folder, so that it can be run and compared again."""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypedDict, Union, cast, get_args, get_origin, get_type_hints

import torch
from accelerate import Accelerator

from uov_hf.data import Frames
from uov_hf.data.shard_file import write_atomically
from uov_hf.modeling_uov_pretraining import UOVForPreTraining
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.recipe.programs import relative_path
from uov_hf.reproduction.environment import Environment, describe_environment
from uov_hf.reproduction.inputs import Digests, digest_inputs
from uov_hf.reproduction.outputs import Metrics, describe_outputs, find_evaluations
from uov_hf.setting_files import read_json
from uov_hf.training.run import COMPUTE_DTYPES


RUN_FILE = "run.json"
FORMAT_VERSION = 1
RECIPE = "train"  # the program of a recipe, `uov-hf train`; the others are scripts of examples/
Network = UOVForPreTraining | UOVForSemanticSegmentation


@dataclass(frozen=True)
class Execution:
    """How a run was executed.

    Args:
        device (`str`): `cpu` or `cuda`.
        num_processes (`int`): Of its launch.
        num_threads (`int`, *optional*):
            Of torch in each process. Of a recipe the variable `OMP_NUM_THREADS`: without it, a stage shares the cores.
        mixed_precision (`str`, *optional*, defaults to `"no"`): As of accelerate.
        engine (`str`, *optional*): Of the sparse convolutions; None where there are none.
    """

    device: str
    num_processes: int
    num_threads: int | None
    mixed_precision: str = "no"
    engine: str | None = None

    @property
    def is_bitwise(self) -> bool:
        """Whether the same run gives the same bits on the same kind of machine."""
        return self.device == "cpu" and self.engine in (None, "torch")


class RunRecord(TypedDict):
    """The content of `run.json`. Paths in it are as the user gave them; below the working directory they are relative.

    `inputs` and `outputs` have digests; `environment` has the fields of [`Environment`], `execution` of [`Execution`].
    """

    format_version: int
    program: str  # the name of a script, or `train`: a recipe
    command: str
    arguments: dict[str, Any]  # all of them, as they were resolved
    seed: int | None  # None where the program has none, or the stages of a recipe have several
    inputs: Digests
    environment: dict[str, Any]
    execution: dict[str, Any]
    metrics: Metrics
    outputs: Digests


class RunRecorder:
    """Collects the record of a run, and writes it when the run has ended.

    Args:
        folder (`str` or `Path`): Of the results. A record of an earlier run in it stays until this run has ended.
        program (`str`): The name of the program.
        words (`Sequence[str]`): Its command line, after the name.
        execution (`Execution`): How it is executed.
        is_main_process (`bool`, *optional*, defaults to `True`): Other processes record nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        program: str,
        words: Sequence[str],
        execution: Execution,
        is_main_process: bool = True,
    ):
        self.folder, self.program, self.words = Path(folder), program, words
        self.execution, self.is_main_process = execution, is_main_process
        self.arguments, self.inputs = dict[str, Any](), Digests()
        self.seed: int | None = None
        if is_main_process:
            self.environment = describe_environment(execution.device)  # before files of the checkout may change
            self.before = find_evaluations(self.folder)

    def read(self, arguments: Any, frames: list[Frames], model: Network | None = None) -> None:
        """Record what a script works on, before its long work.

        Args:
            arguments (object): An instance of the dataclass of the script.
            frames (`list[Frames]`): The frames of each of its datasets.
            model (`UOVForPreTraining` or `UOVForSemanticSegmentation`, *optional*):
                The network that it trains or evaluates, not wrapped.
        """
        if not self.is_main_process:
            return
        self.arguments, self.seed = asdict(arguments), getattr(arguments, "seed", None)
        self.inputs = digest_inputs(self.program, arguments, frames)
        if model is not None:
            dtype = COMPUTE_DTYPES.get(self.execution.mixed_precision, torch.float32)
            self.set_engine(model.uov.backbone.engine(self.execution.device, dtype).name)

    def set_engine(self, engine: str | None) -> None:
        """Record the engine of the sparse convolutions."""
        self.execution = replace(self.execution, engine=engine)

    def write(self, places: Iterable[str] = ("",)) -> None:
        """Write `run.json`, with the digests of the results in `places`, folders in that of the run."""
        if not self.is_main_process:
            return
        outputs, metrics = describe_outputs(self.folder, places, self.before)
        arguments = {name: _shorten(value) for name, value in self.arguments.items()}
        record = RunRecord(
            format_version=FORMAT_VERSION,
            program=self.program,
            command=shlex.join([*_as_typed(self.program), *map(relative_path, self.words)]),
            arguments=arguments,
            seed=self.seed,
            inputs=self.inputs,
            environment=asdict(self.environment),
            execution=asdict(self.execution),
            metrics=metrics,
            outputs=outputs,
        )
        write_atomically(self.folder / RUN_FILE, (json.dumps(record, indent=2) + "\n").encode())


def start_record(accelerator: Accelerator, folder: str | Path) -> RunRecorder:
    """The recorder of a script that accelerate runs; all processes call this."""
    device, precision = accelerator.device.type, str(accelerator.mixed_precision)
    execution = Execution(device, accelerator.num_processes, torch.get_num_threads(), precision)
    script = Path(sys.argv[0]).stem
    return RunRecorder(folder, script, sys.argv[1:], execution, accelerator.is_main_process)


def read_record(path: Path) -> RunRecord:
    """The content of a `run.json`.

    Raises:
        ValueError: The file is no record of a run, or has another format version.
    """
    record = read_json(path)
    types = get_type_hints(RunRecord) | {"environment": Environment, "execution": Execution}
    if not isinstance(record, dict) or "format_version" not in record:
        raise ValueError(f"{path}: expected the `{RUN_FILE}` of a run, which has {', '.join(types)}.")
    if record["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected format version {FORMAT_VERSION}, got {record['format_version']!r}. Use the version of "
            "uov-hf that wrote the file: `environment` in it names the version."
        )
    if wrong := [name for name, hint in types.items() if name not in record or not _fits(record[name], hint)]:
        raise ValueError(
            f"{path}: expected the `{RUN_FILE}` of a run, got one in which {', '.join(wrong)} is missing or "
            "of another form. Use the file as uov-hf wrote it."
        )
    return cast(RunRecord, record)  # as just checked


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value has the type of a field; a dataclass stands for a mapping with its fields."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return isinstance(value, dict) and {*value} == {*hints} and all(_fits(value[key], hints[key]) for key in hints)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(item, get_args(hint)[1]) for item in value.values())
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    return hint is Any or type(value) is hint or (hint is float and type(value) is int)


def _as_typed(program: str) -> list[str]:
    return ["uov-hf", RECIPE] if program == RECIPE else [f"examples/{program}.py"]


def _shorten(value: Any) -> Any:
    """A value of an argument, as JSON; of paths below the working directory their relative form."""
    if isinstance(value, (list, tuple)):
        return [_shorten(item) for item in value]
    if isinstance(value, dict):
        return {name: _shorten(item) for name, item in value.items()}
    return relative_path(str(value)) if isinstance(value, (str, Path)) else value
