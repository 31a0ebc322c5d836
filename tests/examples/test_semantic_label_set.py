"""A closed-set segmenter's labels from the images of a street to a model, through the command lines."""

from pathlib import Path

import pytest
from runs import losses
from tiny_segmenters import CITYSCAPES, save_tiny_segformer

from uov_hf import UOVForSemanticSegmentation, UOVProcessor
from uov_hf.labels import LabelSet, PointLabels


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tiny_street) -> list:
    return ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all"]


@pytest.fixture(scope="module")
def segformer(tmp_path_factory) -> Path:
    return Path(save_tiny_segformer(tmp_path_factory.mktemp("segformers") / "tiny-segformer"))


@pytest.fixture(scope="module")
def label_set(segformer, data, run_script, tmp_path_factory) -> LabelSet:
    folder = tmp_path_factory.mktemp("labels") / "labels"
    teacher = ["--teacher", "semantic", "--teacher_model_name_or_path", segformer]
    run_script("generate_label_set.py", *teacher, *data, "--output_dir", folder)
    run_script("label_points.py", "--label_set", folder, *data)
    return LabelSet(folder)


def test_the_label_set_has_the_models_labels_and_points_have_their_classes(label_set):
    assert label_set.prompts[: len(CITYSCAPES)] == CITYSCAPES and label_set.teacher_id == "tiny-segformer"
    names, seen = label_set.class_names, set()
    for frame_id in label_set.frame_ids:
        row, points = label_set.read(frame_id), PointLabels(label_set.folder).read(frame_id)["labels"]
        predicted = {int(label_set.prompt_to_class[label]) for label in row["segment_labels"]}
        assert set(points.tolist()) <= predicted | {255}
        seen |= {names[label] for label in points[points < 255]}
    assert seen and seen <= {"driveable_surface", "sidewalk", "manmade", "vegetation", "terrain", "pedestrian"} | {
        "car", "truck", "bus", "motorcycle", "bicycle",
    }  # fmt: skip


def test_a_model_trained_with_it_accepts_its_labels_and_refuses_other_words(label_set, data, run_script, tmp_path):
    short = ["--label_set", label_set.folder, *data, "--max_train_steps", 10, "--dataloader_num_workers", 0]
    short += ["--per_device_train_batch_size", 1, "--learning_rate", 0.02]
    run_script("pretrain.py", *short, "--preset", "tiny", "--min_pairs", 20, "--output_dir", tmp_path / "tmp")
    assert len(losses(tmp_path / "tmp")) == 10
    start = ["--model_name_or_path", tmp_path / "tmp", "--head", "text"]
    run_script("distill.py", *short, *start, "--output_dir", tmp_path / "uov")

    model = UOVForSemanticSegmentation.from_pretrained(tmp_path / "uov")
    processor = UOVProcessor.from_pretrained(tmp_path / "uov")
    assert model.uov.get_prompt_features(["traffic light"]).shape == (1, label_set.embed_dim)
    with pytest.raises(ValueError, match=r"'zebra'.* not among the 24 baked prompts .*its teacher \(tiny-segformer\)"):
        model.uov.get_prompt_features(["zebra"])
    with pytest.raises(ValueError, match="no text tower, only baked prompts"):
        processor(text="zebra")
