"""A recipe: shared settings and a section for each stage, checked before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from uov_hf.data import Frames
from uov_hf.recipe.files import column_of, datasets_of, digest_files, digest_frame_ids
from uov_hf.recipe.programs import Launch, accelerate_launch
from uov_hf.recipe.sections import SECTIONS, arguments_of, complete, paths_of, start_of
from uov_hf.recipe.stage import Stage
from uov_hf.training.argument_files import convert_settings, did_you_mean
from uov_hf.training.arguments import DataArguments
from uov_hf.training.samples import load_split
from uov_hf.vocabulary import load_vocabulary


Content = dict[str, Any]  # of a recipe file
Words = tuple[str, ...]
OWN_NAMES = {"output_dir", "num_processes"}  # what a recipe has besides arguments of scripts


@dataclass(frozen=True)
class RecipeStage:
    """A stage of a recipe with what its plan contains.

    Args:
        stage (`Stage`): The program, its settings and its folder.
        launch (`Launch`): How it is started.
        arguments (object): Its arguments, as an instance of the dataclass of its script.
        frames (`list[Frames]`): What it reads of each dataset; none where it is that of an earlier stage.
        num_processes (`int`, *optional*): Of its launch; None where a launcher of the user's decides.
    """

    stage: Stage
    launch: Launch
    arguments: Any
    frames: list[Frames]
    num_processes: int | None

    @property
    def num_frames(self) -> int:
        """Frames of all datasets."""
        return sum(map(len, self.frames))


@dataclass(frozen=True)
class Recipe:
    """The stages of a run in their order.

    Args:
        folder (`Path`): Of all results.
        stages (`list[RecipeStage]`): Those that have a section.
    """

    folder: Path
    stages: list[RecipeStage]

    def position(self, name: str) -> int:
        """The place of a stage in the order.

        Raises:
            ValueError: The recipe does not have it.
        """
        names = [one.stage.name for one in self.stages]
        if name not in names:
            raise ValueError(f"The recipe has no stage {name!r}; it has {', '.join(names)}.")
        return names.index(name)


def make_recipe(content: Content, place: str, launcher: Words | None = None) -> Recipe:
    """Check a recipe, and make its stages.

    Args:
        content (`dict`): The mapping in its file.
        place (`str`): Its file, for the messages.
        launcher (`tuple[str, ...]`, *optional*): Words before a script. By default accelerate on this machine.

    Raises:
        ValueError: A name or a value is wrong, a stage lacks what it needs, or a dataset cannot be read.
    """
    sections = {name: _section(content, name, place) for name in SECTIONS if name in content}
    shared = {name: value for name, value in content.items() if name not in SECTIONS}
    _check_names(shared, sections, place)
    maker = _StageMaker(Path(shared["output_dir"]).resolve(), shared, sections, launcher)
    for name in sections:
        section = f"{place}: section `{name}`"
        settings = convert_settings(maker.settings_of(name), arguments_of(name), section)
        try:
            maker.add(name, settings)
        except (ValueError, OSError) as error:
            raise ValueError(f"{section}: {error}") from error
    return Recipe(maker.folder, list(maker.stages.values()))


class _StageMaker:
    """Makes the stages of a recipe one after the other, and opens every dataset once.

    Args:
        folder (`Path`): Of all results.
        shared (`dict`): The settings outside the sections.
        sections (`Mapping[str, dict]`): Those in each section.
        launcher (`tuple[str, ...]`, *optional*): Words before a script.
    """

    def __init__(self, folder: Path, shared: Content, sections: Mapping[str, Content], launcher: Words | None):
        self.folder, self.shared, self.sections, self.launcher = folder, shared, sections, launcher
        self.stages: dict[str, RecipeStage] = {}
        self._opened: dict[tuple[object, ...], Frames] = {}

    def add(self, name: str, settings: Content) -> None:
        """Make the stage of a section, after those that it reads.

        Raises:
            ValueError, OSError: A value is wrong, it lacks what it needs, or its dataset cannot be read.
        """
        paths = paths_of(name, settings, self.folder, self.sections)
        _check_start(name, {**settings, **paths})
        arguments = arguments_of(name)(**settings, **paths)
        datasets = self._datasets_of(arguments)
        frames = [its_frames for _, its_frames in datasets]
        _check_frames(name, arguments, frames)
        if name == "generate_label_set" and arguments.vocabulary is not None:
            load_vocabulary(arguments.vocabulary)  # raises before anything runs
        files = digest_files(settings, datasets, column_of(name))
        folder, inputs = self.folder / SECTIONS[name].folder, self._inputs_of(name, frames) | files
        if module := SECTIONS[name].module:
            program = ("-m", module, arguments.label_set)  # the one argument without a name
            switches = {key: value for key, value in settings.items() if value is not False and key != "label_set"}
            stage = Stage(name, switches, folder, {}, inputs, program)
            self.stages[name] = RecipeStage(stage, Launch(), arguments, frames, 1)
            return
        stage = Stage(name, settings, folder, paths, inputs)
        num_processes = self.sections[name].get("num_processes", self.shared.get("num_processes"))
        if self.launcher:
            made = RecipeStage(stage, Launch(self.launcher), arguments, frames, num_processes)
        else:
            num_processes = num_processes or torch.cuda.device_count() or 1
            made = RecipeStage(stage, accelerate_launch(num_processes), arguments, frames, num_processes)
        self.stages[name] = made

    def settings_of(self, name: str) -> Content:
        """The settings of a section and the shared ones that its stage has an argument for."""
        shared = {key: value for key, value in self.shared.items() if key in _names_of(name)}
        settings = complete(name, shared | self.sections[name], self.sections)
        return {key: value for key, value in settings.items() if key not in OWN_NAMES}

    def _inputs_of(self, name: str, frames: list[Frames]) -> dict[str, str]:
        """The digests of the earlier stages and of the frames that a stage reads."""
        earlier = {*SECTIONS[name].reads, start_of(name, self.sections)}
        inputs = {one: made.stage.digest for one, made in self.stages.items() if one in earlier}
        return inputs | ({"frames": digest_frame_ids(frames)} if frames else {})

    def _datasets_of(self, arguments: Any) -> list[tuple[DataArguments, Frames]]:
        """Each dataset of a stage, with the frames that it reads."""
        return [(dataset, self._open(dataset, fraction)) for dataset, fraction in datasets_of(arguments)]

    def _open(self, dataset: DataArguments, data_fraction: float) -> Frames:
        names = ("dataset", "data_dir", "dataset_config", "split", "frame_stride")
        key = (*(getattr(dataset, name) for name in names), data_fraction)
        if key not in self._opened:
            # Streaming: a dataset on the Hub is not downloaded for a plan.
            arguments = DataArguments(**{name: getattr(dataset, name) for name in names}, streaming=True)
            self._opened[key] = load_split(arguments, dataset.split, data_fraction)
        return self._opened[key]


def _section(content: Content, name: str, place: str) -> Content:
    section = content[name] or {}  # `label_card:` alone is None
    if not isinstance(section, dict):
        raise ValueError(f"{place}: section `{name}`: expected `argument: value` in it, got {section!r}.")
    if "output_dir" in section:
        raise ValueError(
            f"{place}: section `{name}`: `output_dir` stands outside the sections: the recipe chooses the folder of "
            f"each stage in it, here {SECTIONS[name].folder}."
        )
    return section


def _names_of(section: str) -> set[str]:
    return {field.name for field in fields(arguments_of(section))}


def _check_names(shared: Content, sections: Mapping[str, Content], place: str) -> None:
    if not sections:
        raise ValueError(f"{place}: expected a section for each stage that runs, some of {', '.join(SECTIONS)}.")
    for name in ("dataset", "output_dir"):
        if not shared.get(name):
            raise ValueError(f"{place}: `{name}` is missing; it stands outside the sections.")
        if not isinstance(shared[name], str) or "\0" in shared[name]:
            raise ValueError(f"{place}: `{name}` must be the text of a path or a name, got {shared[name]!r}.")
    known = OWN_NAMES.union(*map(_names_of, sections))
    for name in shared:
        if name not in known:
            raise ValueError(
                f"{place}: `{name}` is neither a section nor an argument of a stage of this recipe. "
                f"{did_you_mean(str(name), known | SECTIONS.keys())}"
            )
    for scope, values in {"": shared, **{f" section `{name}`:": one for name, one in sections.items()}}.items():
        if "resume_from_checkpoint" in values:
            raise ValueError(
                f"{place}:{scope} `resume_from_checkpoint` is no setting of a recipe: a training continues from its "
                "newest checkpoint. To continue from an older one, delete the newer ones."
            )
        number = values.get("num_processes", 1)
        if type(number) is not int or number < 1:
            raise ValueError(f"{place}:{scope} `num_processes` must be a whole number of at least 1, got {number!r}.")


def _check_start(name: str, settings: Content) -> None:
    """Refuse a stage that would start from the default checkpoint of its script, of another run perhaps."""
    if SECTIONS[name].model_of and not {"model_name_or_path", "preset"} & settings.keys():
        way_out = " or `preset` (an untrained network)" if SECTIONS[name].is_training else ""
        raise ValueError(
            f"expected a section {' or '.join(SECTIONS[name].model_of)} whose checkpoint it starts from, or "
            f"`model_name_or_path`{way_out}, got neither."
        )


def _check_frames(name: str, arguments: Any, frames: list[Frames]) -> None:
    """Refuse a split without frames, and a dataset without the annotation that a stage needs."""
    if not all(frames):
        raise ValueError("the split has no frame.")
    if name == "generate_label_set" and arguments.vocabulary is None and not all(one.taxonomy for one in frames):
        raise ValueError(
            "the dataset has no classes of its own: its frames have no `taxonomy`. Give `vocabulary`: a "
            "name that `uov-hf vocabulary` lists, such as cityscapes, or a YAML file."
        )
    needs_truth = name == "finetune" or (name == "evaluate" and arguments.export is None)
    if needs_truth and not all(one.class_names for one in frames):
        raise ValueError(
            "the dataset has no ground truth: its frames have no `taxonomy`. Leave out the section, or give a dataset "
            "with annotation."
        )
