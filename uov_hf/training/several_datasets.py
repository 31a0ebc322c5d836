"""Several datasets in one training: their samples one after another, and label sets that fit together."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Generic, Literal

import numpy as np
from accelerate.logging import get_logger
from torch.utils.data import Dataset

from uov_hf.data import Frames
from uov_hf.labels import LabelSet
from uov_hf.training.collation import BatchT
from uov_hf.training.order import FrameKey
from uov_hf.training.samples import Samples


logger = get_logger(__name__)

# Two computers may compute the embedding of a prompt with differences of this size.
TOLERANCE = 1e-3


class JoinedSamples(Dataset[BatchT], Generic[BatchT]):
    """The samples of all datasets of a training, one dataset after another. Its key is `(epoch, index)`.

    Each dataset reads its own labels, so that two of them may have frames of the same id. Its frames are augmented as
    if it were alone.

    Args:
        parts (`Iterable[Samples]`): The samples of each dataset.
    """

    def __init__(self, parts: Iterable[Samples[BatchT]]):
        self.parts = list(parts)
        self._ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, key: FrameKey) -> BatchT:
        epoch, index = key
        part, row = self._find(index)
        return part[epoch, row]

    @property
    def frames(self) -> list[Frames]:
        """The frames of each dataset."""
        return [part.frames for part in self.parts]

    def frame_id(self, index: int) -> str:
        """The id of a frame of all datasets."""
        part, row = self._find(index)
        return part.frames.frame_ids[row]

    def _find(self, index: int) -> tuple[Samples[BatchT], int]:
        """The samples of the dataset that has a frame, and its place in them."""
        place = bisect_right(self._ends, index)
        return self.parts[place], index - (self._ends[place] - len(self.parts[place]))


def warn_of_raw_intensities(samples: JoinedSamples[Any]) -> None:
    """Warn if datasets have intensities of different scales, and voxels have them as they are in the files."""
    if samples.parts[0].feature_extractor.intensity_scaling != "raw":
        return
    scales = [part.frames.select_columns(["intensity_max"])[0]["intensity_max"] for part in samples.parts]
    if len(set(scales)) > 1:
        logger.warning(
            "The intensities of the datasets have different scales, and voxels have them as they are in the files: "
            f"up to {', '.join(f'{scale:g}' for scale in scales)}. For one scale, train from the start with "
            "--intensity_scaling unit."
        )


def open_label_sets(
    folders_or_ids: Sequence[str], only: Literal["images", "points"] | None = None, same_space: bool = False
) -> list[LabelSet]:
    """The label sets of the datasets of a training, which must have the same classes.

    Args:
        folders_or_ids (`Sequence[str]`): One for each dataset.
        only (`str`, *optional*): As of [`LabelSet.open`].
        same_space (`bool`, *optional*, defaults to `False`):
            Whether they must also have the same prompts with the same embeddings, as pre-training needs.

    Raises:
        ValueError: A label set differs from the first one; the message names what differs.
        FileNotFoundError: As of `LabelSet.open`.
    """
    label_sets = [LabelSet.open(name, only=only) for name in folders_or_ids]
    first = label_sets[0]
    for name, other in zip(folders_or_ids[1:], label_sets[1:], strict=True):
        differing = [*_differing_classes(first, other), *(_differing_spaces(first, other) if same_space else [])]
        if differing:
            raise ValueError(
                f"{folders_or_ids[0]} and {name} do not fit into one training. They differ in {'; '.join(differing)}. "
                "Make both with the same --vocabulary, and for pre-training with teachers of the same text space."
            )
    return label_sets


def _differing_classes(first: LabelSet, other: LabelSet) -> list[str]:
    if first.class_names == other.class_names:
        return []
    return [f"their classes: {first.class_names}, {other.class_names}"]


def _differing_spaces(first: LabelSet, other: LabelSet) -> list[str]:
    """What differs of the prompts and of their embeddings, which define the text space."""
    if first.prompts != other.prompts:
        return [
            f"their prompts: {first.prompts[:5]} …, {other.prompts[:5]} … ({len(first.prompts)}, {len(other.prompts)})"
        ]
    names = ("prompt_groups", "prompt_to_class")
    differing = [name for name in names if not np.array_equal(getattr(first, name), getattr(other, name))]
    ours, theirs = first.prompt_embeds, other.prompt_embeds
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=TOLERANCE):
        differing.append(f"the text space of their teachers: {first.teacher_id}, {other.teacher_id}")
    return differing
