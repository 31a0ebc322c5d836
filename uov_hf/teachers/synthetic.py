"""A teacher for the synthetic street: the true segmentation, degraded with the errors of real 2D models."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.foreign_paths import inside
from uov_hf.image_files import open_image
from uov_hf.teachers.config import TeacherConfig, at_least, share
from uov_hf.teachers.mistakes import (
    CONFUSIONS,
    SCORE,
    SCORE_DEVIATION,
    THIN,
    THIN_SCORE,
    UNSEEN,
    WRONG_SCORE,
    Draw,
    Units,
    bleed,
    compact,
    cut_into_units,
    draw_regions,
    draw_shift,
    touching,
)
from uov_hf.teachers.protocol import Augmentation, ImageSegments, Teacher, TeacherFrame
from uov_hf.teachers.synthetic_words import EMBED_DIM, embed_vocabulary, unit_length
from uov_hf.vocabulary import load_vocabulary


SKY = ("sky", "cloudy sky", "clear sky", "overcast")


class StreetSegments(TypedDict):
    """`segments.json` of a street: each image's scene, and the raw class of each id of a scene."""

    images: dict[str, str]
    scenes: dict[str, dict[str, list[int]]]


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(TeacherConfig):
    """Error rates of `SyntheticTeacher`.

    Args:
        seed (`int`, *optional*, defaults to 0): Of all errors.
        confusion_rate (`float`, *optional*, defaults to 0.08):
            Share of the parts of things (cars, people, …) that get another class.
        region_confusion_rate (`float`, *optional*, defaults to 0.06): The same for stuff (roads, buildings, trees, …).
        region_size (`float`, *optional*, defaults to 0.1):
            Side of regions, as a share of the image's width. Masks are cut at the borders of regions, and each part is
            labelled on its own. Segments then have similar sizes: all count alike in pre-training, so a wrong part of
            a road weighs no more than its area.
        unseen_rate (`float`, *optional*, defaults to 0.2):
            Share of the parts of the classes in `UNSEEN` that get the other class.
        missing_rate (`float`, *optional*, defaults to 0.0):
            Share of the parts without a mask. A network that labels every pixel has none; teachers of masks have some.
        min_area (`float`, *optional*, defaults to 0.0003): Parts with a smaller share of the image have no mask.
        merge_rate (`float`, *optional*, defaults to 0.3):
            Share of the touching pairs of parts of things of one class that become one mask.
        border (`float`, *optional*, defaults to 0.005):
            Standard deviation of the shift of borders, as a share of the image's width.
        embed_noise (`float`, *optional*, defaults to 0.3):
            Length of the noise on a segment's embedding, before normalisation.
        persistence (`float`, *optional*, defaults to 0.95):
            Similarity between the errors in two images of the same object or place, also between an image and its
            augmentation: the share of the parts whose error is that of their object or place (the others are drawn for
            the image), and the correlation of the shifts of borders.

    Raises:
        ValueError: a value is out of range.
    """

    seed: int = at_least(0, 0)
    confusion_rate: float = share(0.08)
    region_confusion_rate: float = share(0.06)
    region_size: float = 0.1
    unseen_rate: float = share(0.2)
    missing_rate: float = share(0.0)
    min_area: float = share(0.0003)
    merge_rate: float = share(0.3)
    border: float = at_least(0, 0.005)
    embed_noise: float = at_least(0, 0.3)
    persistence: float = share(0.95)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.region_size <= 1:
            raise ValueError(f"`region_size` must be more than 0 and at most 1, got {self.region_size}.")


