"""Headers of PLY files that declare more than the file has."""

import pytest

from uov_hf.point_files import read_points


@pytest.mark.parametrize(
    "header",
    [
        "comment element vertex 3\nelement vertex {n}\n",
        "element vertex 1\nproperty float x\nelement face {n}\n",
        "element vertex 2_000_000\n",
        "element\x1cvertex {n}\n",
        "comment a\rend_header\nelement vertex {n}\n",
        f"{'comment padding' * 9}\n" * 600 + "element vertex {n}\n",
    ],
    ids=["comment", "face", "underscores", "separator", "line end", "long"],
)
def test_no_header_of_a_ply_file_hides_a_large_count(tmp_path, header):
    """Lists have a Python object for each element: a file of 200 bytes takes gigabytes and minutes."""
    pytest.importorskip("plyfile")
    text = f"ply\nformat ascii 1.0\n{header.format(n=2_000_000)}property list uchar int e\nend_header\n1 2 3\n"
    (tmp_path / "scan.ply").write_text(text, newline="")
    with pytest.raises(ValueError, match="scan.ply: expected (at most 10 points|a header of at most)"):
        read_points(tmp_path / "scan.ply", max_points=10)


@pytest.mark.parametrize("element", ["vertex", "face"])
def test_a_ply_file_declares_no_more_rows_than_it_has_bytes(tmp_path, element):
    """Also without a limit: lists take a Python object for each row that is declared."""
    pytest.importorskip("plyfile")
    text = f"ply\nformat ascii 1.0\nelement {element} 2000000000\nproperty list uchar int e\nend_header\n1 2 3\n"
    (tmp_path / "scan.ply").write_text(text, newline="")
    with pytest.raises(ValueError, match="scan.ply: expected 2,000,000,000 points"):
        read_points(tmp_path / "scan.ply")
