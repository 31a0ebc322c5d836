"""A street with labels."""

from pathlib import Path

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, label_points
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


def label_street(street: Path, folder: Path, cameras: list[str] | None = None) -> Path:
    """Write the labels of the synthetic teacher for a street, and its point labels, into a folder; return that."""
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(street))
    frames = load_frames("nuscenes", "all", data_dir=street)
    label_set = LabelSet.create(folder, teacher, vocabulary, settings={"cameras": cameras})
    label_set.write(frames, teacher, cameras)
    label_points(label_set, frames)
    return folder
