"""The experiments run, and what they rest on holds: the official rule gives our labels, the occlusion test helps."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet
from uov_hf.teachers import load_teacher
from uov_hf.vocabulary import load_vocabulary


def load(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_papers_preset_gives_the_labels_of_the_official_loop(tiny_street, tmp_path):
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    frames = load_frames("nuscenes", split="all", data_dir=tiny_street)
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    contestants = load("point_labels").prepare(tmp_path / "official", frames, label_set, vocabulary)
    answers = {name: label() for name, label in contestants.items()}
    official = answers["official"]
    assert (official != 255).any() and (official == 255).any()
    for name in ("plain loop", "ours, paper", "official from disk", "ours, paper, from disk"):
        np.testing.assert_array_equal(answers[name], official, err_msg=name)


def test_the_tiles_are_a_teacher_of_any_image():
    tiles = load("point_labels").Tiles(["car", "road"])
    (answer,) = tiles.segment({"image_sizes": [(90, 160)]})
    assert answer.segmentation.shape == (90, 160) and len(np.unique(answer.segmentation)) == len(answer.labels) == 80


def test_on_pandaset_the_occlusion_test_wins_at_equal_coverage(shared_data, monkeypatch, capsys):
    folder = shared_data / "pandaset" / "001"
    options = ["--data_dir", str(folder), "--cell_sizes", "16", "--num_halves", "2"]
    monkeypatch.setattr(sys, "argv", ["occlusion_pandaset.py", *options])
    load("occlusion_pandaset").main()
    rows = re.findall(r"\| with, .*\((.*) … ", capsys.readouterr().out)
    assert len(rows) == 4 and all(float(worst) > 0 for worst in rows)


@pytest.mark.slow
def test_on_the_street_most_of_what_is_hidden_is_found(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["occlusion_street.py", "--seeds", "100"])
    load("occlusion_street").main()
    cells = capsys.readouterr().out.splitlines()[-1].split("|")
    found, lost = (float(cells[column].strip(" %")) for column in (4, 6))
    assert found > 60 and lost < 3
