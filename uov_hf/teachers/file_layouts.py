"""Folders in which others keep the segments of images: the official UOV/AFOV one, and panoptic PNGs with JSON."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from uov_hf.teachers.file_contents import (
    check_segments,
    number_from_one,
    prompts_of_categories,
    read_features,
    read_ids,
    read_json,
    read_segments,
    scores_of,
    unit_length,
)


TEXT_EMBEDS, CATEGORIES = "text_embedding.pt", "categories.json"


@dataclass(frozen=True)
class FiledSegments:
    """
    The segments of one image, as a folder describes them.

    Args:
        path (`Path`): The PNG, for messages.
        segmentation (`np.ndarray` of shape `(height, width)`): int32 ids 1…S, 0 = none.
        labels (`np.ndarray` of shape `(S,)`): int64, row of the prompt.
        scores (`np.ndarray` of shape `(S,)`): float32; 1 where the folder has none.
        embeds (`np.ndarray` of shape `(S, embed_dim)`, *optional*): float32, unit length; None where it has none.
    """

    path: Path
    segmentation: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    embeds: np.ndarray | None = None


class Layout(ABC):
    """
    A folder with the segments of images.

    Args:
        folder (`Path`): Where they are.
        prompts (`list[str]`): What their labels are rows of.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    prompt_embeds: np.ndarray | None = None  # (num_prompts, embed_dim), unit length, where the folder has them

    def __init__(self, folder: Path, prompts: list[str]):
        self.folder, self.prompts = folder, prompts

    @classmethod
    @abstractmethod
    def fits(cls, folder: Path) -> bool:
        """Whether the folder looks like one of this layout."""

    @abstractmethod
    def read(self, names: list[str]) -> FiledSegments:
        """The segments of the image that goes by one of some names.

        Raises:
            FileNotFoundError: the folder has no such image.
            ValueError: what it has is not as it must be; the message names the file.
        """

    def _find(self, names: list[str]) -> Path:
        """`<name>.png`, of the first name that has one."""
        paths = [self.folder / f"{name}.png" for name in names]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            expected = " or ".join(f"{name}.png" for name in names)
            raise FileNotFoundError(f"{self.folder} has no segments of this image: expected {expected}.")
        return found


class UOVLayout(Layout):
    """
    What the official code of UOV and AFOV (`ov_segment/*/superpixel_generation.py`) writes for its three teachers:
    `<camera sample_data token>.png`, `.json` and `.pt` of each image in one folder, and `text_embedding.pt`. The `.pt`
    of an image holds a tensor (S + 1, D) whose row 0 is of no segment; FC-CLIP's holds two, of which the method uses
    the second (mask-pooled CLIP features). FC-CLIP's `text_embedding.pt` has a last row for "void", which is dropped.
    """

    name = "uov"
    form = f"{TEXT_EMBEDS} and, for each image, <token>.png, <token>.json and <token>.pt"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        path = folder / TEXT_EMBEDS
        rows = read_features(path)
        if len(rows) not in (len(prompts), len(prompts) + 1):
            raise ValueError(
                f"{path}: expected a row for each of the {len(prompts)} prompts, and perhaps one for void, got "
                f"{len(rows)}. Another vocabulary was used: give it with --vocabulary."
            )
        self.prompt_embeds = unit_length(rows[: len(prompts)], path)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return (folder / TEXT_EMBEDS).is_file()

    def read(self, names: list[str]) -> FiledSegments:
        path = self._find(names)
        segments = read_segments(path.with_suffix(".json"))
        for segment in segments:
            if not 0 <= segment["category_id"] < len(self.prompts):
                raise ValueError(
                    f"{path.with_suffix('.json')}: segment {segment['id']} has category {segment['category_id']}, "
                    f"expected the row of one of {len(self.prompts)} prompts."
                )
        labels = [segment["category_id"] for segment in segments]
        ids = np.array([segment["id"] for segment in segments], np.int64)
        segmentation = number_from_one(read_ids(path, ids), ids, path)
        return FiledSegments(
            path, segmentation, np.array(labels, np.int64), scores_of(segments), self._embeds(path, ids)
        )

    def _embeds(self, path: Path, ids: np.ndarray) -> np.ndarray:
        path = path.with_suffix(".pt")
        rows = read_features(path)
        if len(rows) != ids.max(initial=0) + 1:
            raise ValueError(
                f"{path}: expected {ids.max(initial=0) + 1} rows, one of zeros and one for each segment that the JSON "
                f"beside it describes, got {len(rows)}."
            )
        return unit_length(rows[ids], path)


