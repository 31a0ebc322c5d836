"""A label set without embeddings: point labels, card and distillation work; what needs embeddings is refused."""

import sys

import pytest
import small_car

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.evaluation import label_card
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import find_teacher, load_teacher
from uov_hf.training.samples import DistillationSamples, TMPSamples
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return small_car.write_car(tmp_path_factory.mktemp("alone") / "car")


@pytest.fixture(scope="module")
def frames(drive):
    return load_frames("point_cloud_folder", data_dir=drive.parent)


@pytest.fixture(scope="module")
def label_set(drive, frames) -> LabelSet:
    maps = str(small_car.write_label_maps(drive.parents[1] / "maps"))
    vocabulary = find_teacher("files").fit_vocabulary(load_vocabulary("semantic_kitti"), maps)
    teacher = load_teacher("files", maps, prompts=vocabulary.prompts)
    label_set = LabelSet.create(drive.parents[1] / "labels", teacher, vocabulary, {})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    return label_set


def test_a_label_set_without_embeddings_has_segments_and_point_labels(label_set, frames):
    assert label_set.embed_dim == 0 and not (label_set.folder / "prompt_embeds.safetensors").exists()
    row = LabelSet(label_set.folder).read("drive/0")
    assert "segment_embeds" not in row and row["segment_labels"].tolist() == [0, 1, 0, 1]
    labels = PointLabels(label_set.folder).read("drive/0")["labels"]
    named = {label_set.class_names[label] for label in labels if label != 255}
    assert named == {"car", "road"}
    sample = DistillationSamples(frames, PointLabels(label_set.folder), UOVFeatureExtractor())[0, 0]
    assert sample["labels"].tolist() == labels.tolist()


def test_what_needs_embeddings_names_what_is_missing_and_the_ways_to_get_it(label_set, frames):
    ways = (
        r"labels has labels without embeddings.*'files' had none.*distill.py --preset.*"
        "embed_model_name_or_path=openai/clip-vit-base-patch16, or from label maps that have the probabilities"
    )
    with pytest.raises(ValueError, match=ways):
        _ = label_set.prompt_embeds
    with pytest.raises(ValueError, match=ways):
        TMPSamples(frames, label_set, PointLabels(label_set.folder), UOVFeatureExtractor())


def test_a_label_set_without_embeddings_is_not_continued_with_embeddings(label_set, drive, tmp_path):
    maps = str(small_car.write_label_maps(tmp_path / "maps", with_probs=True))
    vocabulary = find_teacher("files").fit_vocabulary(load_vocabulary("semantic_kitti"), maps)
    teacher = load_teacher("files", maps, prompts=vocabulary.prompts)
    with pytest.raises(ValueError, match="holds a label set of another teacher"):
        LabelSet.create(label_set.folder, teacher, vocabulary, {})


def test_its_label_card_and_gallery_are_written(label_set, drive, monkeypatch):
    data = ["--dataset", "point_cloud_folder", "--data_dir", str(drive.parent), "--max_frames", "1"]
    monkeypatch.setattr(sys, "argv", ["card", str(label_set.folder), *data])
    label_card.main()
    page = (label_set.folder / "card" / "README.md").read_text()
    assert "| embed_dim | 0 |" in page and "| layout | semantic |" in page
    assert list((label_set.folder.parent / "labels_gallery").rglob("*.png"))
