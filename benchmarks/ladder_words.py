"""Two words held out from everything that the ladder trains on: the teacher without them, and what they then give."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames
from uov_hf.labels import LabelSet
from uov_hf.teachers import load_teacher
from uov_hf.teachers.protocol import ImageSegments, Teacher
from uov_hf.vocabulary import Vocabulary, load_vocabulary


HELD_OUT = ("pedestrian", "vegetation")  # a thing and stuff, named before anything was trained
UNKNOWN = "undistinguishable object"  # a background prompt of the vocabulary


class WithoutWords(Teacher):
    """A teacher that lacks words: a segment that it would name by one of them is an undistinguishable object to it.

    Its masks and embeddings are what they were, as those of a model of images are whose list of words is short.

    Args:
        teacher (`Teacher`): With all the words.
        prompts (`list[str]`): Those that are left.
    """

    name: ClassVar[str] = "synthetic"

    def __init__(self, teacher: Teacher, prompts: list[str]):
        super().__init__(prompts, data_dir=teacher.data_dir)
        self.teacher = teacher
        unknown = prompts.index(UNKNOWN)
        self._new_labels = np.array([prompts.index(p) if p in prompts else unknown for p in teacher.prompts])

    @property
    def embed_dim(self) -> int:
        return self.teacher.embed_dim

    @property
    def settings(self) -> dict[str, Any]:
        return self.teacher.settings | {"held_out": list(HELD_OUT)}

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self.teacher.encode_prompts(prompts)

    def segment(self, frame: dict[str, Any]) -> list[ImageSegments]:
        return [replace(said, labels=self._new_labels[said.labels]) for said in self.teacher.segment(frame)]


def without_classes(vocabulary: Vocabulary, names: tuple[str, ...]) -> Vocabulary:
    """The vocabulary without some classes and all words for them; the others are numbered anew."""
    kept = [index for index, name in enumerate(vocabulary.class_names) if name not in names]
    new_ids = np.full(IGNORED + 1, IGNORED)
    new_ids[kept] = np.arange(len(kept))
    is_word = np.isin(vocabulary.prompt_to_class, [*kept, IGNORED])
    return replace(
        vocabulary,
        name=f"{vocabulary.name}_without_{'_'.join(names)}",
        class_names=[vocabulary.class_names[index] for index in kept],
        colors=vocabulary.colors[kept],
        is_thing=vocabulary.is_thing[kept],
        raw_to_class=new_ids[vocabulary.raw_to_class].astype(np.uint8),
        prompts=[prompt for prompt, stays in zip(vocabulary.prompts, is_word, strict=True) if stays],
        prompt_groups=vocabulary.prompt_groups[is_word],
        prompt_to_raw=vocabulary.prompt_to_raw[is_word],
        prompt_to_class=new_ids[vocabulary.prompt_to_class[is_word]],
    )


def label_without_words(folder: Path, street: Path, frames: Frames, cameras: list[str]) -> None:
    """The label set of the synthetic teacher without the words of `HELD_OUT`; what is there already stays."""
    everything = load_vocabulary("nuscenes")
    vocabulary = without_classes(everything, HELD_OUT)
    teacher = load_teacher("synthetic", prompts=everything.prompts, data_dir=str(street))
    teacher = WithoutWords(teacher, vocabulary.prompts)
    LabelSet.create(folder, teacher, vocabulary, {"cameras": cameras}).write(frames, teacher, cameras)
