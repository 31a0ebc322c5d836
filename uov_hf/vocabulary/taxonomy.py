"""A vocabulary file, checked line by line, and the `Vocabulary` that it becomes."""

import colorsys
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from uov_hf.array_checks import to_array, to_int64
from uov_hf.configuration_uov import IGNORED
from uov_hf.vocabulary.lines import Entry


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """One taxonomy. A training id is the index of a class in `class_names`; 255 means ignored.

    Args:
        name (`str`): Of the taxonomy, such as `"nuscenes"`.
        class_names (`list[str]` of length `num_classes`): The classes of the segmentation.
        colors (`np.ndarray` of shape `(num_classes, 3)`): uint8 RGB.
        is_thing (`np.ndarray` of shape `(num_classes,)`): bool; things are countable, stuff is not.
        raw_names (`list[str]` of length `num_raw`): The classes of the label files.
        raw_ids (`np.ndarray` of shape `(num_raw,)`): int64, their ids in the label files.
        raw_to_class (`np.ndarray` of shape `(max(raw_ids) + 1,)`):
            uint8, training id of a raw id; 255 also for ids of no raw class. `classes_of` checks the ids.
        prompts (`list[str]` of length `num_prompts`): Phrases for a text encoder; a phrase may occur twice.
        prompt_groups (`np.ndarray` of shape `(num_prompts,)`): int64; prompts of a group are synonyms.
        prompt_to_raw (`np.ndarray` of shape `(num_prompts,)`): int64, the raw id of a prompt.
        prompt_to_class (`np.ndarray` of shape `(num_prompts,)`):
            int64, the training id of a prompt, or 255 (background).
        model_labels (`dict[str, int]`):
            The training id, or 255, of the labels of closed-set image models; see `class_of_model_label`.
    """

    name: str
    class_names: list[str]
    colors: np.ndarray
    is_thing: np.ndarray
    raw_names: list[str]
    raw_ids: np.ndarray
    raw_to_class: np.ndarray
    prompts: list[str]
    prompt_groups: np.ndarray
    prompt_to_raw: np.ndarray
    prompt_to_class: np.ndarray
    model_labels: dict[str, int]

    def class_of_model_label(self, label: str) -> int | None:
        """The training id of a closed-set model's label, 255 for a label of no class, None for an unknown label.

        A label without an entry in `model_labels` is the class of its name. Case does not count, nor do synonyms after
        a comma: "road, route" is "road".
        """
        names = {_plain(name): index for index, name in enumerate(self.class_names)}
        return (names | self.model_labels).get(_plain(label))

    def with_model_labels(self, labels: list[str], model: str) -> "Vocabulary":
        """The same classes with a closed-set model's labels as prompts, each a group of its own.

        A class without a label gets its first prompt, after the labels, so that every class has a prompt.

        Args:
            labels (`list[str]`): The labels that the model predicts, in the order of their ids.
            model (`str`): Its name, for messages.

        Raises:
            ValueError: The class of a label is unknown, or no label has a class.
        """
        classes = [self.class_of_model_label(label) for label in labels]
        if unknown := [label for label, class_id in zip(labels, classes, strict=True) if class_id is None]:
            shown = ", ".join(map(repr, unknown[:10])) + (", …" if len(unknown) > 10 else "")
            raise ValueError(
                f"The vocabulary {self.name!r} has no class for {len(unknown)} of the {len(labels)} labels of "
                f"{model}: {shown}. Copy the YAML file of the vocabulary, add the labels under `model_labels`, for "
                "example `- {class: car, labels: [van]}` (`class: null` for a label of no class), and give the copy "
                "with --vocabulary."
            )
        without = [row for row in range(len(self.class_names)) if row not in classes]
        if len(without) == len(self.class_names):
            raise ValueError(
                f"No label of {model} belongs to a class of the vocabulary {self.name!r}: all are `class: null` in "
                "`model_labels`."
            )
        first_prompts = [self.prompts[self.prompt_to_class.tolist().index(class_id)] for class_id in without]
        prompt_to_class = np.array([*classes, *without], np.int64)
        return replace(
            self,
            prompts=[*labels, *first_prompts],
            prompt_groups=np.arange(len(prompt_to_class)),
            prompt_to_raw=np.array([self._first_raw_id(class_id) for class_id in prompt_to_class], np.int64),
            prompt_to_class=prompt_to_class,
        )

    def _first_raw_id(self, class_id: int) -> int:
        """The first raw id of a class; -1 if there is none, which only the background may lack."""
        raw_ids = self.raw_ids[self.classes_of(self.raw_ids) == class_id]
        return int(raw_ids[0]) if len(raw_ids) else -1

    def classes_of(self, raw_labels: np.ndarray) -> np.ndarray:
        """Training ids of raw labels, uint8, in the shape of the labels; 255 = ignored.

        Raises:
            ValueError: A raw id is unknown, or is no whole number.
        """
        raw_labels = to_array("raw_labels", raw_labels)
        if not raw_labels.size:  # NumPy makes an empty list float64
            return np.zeros(raw_labels.shape, np.uint8)
        if raw_labels.dtype.kind not in "iu":
            raise ValueError(f"`raw_labels` must be whole numbers, got {raw_labels.dtype}.")
        raw_labels = to_int64(raw_labels)
        place = np.searchsorted(self._sorted_ids, raw_labels).clip(max=len(self.raw_ids) - 1)
        if (wrong := self._sorted_ids[place] != raw_labels).any():
            raise ValueError(
                f"The labels contain ids that {self.name} does not have: "
                f"{np.unique(raw_labels[wrong])[:10].tolist()}. It has {self._sorted_ids.tolist()}."
            )
        return np.where(raw_labels < 0, IGNORED, self.raw_to_class[raw_labels]).astype(np.uint8)

    @cached_property
    def _sorted_ids(self) -> np.ndarray:
        return np.sort(self.raw_ids)


