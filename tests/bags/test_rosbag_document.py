"""The settings in docs/how_to/rosbag.md are settings."""

import re
from pathlib import Path

from uov_hf.bags.settings import read_settings


PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "rosbag.md"


def test_the_settings_in_the_document_are_read(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "rosbag.yaml").write_text(text)
    settings = read_settings(tmp_path / "rosbag.yaml")
    assert settings.lidars == ["/front/points", "/rear/points"] and settings.odometry == "/odom"
    front = settings.cameras["front"]
    assert (front.topic, front.time_offset) == ("/cam_front/image_raw/compressed", -12000)
    assert front.optics.image_size == (1080, 1920) and front.lidar2cam[2, 0] == 1
