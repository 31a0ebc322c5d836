"""A teacher for the synthetic street: it knows the truth, and errs as real 2D open-vocabulary models err."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from uov_hf.configuration_uov import IGNORED
from uov_hf.teachers.mistakes import (
    CONFUSIONS,
    UNSEEN,
    Draw,
    bleed,
    compact,
    cut_into_units,
    draw_regions,
    draw_shift,
    mix,
    touching,
)
from uov_hf.teachers.protocol import Augmentation, ImageSegments, Teacher
from uov_hf.teachers.synthetic_words import EMBED_DIM, embed_vocabulary, unit_length
from uov_hf.vocabulary import load_vocabulary


SKY = ("sky", "cloudy sky", "clear sky", "overcast")


class SyntheticTeacher(Teacher):
    """
    Reads the true segmentation of each image of a root that `uov_hf.synthetic.generate_street` wrote, and degrades it.

    The mistakes are a function of (`seed`, image id, augmentation) alone. With the defaults, 70 to 85 % of the pixels
    of the 16 classes get the right class. A segment's embedding is that of its prompt, with noise: a wrong name comes
    with a wrong embedding, as where both are of one forward pass.

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
        shared_mistakes (`float`): how much an augmented image's mistakes have in common with the plain image's: the
            share of the parts that get the same name and score again (the others are named anew), and the correlation
            of how borders bleed. A real model errs on a mirrored image much as on the image itself, so the default is
            high. Measured on no real model.

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
        shared_mistakes: float = 0.7,
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
            "shared_mistakes": shared_mistakes,
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
        return [self.segment_image(image_id, frame.get("augmentation")) for image_id in frame["image_ids"]]

    def segment_image(self, image_id: str, augmentation: str | None = None) -> ImageSegments:
        """The segments of one image (a camera's sample_data token), as it is or augmented (see `Augmentation`)."""
        rng = self._generator(image_id)
        shift, units, raw_of_unit = self._cut(rng, image_id)
        draw = self._draw(rng, units, raw_of_unit)
        if augmentation is not None:
            rng = self._generator(image_id, augmentation)
            units = self._move_borders(rng, units, shift)
            is_shared = rng.random(len(raw_of_unit)) < self._settings["shared_mistakes"]
            draw = mix(is_shared, draw, self._draw(rng, units, raw_of_unit))
        segmentation = (draw.segment_of_unit + 1).astype(np.int32)[units]
        embeds = unit_length(self.prompt_embeds[draw.labels] + draw.noise).astype(np.float32)
        return ImageSegments(
            segmentation=Augmentation.parse(augmentation).apply_to_ids(segmentation),
            labels=draw.labels,
            scores=draw.scores.astype(np.float32),
            embeds=embeds,
        )

    def _generator(self, *names: str) -> np.random.Generator:
        digests = [byte for name in names for byte in hashlib.md5(name.encode()).digest()]
        return np.random.default_rng([self._settings["seed"], *digests])

    def _cut(self, rng: np.random.Generator, image_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How far borders bleed (2, height, width), unit of each pixel (height, width), raw class of each unit."""
        ids, raw_of_id = self.read_truth(image_id)
        width = ids.shape[1]
        shift = self._settings["border"] * width * draw_shift(rng, ids.shape)
        regions = draw_regions(rng, ids.shape, self._settings["region_size"] * width)
        stuff_class = np.where(self._is_stuff[raw_of_id], raw_of_id, -1)
        units, id_of_unit = cut_into_units(bleed(ids, shift), stuff_class, regions)
        return shift, units, raw_of_id[id_of_unit]

    def _move_borders(self, rng: np.random.Generator, units: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The same units with borders that bleed anew, as far as before and correlated with how they did."""
        share = self._settings["shared_mistakes"]
        new = self._settings["border"] * units.shape[1] * draw_shift(rng, units.shape)
        return bleed(units, (share - 1) * shift + np.sqrt(1 - share**2) * new)

    def _draw(self, rng: np.random.Generator, units: np.ndarray, raw_of_unit: np.ndarray) -> Draw:
        """Names for the units, masks, confidences and noise."""
        prompts, is_right = self._name_units(rng, raw_of_unit)
        areas = np.bincount(units.reshape(-1), minlength=len(raw_of_unit))
        prompts[areas < max(1, self._settings["min_area"] * units.size)] = -1
        unit_of_unit = self._merge_units(rng, units, prompts, self._is_stuff[raw_of_unit])
        segment_of_unit, kept = compact(unit_of_unit)
        is_right = is_right[kept]
        scores = np.where(is_right, rng.uniform(0.6, 0.98, len(kept)), rng.uniform(0.4, 0.85, len(kept)))
        noise = rng.standard_normal((len(kept), EMBED_DIM)) * self._settings["embed_noise"] / np.sqrt(EMBED_DIM)
        return Draw(segment_of_unit, prompts[kept], scores, noise)

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
            elif len(candidates) == 0 and called != IGNORED:
                candidates = np.flatnonzero(self._prompt_to_class == called)
            missing = rng.random() < self._settings["missing_rate"]
            if len(candidates) and not missing:
                one_name = called == IGNORED or not self.vocabulary.is_thing[called]
                prompts[unit] = candidates[taste[candidates].argmax()] if one_name else rng.choice(candidates)
        return prompts, is_right

    def _call(self, rng, raw: int) -> int:
        """The class that a unit of this raw class is called, 255 for background."""
        true_class = int(self.vocabulary.raw_to_class[raw])
        luck, mistake = rng.random(2)
        if true_class == IGNORED:
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
