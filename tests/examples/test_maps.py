"""evaluate.py and finetune.py with a checkpoint whose classes are those of another taxonomy than the dataset's."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_car
import torch
import yaml
from runs import losses

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.hub.cards import write_default_card
from uov_hf.hub.checkpoint import save_checkpoint
from uov_hf.training.samples import AnnotatedSamples
from uov_hf.training.tracking import LOG_FILE
from uov_hf.vocabulary import load_map, load_vocabulary


CITYSCAPES = load_vocabulary("cityscapes").class_names
MAP = load_map("cityscapes_nuscenes")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """An untrained segmenter with the classes of Cityscapes."""
    torch.manual_seed(0)
    model = UOVForSemanticSegmentation.from_backbone(UOVModel(UOVConfig.from_preset("tiny")), "linear", CITYSCAPES)
    save_checkpoint(tmp_path / "checkpoint", model, UOVProcessor.from_teacher(UOVFeatureExtractor()))
    write_default_card(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def run(script, checkpoint, tiny_street, monkeypatch, tmp_path):
    """`run("evaluate.py", "--map", …)`: the script's `main` in this process, on the tiny street."""

    def run(name, *arguments):
        data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "test", "--dataloader_num_workers", 0]
        words = [name, "--model_name_or_path", checkpoint, *data, "--output_dir", tmp_path / "out", *arguments]
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        monkeypatch.setattr(sys, "argv", [*map(str, words)])
        script(name).main()
        return tmp_path / "out"

    return run


def test_an_evaluation_scores_and_records_the_common_classes(run, checkpoint, tiny_street):
    with pytest.raises(
        ValueError, match="Give --map cityscapes_nuscenes: it has the classes that both have in common"
    ):
        run("evaluate.py")
    results = json.loads((run("evaluate.py", "--map", "cityscapes_nuscenes") / "metrics.json").read_text())
    assert results["class_names"] == MAP.class_names and results["settings"] == {"map": "cityscapes_nuscenes"}
    assert (
        results["map"]["manmade"]["nuscenes"] == ["manmade"] and "sky" in results["map"]["(no partner)"]["cityscapes"]
    )
    to_common = MAP.to_common(load_vocabulary("nuscenes").class_names)
    frames = load_frames("nuscenes", "test", data_dir=tiny_street).select_columns(["labels"])
    assert results["all_points"]["num_points"] == sum(
        int((to_common[frame["labels"]] != 255).sum()) for frame in frames
    )
    card = (checkpoint / "README.md").read_text()
    assert (
        "`--map cityscapes_nuscenes`" in card and "Scored in the 10 common classes of cityscapes and nuscenes" in card
    )


def test_fine_tuning_keeps_the_classes_of_the_checkpoint_and_reports_the_points_that_it_ignores(
    run, caplog, tiny_street
):
    caplog.set_level("INFO")
    steps = ["--max_train_steps", 1, "--per_device_train_batch_size", 1, "--validation_split", "test"]
    out = run("finetune.py", "--map", "cityscapes_nuscenes", "--reuse_head", *steps)
    assert list(UOVForSemanticSegmentation.from_pretrained(out).config.id2label.values()) == CITYSCAPES
    card = (out / "README.md").read_text()
    assert "| map | cityscapes_nuscenes |" in card and "The classes are those of `cityscapes`: road, sidewalk" in card

    label_map = MAP.to_classes(load_vocabulary("nuscenes").class_names, CITYSCAPES)
    frames = load_frames("nuscenes", "test", data_dir=tiny_street).select_columns(["labels"])
    annotated = [frame["labels"][frame["labels"] != 255] for frame in frames]
    num_ignored = sum(int((label_map[labels] == 255).sum()) for labels in annotated)
    expected = f"--map ignores {num_ignored:,} of {sum(map(len, annotated)):,} points: "
    assert num_ignored and any(expected in record.getMessage() for record in caplog.records)
    assert (out / LOG_FILE).is_file() and len(losses(out)) == 1


def test_datasets_of_several_taxonomies_train_one_head(run, caplog, tiny_street, tmp_path):
    """Each dataset has a label map of its own; here all have a road and nothing else in common."""
    roads = {"cityscapes": "road", "nuscenes": "driveable_surface", "semantic_kitti": "road"}
    others = {
        name: [other for other in load_vocabulary(name).class_names if other != road] for name, road in roads.items()
    }
    path = tmp_path / "roads.yaml"
    classes = [{"name": "road", **{name: [road] for name, road in roads.items()}}, {"name": None, **others}]
    path.write_text(yaml.safe_dump({"taxonomies": list(roads), "classes": classes}))
    car = small_car.write_car(tmp_path / "car").parent  # 3 frames of 50 points, all of them road
    data = ["--dataset", "nuscenes", "point_cloud_folder", "--data_dir", tiny_street, car, "--split", "test", "all"]
    caplog.set_level("INFO")
    steps = ["--max_train_steps", 1, "--per_device_train_batch_size", 5, "--validation_split", "", "all"]
    out = run("finetune.py", "--map", path, *data, *steps)
    assert list(UOVForSemanticSegmentation.from_pretrained(out).config.id2label.values()) == CITYSCAPES
    road = load_vocabulary("nuscenes").class_names.index("driveable_surface")
    labels = [frame["labels"] for frame in load_frames("nuscenes", "test", data_dir=tiny_street)]
    annotated = sum(int((of_frame != 255).sum()) for of_frame in labels)
    num_road = sum(int((of_frame == road).sum()) for of_frame in labels)
    expected = f"--map ignores {annotated - num_road:,} of {annotated + 150:,} points: "
    assert any(expected in record.getMessage() for record in caplog.records)


def test_a_dataset_with_the_classes_of_the_checkpoint_needs_no_map(script):
    """A map is lossy where it has one class for several; labels of the same classes stay as they are."""
    names = script("finetune.py")
    kitti, nuscenes = (load_vocabulary(name).class_names for name in ("semantic_kitti", "nuscenes"))
    classes = names.TrainedClasses("nuscenes", nuscenes, load_map("nuscenes_semantic_kitti"))
    frames = SimpleNamespace(class_names=nuscenes, taxonomy="nuscenes")
    assert classes.find_label_map(frames) is None
    assert classes.find_label_map(SimpleNamespace(class_names=kitti, taxonomy="semantic_kitti")).shape == (256,)


def test_a_map_needs_the_classes_of_a_checkpoint(script, capsys):
    with pytest.raises(SystemExit):
        script("finetune.py").parse("--dataset", "nuscenes", "--map", "cityscapes_nuscenes", "--preset", "tiny")
    assert "--map keeps the classes of a checkpoint, and --preset uses none" in capsys.readouterr().err


def test_samples_have_the_labels_of_the_map(tiny_street):
    frames = load_frames("nuscenes", "test", data_dir=tiny_street)
    label_map = MAP.to_classes(load_vocabulary("nuscenes").class_names, CITYSCAPES)
    plain, mapped = (AnnotatedSamples(frames, UOVFeatureExtractor(), label_map=lookup) for lookup in (None, label_map))
    labels, found = plain[0, 0]["labels"], mapped[0, 0]["labels"]
    assert found.dtype == torch.int64 and torch.equal(found, torch.from_numpy(label_map).long()[labels])
    assert CITYSCAPES.index("road") in found and load_vocabulary("nuscenes").class_names.index("manmade") in labels
