"""The label card through its command line: on the tiny street, and on the real keyframe where it lies beside us."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from halves_teacher import HalvesTeacher
from huggingface_hub import DatasetCard
from PIL import Image

from uov_hf.data import load_frames
from uov_hf.evaluation.label_card import as_cell, main, spread
from uov_hf.evaluation.label_figures import draw_class_histogram, draw_confusion, taxonomy_colors
from uov_hf.labels import PRESETS, LabelSet, PointLabels, label_points
from uov_hf.teachers import ImageSegments, load_teacher
from uov_hf.vocabulary import load_vocabulary


VOCABULARY = load_vocabulary("nuscenes")


@pytest.fixture(scope="module")
def street_labels(tiny_street, tmp_path_factory):
    """A label set of the synthetic teacher for the four frames of the street, without point labels."""
    teacher = load_teacher("synthetic", prompts=VOCABULARY.prompts, data_dir=str(tiny_street))
    settings = {"cameras": None, "augmentations": ["flip"]}
    label_set = LabelSet.create(tmp_path_factory.mktemp("card") / "labels", teacher, VOCABULARY, settings)
    label_set.write(load_frames("nuscenes", "all", data_dir=tiny_street), teacher)
    return label_set.folder


@pytest.fixture(scope="module")
def street_card(tiny_street, street_labels):
    """The folder of the card, written by one plain call."""
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--max_frames", "1"]
    command = [sys.executable, "-m", "uov_hf.evaluation.label_card", *map(str, [street_labels, *data])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "card/README.md" in done.stderr and "with sensor data, not to be published" in done.stderr
    return street_labels / "card"


@pytest.fixture
def run(monkeypatch):
    """`run(labels, "--preset", "paper")`: the program in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["card", *map(str, arguments)])
        main()

    return run


def test_the_card_has_the_numbers_of_the_labels(street_card, street_labels, tiny_street):
    card = json.loads((street_card / "card.json").read_text())
    point_labels = PointLabels(street_labels)  # the card has made them
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    seen = labelled = 0
    for frame in frames:
        row = point_labels.read(frame["frame_id"])
        is_seen = np.isin(np.arange(len(row["labels"])), row["pair_to_point"])
        is_counted = is_seen & (np.hypot(*frame["points"][:, :2].T) >= 2)
        seen, labelled = seen + is_counted.sum(), labelled + (is_counted & (row["labels"] != 255)).sum()
    assert card["coverage_of_seen"]["num_trials"] == seen
    assert card["coverage_of_seen"]["share"] == pytest.approx(labelled / seen)
    assert card["num_frames"] == 4 and card["num_missing"] == 0
    assert 0.3 < card["mean_iou"] < 0.9 and 0.5 < card["time_agreement"]["share"] < 0.95
    assert card["settings"]["augmentations"] == ["flip"]


def test_the_page_is_a_dataset_card_whose_figures_are_there(street_card):
    page = DatasetCard.load(street_card / "README.md")
    assert page.data.annotations_creators == ["machine-generated"] and "lidar" in page.data.tags
    figures = {line.split("(")[1].rstrip(")") for line in page.text.splitlines() if line.startswith("![")}
    assert figures == {f"figures/{name}.png" for name in ("classes", "by_range", "confusion", "abstention")}
    for figure in figures:
        assert np.asarray(Image.open(street_card / figure).convert("L")).std() > 5  # something is drawn
    card = json.loads((street_card / "card.json").read_text())
    rows = [line for line in page.text.splitlines() if line.startswith("|")]
    assert f"| agreement between cameras | {100 * card['camera_agreement']['share']:.1f} % |" in rows
    assert sum(line.startswith("| CAM_") for line in rows) == 6
    assert all(line.endswith("|") for line in rows)
    assert "{{" not in page.text and "None" not in page.text