class SyntheticTeacher(Teacher):
    """Reads the true segmentation of each image of a root from `uov_hf.synthetic.generate_street`, and degrades it.

    As in a real model, most errors persist: they belong to an object, or to a place of the town, and occur in every
    image of it. docs/results.md compares them with those of a real model. The errors are a function of (`seed`, scene,
    image id, augmentation) alone. With the defaults, 80 to 92 % of the pixels of the 16 classes get the right class. A
    segment's embedding is that of its prompt, with noise: a wrong label has a wrong embedding, as in models that
    predict both in one forward pass. The prompts must be of the nuScenes vocabulary; `data_dir` is the root.
    `SyntheticConfig` has the settings.

    Raises:
        ValueError: a prompt is unknown, or `data_dir` is missing.
        FileNotFoundError: `data_dir` holds no street.
    """

    name = "synthetic"
    config_class = SyntheticConfig
    config: SyntheticConfig

    def load(self) -> None:
        self.vocabulary = load_vocabulary("nuscenes")
        self._is_stuff = np.array([name.startswith(("flat.", "static.")) for name in self.vocabulary.raw_names])
        self._sky = self.vocabulary.raw_names.index("static.other")
        self._vocabulary_embeds = embed_vocabulary(self.vocabulary)
        rows = self._vocabulary_rows(self.prompts)
        self.prompt_embeds = self._vocabulary_embeds[rows]  # (num_prompts, 64)
        self._prompt_to_raw = self.vocabulary.prompt_to_raw[rows]
        self._prompt_to_class = self.vocabulary.prompt_to_class[rows]
        self.folder = self._find_folder()
        self._segments: StreetSegments = json.loads((self.folder / "segments.json").read_text(encoding="utf-8"))

    def _find_folder(self) -> Path:
        if self.data_dir is None:
            raise ValueError(f"The teacher `{self.name}` needs `data_dir`, a root written by `uov_hf.synthetic`.")
        folder = Path(self.data_dir) / "synthetic"
        if not (folder / "segments.json").is_file():
            raise FileNotFoundError(
                f"{folder / 'segments.json'}: expected the true segments of a street, got no file. The teacher "
                f"`{self.name}` reads roots written by `python -m uov_hf.synthetic` only."
            )
        return folder

    @property
    def embed_dim(self) -> int:
        return EMBED_DIM

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        """Unit-length float32 embeddings `(num_prompts, 64)`.

        Raises:
            ValueError: a phrase is not in the nuScenes vocabulary, and there is no text tower to embed it.
        """
        return self._vocabulary_embeds[self._vocabulary_rows(prompts)]

    def _vocabulary_rows(self, prompts: list[str]) -> np.ndarray:
        """First row of each phrase in the vocabulary, which an arg-max selects too."""
        phrases = self.vocabulary.prompts
        if unknown := sorted(set(prompts) - set(phrases)):
            raise ValueError(
                f"The teacher `{self.name}` has no text tower: it embeds the {len(phrases)} phrases of the nuScenes "
                f"vocabulary only, not {', '.join(map(repr, unknown[:5]))}."
            )
        return np.array([phrases.index(prompt) for prompt in prompts])

    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        """Segment the frame's images by their `image_ids`; no image is opened."""
        return [self.segment_image(image_id, frame.get("augmentation")) for image_id in frame["image_ids"]]

    def segment_image(self, image_id: str, augmentation: str | None = None) -> ImageSegments:
        """Segment one image (a camera's sample_data token), plain or augmented (see `Augmentation`)."""
        rng = self._generator(image_id, augmentation or "")
        pixels, units = self._cut(rng, image_id)
        draw = self._draw(rng, pixels, units)
        segmentation = (draw.segment_of_unit + 1).astype(np.int32)[pixels]
        embeds = unit_length(self.prompt_embeds[draw.labels] + draw.noise).astype(np.float32)
        return ImageSegments(
            segmentation=Augmentation.parse(augmentation).apply_to_ids(segmentation),
            labels=draw.labels,
            scores=draw.scores.astype(np.float32),
            embeds=embeds,
        )

    def _generator(self, *names: str) -> np.random.Generator:
        digests = [byte for name in names for byte in hashlib.md5(name.encode()).digest()]
        return np.random.default_rng([self.config.seed, *digests])

    def _cut(self, rng: np.random.Generator, image_id: str) -> tuple[np.ndarray, Units]:
        """Unit of each pixel (height, width), and the units."""
        ids, raw_of_id = self.read_truth(image_id)
        scene, width = self._segments["images"][image_id], ids.shape[1]
        shift = self._draw_shift(rng, ids, scene)
        ids, places = bleed(ids, shift), bleed(self._read("places", image_id), shift)
        regions = draw_regions(rng, ids.shape, self.config.region_size * width)
        stuff_class = np.where(self._is_stuff[raw_of_id], raw_of_id, -1)
        units, pixel = cut_into_units(ids, stuff_class, places, regions)
        ids, places, regions = (array.reshape(-1)[pixel] for array in (ids, places, regions))
        raw_classes = raw_of_id[ids]
        owners = [
            f"{scene}, {raw} at {place}" if self._is_stuff[raw] else f"{scene}, object {thing}"
            for raw, place, thing in zip(raw_classes, places, ids, strict=True)
        ]
        return units, Units(raw_classes, owners, regions, np.bincount(units.reshape(-1)))

    def _draw_shift(self, rng: np.random.Generator, ids: np.ndarray, scene: str) -> np.ndarray:
        """Draw a shift of borders (2, height, width) in pixels: partly that of each object, partly of the image."""
        persistence = self.config.persistence
        of_ids = self._generator(scene).standard_normal((2, ids.max() + 1))
        shift = persistence * of_ids[:, ids] + np.sqrt(1 - persistence**2) * draw_shift(rng, ids.shape)
        return self.config.border * ids.shape[1] * shift

    def _draw(self, rng: np.random.Generator, pixels: np.ndarray, units: Units) -> Draw:
        """Draw labels for the units, masks, scores and noise; `pixels` (height, width) has the unit of each."""
        prompts, is_right = self._label_units(rng, units)
        unit_of_unit = self._merge_units(rng, touching(pixels), prompts, units)
        areas = np.bincount(unit_of_unit, units.areas, len(prompts))[unit_of_unit]
        has_mask = (prompts >= 0) & (areas >= self.config.min_area * pixels.size)
        segment_of_unit, kept = compact(np.where(has_mask, unit_of_unit, -1))
        is_right = is_right[kept]
        scores = self._draw_scores(rng, self._prompt_to_class[prompts[kept]], is_right)
        noise = rng.standard_normal((len(kept), EMBED_DIM)) * self.config.embed_noise / np.sqrt(EMBED_DIM)
        return Draw(segment_of_unit, prompts[kept], scores, noise)

    def _draw_scores(self, rng: np.random.Generator, labels: np.ndarray, is_right: np.ndarray) -> np.ndarray:
        """Scores (num_segments,) for the classes of the labels (num_segments,)."""
        is_thin = np.isin(labels, [self.vocabulary.class_names.index(name) for name in THIN])
        means = np.where(is_thin, THIN_SCORE, SCORE) + np.where(is_right, 0, WRONG_SCORE)
        return np.clip(means + SCORE_DEVIATION * rng.standard_normal(len(means)), 0.1, 0.99)

    def read_truth(self, image_id: str) -> tuple[np.ndarray, np.ndarray]:
        """True ids of an image (height, width), and the raw class of every id; the sky is static.other."""
        ids = self._read("segmentation", image_id)
        raw_of_id = np.array(self._segments["scenes"][self._segments["images"][image_id]]["raw_class"])
        raw_of_id[0] = self._sky
        return ids, raw_of_id

    def _read(self, folder: str, image_id: str) -> np.ndarray:
        """The ids (height, width) of a PNG of an image."""
        path = inside(self.folder / folder, f"{image_id}.png", f"The image id {image_id}")
        if image_id not in self._segments["images"] or not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected the true {folder} of image {image_id}, got no file. Streets of this version of "
                "`uov_hf.synthetic` have it: write the street again."
            )
        with open_image(path) as image:
            return np.array(image).astype(np.int64)

    def _label_units(self, rng: np.random.Generator, units: Units) -> tuple[np.ndarray, np.ndarray]:
        """A prompt for every unit, -1 = no mask, and whether its class is right."""
        preference = rng.random(len(self.prompts))  # stuff of one class has one prompt in an image
        prompts, is_right = np.full(len(units), -1), np.ones(len(units), dtype=bool)
        for unit, (raw, owner) in enumerate(zip(units.raw_classes, units.owners, strict=True)):
            persists = rng.random() < self.config.persistence
            luck = self._generator(owner) if persists else rng
            label = self._draw_class(luck, raw)
            is_right[unit] = label == self.vocabulary.raw_to_class[raw]
            candidates = np.flatnonzero(self._prompt_to_raw == raw) if is_right[unit] else np.array([], dtype=int)
            if is_right[unit] and raw == self._sky:
                candidates = np.array([row for row, prompt in enumerate(self.prompts) if prompt in SKY], dtype=int)
            elif len(candidates) == 0 and label != IGNORED:
                candidates = np.flatnonzero(self._prompt_to_class == label)
            missing = luck.random() < self.config.missing_rate
            if len(candidates) and not missing:
                one_prompt = label == IGNORED or not self.vocabulary.is_thing[label]
                prompts[unit] = candidates[preference[candidates].argmax()] if one_prompt else luck.choice(candidates)
        return prompts, is_right

    def _draw_class(self, rng: np.random.Generator, raw: int) -> int:
        """The class of a unit's label, drawn for its raw class; 255 for background."""
        true_class = int(self.vocabulary.raw_to_class[raw])
        luck, mistake = rng.random(2)
        if true_class == IGNORED:
            return true_class
        names, config = self.vocabulary.class_names, self.config
        name = names[true_class]
        rate = config.confusion_rate if self.vocabulary.is_thing[true_class] else config.region_confusion_rate
        if name in UNSEEN and luck < config.unseen_rate:
            return names.index(UNSEEN[name])
        return names.index(str(rng.choice(CONFUSIONS[name]))) if mistake < rate else true_class

    def _merge_units(
        self, rng: np.random.Generator, pairs: np.ndarray, prompts: np.ndarray, units: Units
    ) -> np.ndarray:
        """One unit's number per segment for every unit.

        Of the touching `pairs` (num_pairs, 2) with one label, things merge at random, and stuff merges in one region.
        """
        segment, is_stuff = np.arange(len(prompts)), self._is_stuff[units.raw_classes]
        labels = np.where(prompts < 0, -1, self._prompt_to_class[prompts])
        for one, other in pairs:
            if is_stuff[one] or is_stuff[other]:
                merges = prompts[one] == prompts[other] and units.regions[one] == units.regions[other]
            else:
                merges = labels[one] == labels[other] and rng.random() < self.config.merge_rate
            if merges:
                segment[segment == segment[other]] = segment[one]
        return segment
