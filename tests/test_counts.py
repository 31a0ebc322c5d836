"""Every program refuses a count of nothing, with the name of the argument."""

import subprocess
import sys
from pathlib import Path

import pytest

from uov_hf.data.writing import write_from_command_line
from uov_hf.datasets.semantic_kitti import SemanticKitti
from uov_hf.evaluation import label_card
from uov_hf.synthetic.__main__ import main as render


REPOSITORY = Path(__file__).resolve().parents[1]
PROGRAMS = [
    (label_card.parse_args, ["labels", "--max_frames"]),
    (
        lambda: write_from_command_line(SemanticKitti, "A script."),
        ["--data_dir", "a", "--output_dir", "b", "--num_proc"],
    ),
    *((render, ["--output_dir", "street", name]) for name in ("--num_scenes", "--num_workers", "--azimuth_steps")),
]


@pytest.mark.parametrize("count", ["0", "-3", "half"])
@pytest.mark.parametrize(("program", "words"), PROGRAMS, ids=lambda one: one[-1] if isinstance(one, list) else "")
def test_a_program_refuses_a_count_below_1(monkeypatch, capsys, program, words, count):
    monkeypatch.setattr(sys, "argv", ["program", *words, count])
    with pytest.raises(SystemExit) as end:
        program()
    assert end.value.code == 2
    assert f"argument {words[-1]}: expected a whole number of at least 1, got '{count}'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("dataset_scripts/point_cloud_folder.py", ["--data_dir", "a", "--check", "b", "--num_frames"]),
        ("examples/demo.py", ["--train_scenes"]),
        ("examples/evaluate.py", ["--dataset", "a", "--split", "b", "--test_time_augmentation"]),
        ("examples/distill.py", ["--dataset", "a", "--label_set", "b", "--num_train_epochs"]),
    ],
)
def test_a_script_refuses_a_count_below_1(script, words):
    run = subprocess.run([sys.executable, REPOSITORY / script, *words, "0"], capture_output=True, text=True)
    assert run.returncode == 2
    assert f"{words[-1]}: expected a whole number of at least 1, got " in run.stderr