def test_the_card_holds_no_sensor_data_and_no_path(street_card, street_labels, tiny_street):
    """What the label set's folder holds may be published: the gallery lies beside it."""
    assert {path.name for path in street_card.iterdir()} == {"README.md", "card.json", "figures"}
    text = (street_card / "README.md").read_text() + (street_card / "card.json").read_text()
    assert str(tiny_street) not in text and str(street_labels) not in text
    gallery = street_labels.with_name("labels_gallery")
    page = (gallery / "README.md").read_text()
    pictures = sorted(path.name for path in gallery.glob("*.png"))
    assert len(pictures) == 3 and all(f"({name})" in page for name in pictures)
    assert "Sensor data" in page
    assert np.asarray(Image.open(gallery / "1-camera-images.png").convert("L")).std() > 20


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *[(["--preset", preset], preset) for preset in PRESETS],
        (["--rules", "cameras,superpoints", "--min_confidence", 0.3], "cameras,superpoints, min_confidence 0.3"),
    ],
)
def test_every_rule_has_a_card_without_gallery_where_asked(rule, name, run, street_labels, tiny_street, tmp_path):
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "test", "--data_fraction", 1]
    labels = shutil.copytree(street_labels, tmp_path / "labels", ignore=shutil.ignore_patterns("card"))
    run(labels, *data, *rule, "--no_gallery", "--output_dir", tmp_path / "out")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["preset"] == name and card["num_frames"] == 2 and card["coverage_of_seen"]["share"] > 0.3
    assert not (tmp_path / "labels_gallery").exists() and not (labels / "card").exists()


def test_frames_without_labels_are_counted_and_other_frames_refused(run, tiny_street, tmp_path):
    teacher = load_teacher("synthetic", prompts=VOCABULARY.prompts, data_dir=str(tiny_street))
    label_set = LabelSet.create(tmp_path / "labels", teacher, VOCABULARY, {"cameras": ["CAM_FRONT"]})
    label_set.write(load_frames("nuscenes", "train", data_dir=tiny_street), teacher, ["CAM_FRONT"])
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--no_gallery"]
    run(label_set.folder, *data, "--split", "all")
    card = json.loads((label_set.folder / "card" / "card.json").read_text())
    assert (card["num_frames"], card["num_missing"]) == (2, 2)
    assert list(card["coverage_of_seen"]["by_camera"]) == ["CAM_FRONT"]
    assert card["camera_agreement"]["share"] is None
    assert "2 frames of the split have no labels" in (label_set.folder / "card" / "README.md").read_text()
    with pytest.raises(ValueError, match="none of its 2 frames is among the 2 of this split"):
        run(label_set.folder, *data, "--split", "test")


class BandsTeacher(HalvesTeacher):
    """The lower part of every image is road, above the horizon it is manmade, the top is nothing."""

    def segment(self, frame):
        labels = np.array([VOCABULARY.prompts.index(name) for name in ("road", "building")])
        answers = []
        for height, width in frame["image_sizes"]:
            segmentation = np.zeros((height, width), int)
            segmentation[height // 3 :], segmentation[height * 5 // 9 :] = 2, 1
            answers.append(ImageSegments(segmentation, labels, np.array([0.9, 0.6]), np.eye(4)[:2]))
        return answers


def test_the_card_of_a_real_keyframe(run, shared_data, tmp_path):
    root = shared_data / "nuscenes"
    teacher = BandsTeacher(VOCABULARY.prompts)
    label_set = LabelSet.create(tmp_path / "labels", teacher, VOCABULARY, {})
    frames = load_frames("nuscenes", "all", data_dir=root)
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    run(label_set.folder, "--dataset", "nuscenes", "--data_dir", root, "--split", "all")
    card = json.loads((label_set.folder / "card" / "card.json").read_text())
    assert card["time_agreement"]["share"] is None  # there is one scan only
    assert card["camera_agreement"]["num_trials"] > 500
    assert card["coverage_of_seen"]["by_range"]["2–10 m"] > 0.95  # near points lie in the lower part
    assert len(list((tmp_path / "labels_gallery").glob("*.png"))) == 3


def test_a_taxonomy_of_ones_own_has_colours_that_differ():
    assert len(np.unique(taxonomy_colors("my own", 7), axis=0)) == 7
    assert np.array_equal(taxonomy_colors("nuscenes", 16), VOCABULARY.colors)


def test_gallery_frames_are_spread_over_the_split():
    assert spread(10, 4) == [0, 2, 5, 7] and spread(2, 4) == [0, 1] and spread(3, 0) == []


def test_a_setting_fits_its_cell():
    assert [as_cell(value) for value in (None, [], "a|b", 0.5, ["x"])] == ["–", "–", "a\\|b", "0.5", '["x"]']


def test_a_dollar_in_a_class_name_is_no_formula(tmp_path):
    names = [r"a$\x$", "b"]
    histogram = draw_class_histogram([{"name": name, "num_points": 5} for name in names], np.zeros((2, 3)))
    for figure in (histogram, draw_confusion(np.ones((2, 3)), names)):
        figure.savefig(tmp_path / "figure.png")
        assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == names
