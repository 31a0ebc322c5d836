"""The commands of docs/how_to/own_car.md work, and no camera of the car in its example is called wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from uov_hf.own_car.calibration import read_calibration


REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "how_to" / "own_car.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python|yaml)\n(.*?)```", TEXT, re.DOTALL)


def test_the_calibration_in_the_document_is_one(tmp_path):
    pytest.importorskip("cv2")
    (tmp_path / "calibration.yaml").write_text(next(code for language, code in BLOCKS if language == "yaml"))
    calibration = read_calibration(tmp_path / "calibration.yaml")
    assert calibration.cameras["front"].time_offset == -12000 and calibration.cameras["front"].lens is not None


@pytest.mark.slow
def test_the_worked_example_runs_as_it_stands(tmp_path):
    (tmp_path / "dataset_scripts").symlink_to(REPOSITORY / "dataset_scripts")
    printed = ""
    for language, code in BLOCKS:
        command = {"bash": ["bash", "-ec", code], "python": [sys.executable, "-c", code]}.get(language)
        if command:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            environment = {**os.environ, "PATH": path}
            run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            printed += run.stdout
    for name in ("front", "left"):
        assert re.search(rf"^{name}, 10 frames: (right|undecided);", printed, re.MULTILINE), printed
        assert Image.open(tmp_path / "out" / "check" / f"{name}.png").width > 1000
    assert list((tmp_path / "out" / "my_car-parquet").rglob("*.parquet"))