class PanopticLayout(Layout):
    """
    `<name>.png` and `<name>.json` of each image in one folder, and `categories.json`. The PNG holds segment ids, as
    grey values of 8 or 16 bits or as red + 256 green + 256² blue; the JSON is their `segments_info`, or has it under
    that key; `categories.json` is COCO's list of `id` and `name`.
    """

    name = "panoptic"
    form = f"{CATEGORIES} and, for each image, <name>.png and <name>.json"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        path = folder / CATEGORIES
        self.prompt_of_category = prompts_of_categories(read_json(path), prompts, path)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return (folder / CATEGORIES).is_file()

    def read(self, names: list[str]) -> FiledSegments:
        path = self._find(names)
        return _read_panoptic(path, read_segments(path.with_suffix(".json")), self.prompt_of_category)


class COCOLayout(Layout):
    """
    COCO's panoptic format, which the panoptic script of Cityscapes writes, too: one `<set>.json` with `annotations`
    and `categories` beside a folder `<set>/` of their PNGs; several such sets may lie in one folder.
    """

    name = "coco"
    form = "<set>.json with `annotations` and `categories`, beside a folder <set>/ of PNGs"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        self.images: dict[str, tuple[Path, list[dict[str, Any]], dict[int, int]]] = {}
        sets = _coco_sets(folder)
        if not sets:
            raise ValueError(f"{folder}: expected {self.form}, found none.")
        for path in sets:
            self._add(path)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return bool(_coco_sets(folder))

    def read(self, names: list[str]) -> FiledSegments:
        # The pictures of Cityscapes are called <image id>_leftImg8bit.
        names = [*names, *(name.removesuffix("_leftImg8bit") for name in names)]
        found = next((name for name in names if name in self.images), None)
        if found is None:
            raise FileNotFoundError(
                f"{self.folder} has no segments of this image: expected {' or '.join(dict.fromkeys(names))} among the "
                f"{len(self.images)} names of its images."
            )
        return _read_panoptic(*self.images[found])

    def _add(self, path: Path) -> None:
        content = read_json(path)
        try:
            annotations = [(one, check_segments(one["segments_info"], path)) for one in content["annotations"]]
            used = {segment["category_id"] for _, segments in annotations for segment in segments}
            categories = [one for one in content["categories"] if one["id"] in used]
            picture = {one["id"]: Path(one["file_name"]).stem for one in content.get("images", [])}
            names = [_names(one, picture) for one, _ in annotations]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not of COCO's panoptic format: {type(error).__name__}: {error}.") from error
        prompt_of_category = prompts_of_categories(categories, self.prompts, path)
        for (one, segments), its_names in zip(annotations, names, strict=True):
            for name in its_names:
                if name in self.images:
                    raise ValueError(f"{path}: image {name} is there twice; it is {self.images[name][0]}, too.")
                self.images[name] = path.with_suffix("") / one["file_name"], segments, prompt_of_category


LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in (UOVLayout, COCOLayout, PanopticLayout)}


def open_layout(folder: Path, name: str, prompts: list[str]) -> Layout:
    """
    The folder, read as the layout called `name`; `"auto"` takes the one it looks like.

    Raises:
        ValueError: there is no such folder or layout, or the folder looks like none.
    """
    forms = "; ".join(f"{layout}: {LAYOUTS[layout].form}" for layout in LAYOUTS)
    if name not in ("auto", *LAYOUTS):
        raise ValueError(f"`layout` must be auto or one of these, got {name!r}. {forms}.")
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: expected the label files of the images in it. {forms}.")
    fitting = [layout for layout in LAYOUTS.values() if layout.fits(folder)] if name == "auto" else [LAYOUTS[name]]
    if not fitting:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ValueError(f"{folder} is of no layout that is known. It has {found}; expected one of: {forms}.")
    return fitting[0](folder, prompts)


def _coco_sets(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if path.with_suffix("").is_dir()]


def _names(annotation: dict[str, Any], picture: dict[Any, str]) -> set[str]:
    """What an image of COCO's format may be called: by its PNG, its picture, or its id where that is a name."""
    image_id = annotation["image_id"]
    named = {image_id} if isinstance(image_id, str) else set()
    return named | {Path(annotation["file_name"]).stem, *([picture[image_id]] if image_id in picture else [])}


def _read_panoptic(path: Path, segments: list[dict[str, Any]], prompt_of_category: dict[int, int]) -> FiledSegments:
    """Segments of a PNG that have no embeddings; those without a pixel are left out, as nothing could be pooled."""
    if strange := sorted({segment["category_id"] for segment in segments} - set(prompt_of_category)):
        raise ValueError(f"{path}: its segments are of categories {strange}, which the categories do not have.")
    described = np.array([segment["id"] for segment in segments], np.int64)
    pixels = read_ids(path, described)
    segments = [segment for segment, present in zip(segments, np.isin(described, pixels), strict=True) if present]
    ids = np.array([segment["id"] for segment in segments], np.int64)
    labels = np.array([prompt_of_category[segment["category_id"]] for segment in segments], np.int64)
    return FiledSegments(path, number_from_one(pixels, ids, path), labels, scores_of(segments))