class _RawClass(NamedTuple):
    """A class of the label files: its id there, and its training id or 255."""

    raw_id: int
    class_id: int


class _PromptGroup(NamedTuple):
    """Synonyms for one raw class."""

    raw_class: _RawClass
    prompts: list[str]


def parse_vocabulary(content: Entry) -> Vocabulary:
    """Check the content of a vocabulary file.

    Raises:
        ValueError: It does not have the form in docs/how_to/vocabulary.md, or contradicts itself; the message has the
            line.
    """
    top = content.mapping(("name", "classes"), ("raw_classes", "prompt_groups", "background", "model_labels"))
    classes = _parse_classes(top["classes"], with_prompts="prompt_groups" not in top)
    class_ids = {name: index for index, name in enumerate(classes)}
    raw_classes = _parse_raw_classes(top, class_ids)
    groups = _parse_groups(top, classes, raw_classes)
    prompt_groups = np.repeat(np.arange(len(groups)), [len(group.prompts) for group in groups])
    return Vocabulary(
        name=top["name"].text(),
        class_names=list(classes),
        colors=np.array([_parse_color(entry, index) for index, entry in enumerate(classes.values())], np.uint8),
        is_thing=np.array(["is_thing" in entry and entry["is_thing"].boolean() for entry in classes.values()]),
        raw_names=list(raw_classes),
        raw_ids=np.array([raw.raw_id for raw in raw_classes.values()], np.int64),
        raw_to_class=_lookup(raw_classes.values()),
        prompts=[prompt for group in groups for prompt in group.prompts],
        prompt_groups=prompt_groups,
        prompt_to_raw=np.array([group.raw_class.raw_id for group in groups], np.int64)[prompt_groups],
        prompt_to_class=np.array([group.raw_class.class_id for group in groups], np.int64)[prompt_groups],
        model_labels=_parse_model_labels(top, list(classes)),
    )


def _parse_classes(section: Entry, with_prompts: bool) -> dict[str, dict[str, Entry]]:
    """The entries of each class by its name; its `prompts` are here unless the file has `prompt_groups`."""
    required = ("name", "prompts") if with_prompts else ("name",)
    items = section.items("a class")
    if len(items) > IGNORED:
        raise items[IGNORED].error(f"there may be {IGNORED} classes at most: {IGNORED} itself means ignored.")
    return _by_name("classes", [item.mapping(required, ("color", "is_thing")) for item in items])


def _parse_raw_classes(top: dict[str, Entry], class_ids: dict[str, int]) -> dict[str, _RawClass]:
    """By name. If the file has none, they are the classes, followed by one for background prompts."""
    if "raw_classes" not in top:
        background = {"(background)": _RawClass(len(class_ids), IGNORED)} if "background" in top else {}
        return {name: _RawClass(index, index) for name, index in class_ids.items()} | background
    items = top["raw_classes"].items("a raw class")
    entries = _by_name("raw_classes", [item.mapping(("name", "class"), ("id",)) for item in items])
    without_id = [item for item, entry in zip(items, entries.values(), strict=True) if "id" not in entry]
    if 0 < len(without_id) < len(items):
        raise without_id[0].error(
            "all raw classes have an `id`, or none has: then their places in the list are the ids."
        )
    raw_classes: dict[str, _RawClass] = {}
    raw_ids: set[int] = set()
    for place, (name, entry) in enumerate(entries.items()):
        raw = _RawClass(entry["id"].integer() if "id" in entry else place, _class_id(entry["class"], list(class_ids)))
        if not -1 <= raw.raw_id <= 65535 or (raw.raw_id == -1 and raw.class_id != IGNORED):
            raise entry["id"].error(f"an `id` is 0 to 65535, or -1 for what is always ignored; got {raw.raw_id}.")
        if raw.raw_id in raw_ids:
            raise entry["id"].error(f"two raw classes have the id {raw.raw_id}.")
        raw_ids.add(raw.raw_id)
        raw_classes[name] = raw
    return raw_classes


