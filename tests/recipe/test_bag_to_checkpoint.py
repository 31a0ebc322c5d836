"""One command from a ROS bag to a checkpoint, and the command of its report, which segments the bag."""

import shlex
import sys

import numpy as np
import pytest


pytest.importorskip("rosbags")
import drives  # noqa: E402

from uov_hf.bags.point_cloud2 import fields_of  # noqa: E402
from uov_hf.bags.reading import Bag  # noqa: E402
from uov_hf_cli.__main__ import main  # noqa: E402


TEACHER = """
import numpy as np
from uov_hf.teachers import ImageSegments, Teacher


class Halves(Teacher):
    embed_dim = 8

    def encode_prompts(self, prompts):
        return np.eye(8, dtype=np.float32)[np.arange(len(prompts)) % 8]

    def segment(self, frame):
        return [self.segment_image(*size) for size in frame["image_sizes"]]

    def segment_image(self, height, width):
        segmentation = np.ones((height, width), np.int32)
        segmentation[height // 2 :] = 2
        labels = np.array([self.prompts.index("building"), self.prompts.index("road")])
        return ImageSegments(segmentation, labels, np.ones(2), np.eye(8)[:2])
"""


@pytest.mark.slow
def test_a_bag_becomes_a_checkpoint_that_segments_it(tmp_path, monkeypatch, capsys):
    bag = drives.write_bag(drives.make_drive(2), tmp_path, "mcap")
    (tmp_path / "teacher.py").write_text(TEACHER)
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "1")
    train = ["train", "--data_dir", "drive", "--teacher", "teacher.py:Halves", "--vocabulary", "cityscapes"]
    train += ["--trust_teacher_code", "--output_dir", "run", "--launcher", sys.executable]
    assert main([*train, "--set", "distill.max_train_steps=2"]) == 0
    assert main([*train, "--set", "distill.max_train_steps=2"]) == 0
    assert capsys.readouterr().out.count("done before") == 4
    assert main([*train, "--set", "distill.max_train_steps=3"]) == 1
    assert "max_train_steps = 2, now 3" in capsys.readouterr().err

    report = (tmp_path / "run" / "report.md").read_text()
    program, *segment = shlex.split(report.split("```bash\n")[1].split("\n```")[0])
    assert program == "uov-hf" and main([*segment, "--device", "cpu", "--output_dir", "segmented"]) == 0
    clouds = list(Bag(tmp_path / "segmented" / "drive_segmented").messages(["/lidar/points/segmented"]))
    scans = list(Bag(bag).messages(["/lidar/points"]))
    assert [moment.time for moment, _ in clouds] == [moment.time for moment, _ in scans]
    labels = np.concatenate([fields_of(cloud, "result")["label"] for _, cloud in clouds])
    assert (labels < 19).any() and set(labels[labels >= 19]) <= {255}  # Cityscapes has 19 classes
