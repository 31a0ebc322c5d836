"""Folder layouts of label files: the official UOV/AFOV layout, and panoptic PNGs with JSON."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from uov_hf.foreign_paths import inside
from uov_hf.leftovers import data_files
from uov_hf.setting_files import read_json
from uov_hf.teachers.file_contents import (
    SegmentInfo,
    normalize_rows,
    number_from_one,
    prompts_of_categories,
    read_features,
    read_ids,
)


TEXT_EMBEDS, CATEGORIES = "text_embedding.pt", "categories.json"


@dataclass(frozen=True)
class FiledSegments:
    """The segments of one image in a folder."""

    path: Path  # the PNG, for messages
    segmentation: np.ndarray  # (height, width), int32: ids 1…S, 0 = none
    labels: np.ndarray  # (S,), int64: row of the prompt
    scores: np.ndarray  # (S,), float32; 1 for a segment without a score
    embeds: np.ndarray  # (S, embed_dim), float32, unit length; width 0 in a folder without embeddings


class Layout(ABC):
    """A folder with the segments of images. Labels are rows of `prompts`."""

    name: ClassVar[str]
    form: ClassVar[str]
    marker: ClassVar[str]  # a file that every folder of this layout has
    prompt_embeds: np.ndarray = np.empty((0, 0), np.float32)  # (num_prompts, embed_dim), unit length, or empty

    def __init__(self, folder: Path, prompts: list[str]):
        self.folder, self.prompts = folder, prompts

    @classmethod
    def fits(cls, folder: Path) -> bool:
        """Whether the folder looks like this layout."""
        return (folder / cls.marker).is_file()

    @property
    def settings(self) -> dict[str, Any]:
        """The layout, and the constants that decide its segments, as JSON for `label_set.json`."""
        return {"layout": self.name}

    @abstractmethod
    def read(self, names: list[str], size: tuple[int, int]) -> FiledSegments:
        """Read the segments of the image with one of `names`, and with this height and width.

        Raises:
            FileNotFoundError: the folder has no such image.
            ValueError: its files are damaged or of another size; the message names the file.
        """

    def _find(self, names: list[str]) -> Path:
        """`<name>.png`, of the first name that has one."""
        paths = [inside(self.folder, f"{name}.png", f"The image id {name}") for name in names]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            expected = " or ".join(f"{name}.png" for name in names)
            raise FileNotFoundError(f"{self.folder} has no segments of this image: expected {expected}.")
        return found


class UOVLayout(Layout):
    """The output of the official UOV and AFOV code (`ov_segment/*/superpixel_generation.py`) for its three teachers.

    One folder contains `<camera sample_data token>.png`, `.json` and `.pt` of each image, and `text_embedding.pt`. The
    `.pt` of an image holds a tensor (S + 1, D) whose row 0 is of no segment. FC-CLIP's holds two tensors; the method
    uses the second (mask-pooled CLIP features). FC-CLIP's `text_embedding.pt` has a last row for "void", which is
    dropped.
    """

    name = "uov"
    marker = TEXT_EMBEDS
    form = f"{TEXT_EMBEDS} and, for each image, <token>.png, <token>.json and <token>.pt"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        path = folder / TEXT_EMBEDS
        rows = read_features(path)
        if len(rows) not in (len(prompts), len(prompts) + 1):
            raise ValueError(
                f"{path}: expected a row for each of the {len(prompts)} prompts, and perhaps one for void, got "
                f"{len(rows)}. The folder was made with another vocabulary: give it with --vocabulary."
            )
        self.prompt_embeds = normalize_rows(rows[: len(prompts)], path)

    def read(self, names: list[str], size: tuple[int, int]) -> FiledSegments:
        path = self._find(names)
        info = SegmentInfo.read(path.with_suffix(".json"))
        wrong = (info.categories < 0) | (info.categories >= len(self.prompts))
        if wrong.any():
            raise ValueError(
                f"{path.with_suffix('.json')}: segment {info.ids[wrong][0]} has category {info.categories[wrong][0]}, "
                f"expected the row of one of {len(self.prompts)} prompts."
            )
        segmentation = number_from_one(read_ids(path, info.ids, size), info.ids, path)
        return FiledSegments(path, segmentation, info.categories, info.scores, self._embeds(path, info.ids))

    def _embeds(self, path: Path, ids: np.ndarray) -> np.ndarray:
        path = path.with_suffix(".pt")
        rows = read_features(path)
        if len(rows) != ids.max(initial=0) + 1:
            raise ValueError(
                f"{path}: expected {ids.max(initial=0) + 1} rows, one of zeros and one for each segment that the JSON "
                f"beside it describes, got {len(rows)}."
            )
        return normalize_rows(rows[ids], path)


class PanopticLayout(Layout):
    """`<name>.png` and `<name>.json` of each image in one folder, and `categories.json`.

    The PNG holds segment ids, as grey values of 8 or 16 bits or as red + 256 green + 256² blue. The JSON is their
    `segments_info`, or an object with it. `categories.json` is COCO's list of `id` and `name`.
    """

    name = "panoptic"
    marker = CATEGORIES
    form = f"{CATEGORIES} and, for each image, <name>.png and <name>.json"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        path = folder / CATEGORIES
        self.prompt_of_category = prompts_of_categories(read_json(path), prompts, path)

    def read(self, names: list[str], size: tuple[int, int]) -> FiledSegments:
        path = self._find(names)
        return PanopticImage(path, SegmentInfo.read(path.with_suffix(".json")), self.prompt_of_category).read(size)


@dataclass(frozen=True)
class PanopticImage:
    """A PNG of a panoptic format, the description of its segments, and the prompt of each category."""

    path: Path
    info: SegmentInfo
    prompt_of_category: dict[int, int]

    def read(self, size: tuple[int, int]) -> FiledSegments:
        """Read the segments of an image of `size` without those that have no pixel: nothing to pool for them."""
        if strange := sorted(set(self.info.categories.tolist()) - set(self.prompt_of_category)):
            raise ValueError(
                f"{self.path}: its segments have categories {strange}, which are not among the described categories."
            )
        pixels = read_ids(self.path, self.info.ids, size)
        info = self.info.take(np.isin(self.info.ids, pixels))
        labels = np.array([self.prompt_of_category[category] for category in info.categories.tolist()], np.int64)
        segmentation = number_from_one(pixels, info.ids, self.path)
        return FiledSegments(self.path, segmentation, labels, info.scores, np.empty((len(labels), 0), np.float32))


class COCOLayout(Layout):
    """COCO's panoptic format, which the panoptic script of Cityscapes writes too.

    A `<set>.json` with `annotations` and `categories` lies beside a folder `<set>/` of its PNGs; several such sets may
    lie in one folder.
    """

    name = "coco"
    form = "<set>.json with `annotations` and `categories`, beside a folder <set>/ of PNGs"

    def __init__(self, folder: Path, prompts: list[str]):
        super().__init__(folder, prompts)
        self.images: dict[str, PanopticImage] = {}
        sets = _coco_sets(folder)
        if not sets:
            raise ValueError(f"{folder}: expected {self.form}, found none.")
        for path in sets:
            self._add(path)

    @classmethod
    def fits(cls, folder: Path) -> bool:
        return bool(_coco_sets(folder))

    def read(self, names: list[str], size: tuple[int, int]) -> FiledSegments:
        # The image files of Cityscapes are called <image id>_leftImg8bit.
        names = [*names, *(name.removesuffix("_leftImg8bit") for name in names)]
        found = next((name for name in names if name in self.images), None)
        if found is None:
            raise FileNotFoundError(
                f"{self.folder} has no segments of this image: expected {' or '.join(dict.fromkeys(names))} among the "
                f"{len(self.images)} names of its images."
            )
        return self.images[found].read(size)

    def _add(self, path: Path) -> None:
        content = read_json(path)
        try:
            infos = [SegmentInfo.parse(one["segments_info"], path) for one in content["annotations"]]
            used = {category for info in infos for category in info.categories.tolist()}
            categories = [one for one in content["categories"] if one["id"] in used]
            picture = {one["id"]: Path(one["file_name"]).stem for one in content.get("images", [])}
            pngs = [inside(path.with_suffix(""), one["file_name"], path) for one in content["annotations"]]
            names = [_names(one, picture) for one in content["annotations"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not of COCO's panoptic format: {type(error).__name__}: {error}.") from error
        prompt_of_category = prompts_of_categories(categories, self.prompts, path)
        for png, info, its_names in zip(pngs, infos, names, strict=True):
            for name in its_names:
                if name in self.images:
                    raise ValueError(f"{path}: image {name} occurs twice; its other PNG is {self.images[name].path}.")
                self.images[name] = PanopticImage(png, info, prompt_of_category)


def _coco_sets(folder: Path) -> list[Path]:
    return [path for path in data_files(folder, "*.json") if path.with_suffix("").is_dir()]


def _names(annotation: dict[str, Any], picture: dict[Any, str]) -> set[str]:
    """Names of an image in COCO's format: its PNG's, its picture's, and its id where that is a name."""
    image_id = annotation["image_id"]
    named = {image_id} if isinstance(image_id, str) else set()
    return named | {Path(annotation["file_name"]).stem, *([picture[image_id]] if image_id in picture else [])}