def _parse_groups(
    top: dict[str, Entry], classes: dict[str, dict[str, Entry]], raw_classes: dict[str, _RawClass]
) -> list[_PromptGroup]:
    """The groups of the file, or one for each class and one for each background prompt."""
    if "prompt_groups" not in top:
        first_raw = {raw.class_id: raw for raw in reversed(raw_classes.values())}
        return _groups_of_classes(classes, first_raw) + _background_groups(top, first_raw)
    if "background" in top:
        raise top["background"].error("with `prompt_groups`, background prompts are groups of a raw class.")
    groups = [_parse_group(item, raw_classes) for item in top["prompt_groups"].items("a prompt group")]
    covered = {group.raw_class.class_id for group in groups}
    for class_id, (name, entry) in enumerate(classes.items()):
        if class_id not in covered:
            raise entry["name"].error(f"no group of `prompt_groups` is of class {name!r}.")
    return groups


def _groups_of_classes(classes: dict[str, dict[str, Entry]], first_raw: dict[int, _RawClass]) -> list[_PromptGroup]:
    groups = []
    for class_id, (name, entry) in enumerate(classes.items()):
        if class_id not in first_raw:
            raise entry["name"].error(f"no entry of `raw_classes` is of class {name!r}.")
        groups.append(_PromptGroup(first_raw[class_id], _parse_prompts(entry["prompts"])))
    return groups


def _background_groups(top: dict[str, Entry], first_raw: dict[int, _RawClass]) -> list[_PromptGroup]:
    if "background" not in top:
        return []
    if IGNORED not in first_raw:
        raise top["background"].error("`raw_classes` has no entry of class null for these prompts.")
    return [_PromptGroup(first_raw[IGNORED], [prompt]) for prompt in _parse_prompts(top["background"])]


def _parse_group(item: Entry, raw_classes: dict[str, _RawClass]) -> _PromptGroup:
    entry = item.mapping(("raw_class", "prompts"))
    raw_name = entry["raw_class"].text()
    if raw_name not in raw_classes:
        raise entry["raw_class"].error(f"a prompt group is of {raw_name!r}, which `raw_classes` does not have.")
    return _PromptGroup(raw_classes[raw_name], _parse_prompts(entry["prompts"]))


def _parse_prompts(entry: Entry) -> list[str]:
    return [item.text() for item in entry.items("a prompt")]


def _parse_model_labels(top: dict[str, Entry], class_names: list[str]) -> dict[str, int]:
    """The class of each label, in lower case."""
    model_labels: dict[str, int] = {}
    for item in top["model_labels"].items("a class of model labels") if "model_labels" in top else ():
        entry = item.mapping(("class", "labels"))
        for label in entry["labels"].items("a label"):
            name = _plain(label.text())
            if name in model_labels:
                raise label.error(f"`model_labels` has the label {name!r} twice.")
            model_labels[name] = _class_id(entry["class"], class_names)
    return model_labels


def _plain(label: str) -> str:
    """The first of the synonyms of a label, in lower case."""
    return label.split(",")[0].strip().casefold()


def _parse_color(entry: dict[str, Entry], index: int) -> list[int]:
    """The colour of a class; by default hues a golden section apart, so that neighbours are distinct."""
    if "color" not in entry:
        return [round(255 * part) for part in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, 0.9)]
    color = [item.integer() for item in entry["color"].items("a part of a color")]
    if len(color) != 3 or not all(0 <= part <= 255 for part in color):
        raise entry["color"].error(f"a color is three numbers 0-255 (red, green, blue), got {color}.")
    return color


def _lookup(raw_classes: Collection[_RawClass]) -> np.ndarray:
    """Class of each id from 0 to the highest, uint8."""
    lookup = np.full(max(raw.raw_id for raw in raw_classes) + 1, IGNORED, np.uint8)
    for raw in raw_classes:
        if raw.raw_id >= 0:
            lookup[raw.raw_id] = raw.class_id
    return lookup


def _by_name(section: str, entries: list[dict[str, Entry]]) -> dict[str, dict[str, Entry]]:
    named: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        name = entry["name"].text()
        if name in named:
            raise entry["name"].error(f"`{section}` must have different names, got {name!r} twice.")
        named[name] = entry
    return named


def _class_id(entry: Entry, class_names: list[str]) -> int:
    """The training id of the class that an entry names; 255 for null."""
    if entry.is_null:
        return IGNORED
    if entry.text() not in class_names:
        raise entry.error(f"there is no class {entry.text()!r}; the classes are {', '.join(class_names)}, or null.")
    return class_names.index(entry.text())
