"""The calibration check reads a bag like any other dataset."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image


SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "rosbag.py"


def test_every_camera_of_a_bag_is_checked_and_drawn(mcap, tmp_path, monkeypatch, capsys):
    """Its cameras are right; three small images may contain too little evidence to call them so."""
    pytest.importorskip("cv2")
    monkeypatch.setattr(sys, "argv", ["rosbag.py", "--data_dir", str(mcap), "--check", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for camera in ("front", "left"):
        assert re.search(rf"^{camera}, 3 frames: (right|undecided); ", printed, re.MULTILINE), printed
        assert Image.open(tmp_path / f"{camera}.png").width > 64
