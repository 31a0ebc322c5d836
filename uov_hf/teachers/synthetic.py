"""A teacher for the synthetic street: it knows the truth, and errs as real 2D open-vocabulary models err."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from uov_hf.teachers.mistakes import CONFUSIONS, UNSEEN, bleed, cut_into_units, touching
from uov_hf.teachers.protocol import ImageSegments, Teacher
from uov_hf.vocabulary import Vocabulary, load_vocabulary


EMBED_DIM = 64
BACKGROUND = 255
SKY = ("sky", "cloudy sky", "clear sky", "overcast")

# Classes that are alike share a direction of the space of words; a class, a group of prompts and a prompt add theirs.
KINDS = (
    ("bus", "car", "construction_vehicle", "trailer", "truck"),
    ("bicycle", "motorcycle", "pedestrian"),
    ("barrier", "traffic_cone"),
    ("driveable_surface", "other_flat", "sidewalk", "terrain"),
    ("manmade", "vegetation"),
)
KIND_SHARE, CLASS_SHARE, GROUP_SHARE, PROMPT_SHARE = 0.25, 0.4, 0.15, 0.2  # of the squared length


class SyntheticTeacher(Teacher):
    """
    Reads the true segmentation of each image of a root that `uov_hf.synthetic.generate_street` wrote, and degrades it.

    The mistakes are a function of (`seed`, image id) alone. With the defaults, 70 to 85 % of the pixels of the 16
    classes get the right class. A segment's embedding is that of its prompt, with noise: a wrong name comes with a
    wrong embedding, as where both are of one forward pass.

    Args:
        prompts, model_name_or_path, revision, data_dir, device, dtype:
            As in `Teacher`. The prompts must be of the nuScenes vocabulary; `data_dir` is the root.
        seed (`int`): of all mistakes.
        confusion_rate (`float`): share of the parts of things (cars, people, …) that are taken for another class.
        region_confusion_rate (`float`): the same for stuff (roads, buildings, trees, …).
        region_size (`float`): masks are cut at the borders of regions of about this side, as a share of the image's
            width, and each part is named on its own. Segments are then of similar size: as all of them count alike in
            pre-training, a wrong part of a road weighs no more than it covers.
        unseen_rate (`float`): share of the parts of the classes in `UNSEEN` that get the other name.
        missing_rate (`float`): share of the parts that have no mask.
        min_area (`float`): parts that cover less than this share of the image have none either.
        merge_rate (`float`): share of the touching pairs of parts of things of one class that become one mask.
        border (`float`): how far borders bleed (a standard deviation), as a share of the image's width.
        embed_noise (`float`): length of the noise on a segment's embedding, before it is brought to unit length.

    Raises:
        ValueError: a setting is out of range, a prompt is unknown, or `data_dir` is missing.
        FileNotFoundError: `data_dir` holds no street.
    """

    name: ClassVar[str] = "synthetic"

    def __init__(
        self,
        prompts: list[str],
        *,
        seed: int = 0,
        confusion_rate: float = 0.08,
        region_confusion_rate: float = 0.06,
        region_size: float = 0.1,
        unseen_rate: float = 0.2,
        missing_rate: float = 0.12,
        min_area: float = 0.0005,
        merge_rate: float = 0.3,
        border: float = 0.006,
        embed_noise: float = 0.3,
        **shared: Any,
    ):
        super().__init__(prompts, **shared)
        rates = {
            "confusion_rate": confusion_rate,
            "region_confusion_rate": region_confusion_rate,
            "unseen_rate": unseen_rate,
            "missing_rate": missing_rate,
            "min_area": min_area,
            "merge_rate": merge_rate,
        }
        self._settings = rates | {
            "seed": seed,
            "region_size": region_size,
            "border": border,
            "embed_noise": embed_noise,
        }
        for name, value in self._settings.items():
            if value < 0 or (name in rates and value > 1):
                raise ValueError(
                    f"`{name}` must be {'between 0 and 1' if name in rates else '0 or more'}, got {value}."
                )
        if not 0 < region_size <= 1:
            raise ValueError(f"`region_size` must be more than 0 and at most 1, got {region_size}.")
        self.vocabulary = load_vocabulary("nuscenes")
        self.prompt_embeds = self.encode_prompts(self.prompts)
        self.folder = self._find_folder()

    def _find_folder(self) -> Path:
        if self.data_dir is None:
            raise ValueError(f"The teacher `{self.name}` needs `data_dir`: a root that `uov_hf.synthetic` wrote.")
        folder = Path(self.data_dir) / "synthetic"
        if not (folder / "segments.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'segments.json'}: expected the true segments of a street, got no file. The teacher "
                f"`{self.name}` works on roots written by `python -m uov_hf.synthetic` only."
            )
        return folder

    @property
    def embed_dim(self) -> int:
        return EMBED_DIM

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """
        Unit-length float32 embeddings `(num_prompts, 64)`.

        Raises:
            ValueError: a phrase is not of the nuScenes vocabulary, and there is no text tower that could read it.
        """
        return self._vocabulary_embeds[self._vocabulary_rows(prompts)]

    def _vocabulary_rows(self, prompts: list[str]) -> np.ndarray:
        """Row of each phrase in the vocabulary; of one that stands there twice the first, as an arg-max takes it."""
        known = self.vocabulary.prompts
        unknown = sorted(set(prompts) - set(known))
        if unknown:
            raise ValueError(
                f"The teacher `{self.name}` has no text tower: it knows the {len(known)} phrases of the nuScenes "
                f"vocabulary only, not {', '.join(map(repr, unknown[:5]))}."
            )
        return np.array([known.index(prompt) for prompt in prompts])

    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        """The segments of the frame's images, found by `image_ids`; no image is opened."""
        return [self.segment_image(image_id) for image_id in frame["image_ids"]]

    def segment_image(self, image_id: str) -> ImageSegments:
        """The segments of one image (a camera's sample_data token)."""
        rng = np.random.default_rng([self._settings["seed"], *hashlib.md5(image_id.encode()).digest()])
        ids, raw_of_id = self.read_truth(image_id)
        width = ids.shape[1]
        ids = bleed(rng, ids, self._settings["border"] * width)
        stuff_class = np.where(self._is_stuff[raw_of_id], raw_of_id, -1)
        units, id_of_unit = cut_into_units(rng, ids, stuff_class, self._settings["region_size"] * width)
        prompt_of_unit, is_right = self._name_units(rng, raw_of_id[id_of_unit])
        is_small = np.bincount(units.reshape(-1)) < self._settings["min_area"] * units.size
        prompt_of_unit[is_small] = -1
        segment_of_unit = self._merge_units(rng, units, prompt_of_unit, self._is_stuff[raw_of_id[id_of_unit]])
        kept, compact = np.unique(np.append(segment_of_unit, -1), return_inverse=True)  # -1 comes first: it is 0
        kept = kept[1:]
        labels, is_right = prompt_of_unit[kept], is_right[kept]
        scores = np.where(is_right, rng.uniform(0.6, 0.98, len(kept)), rng.uniform(0.4, 0.85, len(kept)))
        segmentation = compact[:-1].astype(np.int32)[units]
        return ImageSegments(segmentation, labels, scores.astype(np.float32), self._embed_segments(rng, labels))

    def read_truth(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids of what an image truly shows (height, width), and the raw class of every id; the sky is static.other."""
        path = self.folder / "segmentation" / f"{image_id}.png"
        if image_id not in self._segments["images"] or not path.is_file():
            raise FileNotFoundError(f"{path}: expected the true segmentation of image {image_id}, got no file.")
        with Image.open(path) as image:
            ids = np.array(image).astype(np.int64)
        raw_of_id = np.array(self._segments["scenes"][self._segments["images"][image_id]]["raw_class"])
        raw_of_id[0] = self.vocabulary.raw_names.index("static.other")
        return ids, raw_of_id

    def _name_units(self, rng, raw_of_unit) -> tuple[np.ndarray, np.ndarray]:
        """A prompt for every unit, -1 where it has no mask; and whether it is of the right class."""
        taste = rng.random(len(self.prompts))  # stuff of one class has one name in an image
        prompts, is_right = np.full(len(raw_of_unit), -1), np.ones(len(raw_of_unit), dtype=bool)
        for unit, raw in enumerate(raw_of_unit):
            called = self._call(rng, raw)
            is_right[unit] = called == self.vocabulary.raw_to_class[raw]
            candidates = np.flatnonzero(self._prompt_to_raw == raw) if is_right[unit] else np.array([], dtype=int)
            if is_right[unit] and raw == self._sky:
                candidates = np.array([row for row, prompt in enumerate(self.prompts) if prompt in SKY], dtype=int)
            elif len(candidates) == 0 and called != BACKGROUND:
                candidates = np.flatnonzero(self._prompt_to_class == called)
            missing = rng.random() < self._settings["missing_rate"]
            if len(candidates) and not missing:
                one_name = called == BACKGROUND or not self.vocabulary.is_thing[called]
                prompts[unit] = candidates[taste[candidates].argmax()] if one_name else rng.choice(candidates)
        return prompts, is_right

    def _call(self, rng, raw: int) -> int:
        """The class that a unit of this raw class is called, 255 for background."""
        true_class = int(self.vocabulary.raw_to_class[raw])
        luck, mistake = rng.random(2)
        if true_class == BACKGROUND:
            return true_class
        names, settings = self.vocabulary.class_names, self._settings
        name = names[true_class]
        rate = settings["confusion_rate" if self.vocabulary.is_thing[true_class] else "region_confusion_rate"]
        if name in UNSEEN and luck < settings["unseen_rate"]:
            return names.index(UNSEEN[name])
        return names.index(str(rng.choice(CONFUSIONS[name]))) if mistake < rate else true_class

    def _merge_units(self, rng, units, prompts, is_stuff) -> np.ndarray:
        """Segment of every unit (one of its units), -1 without a mask. Touching things of one class may merge."""
        segment = np.arange(len(prompts))
        called = np.where(prompts < 0, -1, self._prompt_to_class[prompts])
        for one, other in touching(units):
            alike = not (is_stuff[one] or is_stuff[other]) and called[one] == called[other] >= 0
            if alike and rng.random() < self._settings["merge_rate"]:
                segment[segment == segment[other]] = segment[one]
        return np.where(prompts < 0, -1, segment)

    def _embed_segments(self, rng, labels) -> np.ndarray:
        noise = rng.standard_normal((len(labels), EMBED_DIM)) * self._settings["embed_noise"] / np.sqrt(EMBED_DIM)
        return _unit(self.prompt_embeds[labels] + noise).astype(np.float32)

    @cached_property
    def _segments(self) -> dict[str, Any]:
        return json.loads((self.folder / "segments.json").read_text(encoding="utf-8"))

    @cached_property
    def _vocabulary_embeds(self) -> np.ndarray:
        return embed_vocabulary(self.vocabulary)

    @cached_property
    def _prompt_to_raw(self) -> np.ndarray:
        return self.vocabulary.prompt_to_raw[self._vocabulary_rows(self.prompts)]

    @cached_property
    def _prompt_to_class(self) -> np.ndarray:
        return self.vocabulary.prompt_to_class[self._vocabulary_rows(self.prompts)]

    @cached_property
    def _is_stuff(self) -> np.ndarray:
        """Whether a raw class is stuff."""
        return np.array([name.startswith(("flat.", "static.")) for name in self.vocabulary.raw_names])

    @cached_property
    def _sky(self) -> int:
        return self.vocabulary.raw_names.index("static.other")


def embed_vocabulary(vocabulary: Vocabulary) -> np.ndarray:
    """
    One point (num_prompts, 64) on the unit sphere per prompt: near for synonyms, related for classes of one kind.

    A prompt is √0.25 · kind + √0.4 · class + √0.15 · group + √0.2 · prompt. Kinds and classes are orthonormal, groups
    and prompts random: the expected cosine is 0.8 within a group, 0.65 within a class, 0.25 within a kind, else 0.
    Background prompts have their group in place of a class.
    """
    rng = np.random.default_rng(64)
    directions = np.linalg.qr(rng.standard_normal((EMBED_DIM, EMBED_DIM)))[0]
    background = len(vocabulary.class_names)
    kind_of_class = {vocabulary.class_names.index(name): kind for kind, names in enumerate(KINDS) for name in names}
    kinds = np.array([kind_of_class.get(int(label), len(KINDS)) for label in vocabulary.prompt_to_class])
    first_group = np.unique(vocabulary.prompt_groups[vocabulary.prompt_to_class == BACKGROUND], return_inverse=True)
    classes = np.minimum(vocabulary.prompt_to_class, background)
    classes[vocabulary.prompt_to_class == BACKGROUND] += first_group[1]
    groups = _unit(rng.standard_normal((int(vocabulary.prompt_groups.max()) + 1, EMBED_DIM)))
    own = _unit(rng.standard_normal((len(vocabulary.prompts), EMBED_DIM)))
    embeds = (
        np.sqrt(KIND_SHARE) * directions[kinds]
        + np.sqrt(CLASS_SHARE) * directions[len(KINDS) + 1 + classes]
        + np.sqrt(GROUP_SHARE) * groups[vocabulary.prompt_groups]
        + np.sqrt(PROMPT_SHARE) * own
    )
    return _unit(embeds).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
