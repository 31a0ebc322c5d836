"""The classes of a result: `classes.json`, raw ids of SemanticKITTI, and classification codes of LAS."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.setting_files import read_json
from uov_hf.vocabulary import load_vocabulary
from uov_hf.vocabulary.lines import read_yaml


MAX_LABEL_ID = 0xFFFF  # the upper 16 bits of a label of SemanticKITTI number instances
UNCLASSIFIED = 1  # of LAS: looked at, and of no class that has a code


class AsprsCode(NamedTuple):
    """A classification code of LAS, the class that it is scored as, and the plain names of the classes that get it."""

    code: int
    scored_as: str
    classes: list[str]


@cache
def asprs_codes() -> tuple[AsprsCode, ...]:
    """The rows of `asprs.yaml`."""
    content = read_yaml(Path(__file__).with_name("asprs.yaml"), "a table of codes").mapping(("codes",))
    rows = [item.mapping(("code", "name", "scored_as", "classes")) for item in content["codes"].items("a code")]
    return tuple(
        AsprsCode(
            row["code"].integer(),
            row["scored_as"].text(),
            [plain(own.text()) for own in row["classes"].items("a class")],
        )
        for row in rows
    )


def to_asprs(class_names: Sequence[str]) -> np.ndarray:
    """The classification code of each label: `(256,)` uint8; 1 (unclassified) for a class without one, and for 255."""
    code_of = {name: row.code for row in asprs_codes() for name in row.classes}
    codes = np.full(IGNORED + 1, UNCLASSIFIED, np.uint8)
    codes[: len(class_names)] = [code_of.get(plain(name), UNCLASSIFIED) for name in class_names]
    return codes


def scored_asprs() -> tuple[list[str], np.ndarray]:
    """The classes that codes are scored as, and the class of each code, `(256,)` uint8; 255 for none."""
    names = list(dict.fromkeys(row.scored_as for row in asprs_codes()))
    classes = np.full(IGNORED + 1, IGNORED, np.uint8)
    for row in asprs_codes():
        classes[row.code] = names.index(row.scored_as)
    return names, classes


def find_label_ids(class_names: Sequence[str]) -> np.ndarray:
    """The id of each label in a `.label` file: `(256,)` uint32; 0 for 255.

    If every class is one of SemanticKITTI's, by its name or as a prompt, its ids are the raw ids of SemanticKITTI.
    Otherwise ids are the index of the class plus 1, so that no id has two meanings in a file.
    """
    kitti = load_vocabulary("semantic_kitti")
    prompts = zip(kitti.prompts, kitti.prompt_to_raw.tolist(), strict=True)
    raw_ids = {plain(name): raw_id for name, raw_id in prompts}
    raw_ids |= {plain(name): int(raw_id) for name, raw_id in zip(kitti.raw_names, kitti.raw_ids, strict=True)}
    found = [raw_ids.get(plain(name), -1) for name in class_names]
    ids = np.zeros(IGNORED + 1, np.uint32)
    is_kitti = min(found, default=0) > 0 and len(set(found)) == len(found)
    ids[: len(class_names)] = found if is_kitti else range(1, len(class_names) + 1)
    return ids


class ResultClass(NamedTuple):
    """A class in `classes.json`: its name, its colour, and its id in a `.label` file."""

    name: str
    color: list[int]
    label_id: int | None


def write_classes(
    path: Path, about: dict[str, object], names: Sequence[str], colors: np.ndarray, counts: dict
) -> None:
    """Write `classes.json`: the entries of `about`, and for each class its numbers in all formats."""
    label_ids, codes = find_label_ids(names), to_asprs(names)
    classes = [
        {
            "id": row,
            "name": name,
            "color": color,
            "num_points": counts[name],
            "label_id": int(label_ids[row]),
            "asprs": int(codes[row]),
        }
        for row, (name, color) in enumerate(zip(names, colors.tolist(), strict=True))
    ]
    content = json.dumps(about | {"classes": classes, "ignored_index": IGNORED}, indent=2, ensure_ascii=False)
    path.write_text(content + "\n", encoding="utf-8")


def read_classes(path: Path) -> list[ResultClass]:
    """The classes of a `classes.json`.

    Raises:
        ValueError: The file has another form.
    """
    try:
        entries = read_json(path)["classes"]
        classes = [ResultClass(own["name"], own["color"], own.get("label_id")) for own in entries]
        np.array([own.color for own in classes], np.uint8).reshape(-1, 3)
        if not all(isinstance(own.name, str) and _is_label_id(own.label_id) for own in classes):
            raise ValueError("a class has another name or label_id")
        return classes
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected `classes`, each with name and color (three numbers 0…255), from `uov-hf segment`."
        ) from error


def _is_label_id(label_id: object) -> bool:
    return label_id is None or (type(label_id) is int and 0 <= label_id <= MAX_LABEL_ID)


def find_classes_file(result: Path) -> Path | None:
    """The `classes.json` of a result: in the folder of its name, or beside it."""
    places = [result.with_suffix("") / "classes.json", result.with_name("classes.json")]
    return next((path for path in places if path.is_file()), None)


def plain(name: str) -> str:
    """A name without case, "_" and "-", which taxonomies use in different ways."""
    return name.replace("_", " ").replace("-", " ").strip().lower()
