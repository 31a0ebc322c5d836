"""The Space refuses an upload by its header, before it allocates memory for the points."""

import runpy
import struct

import pytest
from space_server import SPACE


def test_a_small_upload_that_declares_many_points_is_refused(tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[space]'")
    laspy = pytest.importorskip("laspy")
    cloud = laspy.create()
    cloud.x = cloud.y = cloud.z = [0.0]
    cloud.write(tmp_path / "scan.laz")
    content = bytearray((tmp_path / "scan.laz").read_bytes())
    struct.pack_into("<I", content, 107, 400_000_000)
    (tmp_path / "scan.laz").write_bytes(content)
    app = runpy.run_path(str(SPACE / "app.py"))
    with pytest.raises(ValueError, match="scan.laz: expected at most 1,000,000 points, got 400,000,000"):
        app["segment"](None, tmp_path / "scan.laz", "", None, 0.0, False)
