"""Scans in text files, as spreadsheets, CloudCompare and Windows save them."""

import numpy as np
import pytest

from uov_hf.point_files import read_points


POINTS = np.array([[1.5, -2, 0.25, 3], [4, 5.125, 6, 7], [-8, 9, 10, 11]], np.float32)


def rows(separator=" ", point="."):
    return "\n".join(separator.join(f"{value:.3f}" for value in row) for row in POINTS).replace(".", point)


TEXTS = {
    "spaces": rows(),
    "aligned": rows("   ").replace("\n", "\n  "),
    "tabs": rows("\t"),
    "commas": rows(","),
    "commas and spaces": rows(", "),
    "semicolons": rows(";"),
    "decimal commas": rows(";", ","),
    "decimal commas and spaces": rows(" ", ","),
    "decimal commas and tabs": "X\tY\tZ\tIntensity\n" + rows("\t", ","),
    "cloudcompare": "//X Y Z Scalar_field_Intensity\n".replace("Scalar_field_Intensity", "scalar_Intensity") + rows(),
    "comment and names": "# made by a program\n# x y z reflectivity\n" + rows(),
    "number of points": "3\n" + rows(),
    "excel": "sep=;\nx [m];y [m];z [m];Intensity\n" + rows(";", ","),
    "quotes": '"x","y","z","i"\n' + "\n".join(f'"{line}"'.replace(",", '","') for line in rows(",").split("\n")),
}


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".xyz", ".asc", ".pts"])
@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_any_program(tmp_path, kind, suffix):
    (tmp_path / f"scan{suffix}").write_text(TEXTS[kind] + "\n\n")
    np.testing.assert_array_equal(read_points(tmp_path / f"scan{suffix}"), POINTS)


@pytest.mark.parametrize("cell", ["", "N/A", "#N/A", "null", "nan", "-nan(ind)", "1.#QNAN"])
@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_cell_without_a_number_is_nan_in_the_first_row_too(tmp_path, cell, separator, row):
    lines, expected = rows(separator).split("\n"), POINTS.copy()
    lines[row], expected[row, 3] = f"{lines[row].rpartition(separator)[0]}{separator}{cell}", np.nan
    (tmp_path / "scan.csv").write_text("\n".join([separator.join(["x", "y", "z", "i"]), *lines]))
    np.testing.assert_array_equal(read_points(tmp_path / "scan.csv"), expected)


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("names", ["id,x,y,z,i", ""])
def test_a_first_cell_without_a_number_may_be_empty(tmp_path, separator, names):
    lines = [f"{number or ''},{line}" for number, line in enumerate(rows(",").split("\n"))]
    expected = POINTS if names else np.column_stack([[np.nan, 1, 2], POINTS[:, :3]])
    (tmp_path / "scan.txt").write_text("\n".join([names, *lines]).replace(",", separator))
    np.testing.assert_array_equal(read_points(tmp_path / "scan.txt"), expected)


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("names", ["x,y,z,intensity", "x,y,z,intensity,", ",x,y,z,intensity,", "", "# a comment"])
def test_outer_columns_that_are_always_empty_need_no_name(tmp_path, separator, names):
    first = "," * names.startswith(",")
    lines = "\n".join(f"{first}{line}," for line in rows(",").split("\n"))
    (tmp_path / "scan.txt").write_text(f"{names}\n{lines}\n".replace(",", separator))
    np.testing.assert_array_equal(read_points(tmp_path / "scan.txt"), POINTS)


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
@pytest.mark.parametrize("names", ["", "\tx,y,z,i", "x,y,z,i"])
def test_lines_may_be_indented_by_a_tab(tmp_path, separator, names):
    lines = rows(separator).replace("\n", "\n\t")
    (tmp_path / "scan.txt").write_text(f"{names.replace(',', separator)}\n\t{lines}\n\t\n")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.txt"), POINTS)


@pytest.mark.parametrize("comment", ["# a, b", "// a, b"])
def test_comments_may_be_after_a_point_and_in_the_last_line(tmp_path, comment):
    first, rest = rows(",").split("\n", 1)
    (tmp_path / "scan.csv").write_text(f"x,y,z,i\n{first} {comment}\n{rest} {comment}\n{comment}\n")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.csv"), POINTS)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_text_in_any_encoding_with_any_line_ends(tmp_path, encoding):
    text = "x;y;z;intensity;größe\n" + rows(";", ",").replace("\n", ";0\n") + ";0\n"
    (tmp_path / "scan.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    np.testing.assert_array_equal(read_points(tmp_path / "scan.csv"), POINTS)


def test_columns_go_by_their_names(tmp_path):
    table = "time,name,Z,Signal,X,Y\n" + "\n".join(
        f"0.5,a{i},{z},{s},{x},{y}" for i, (x, y, z, s) in enumerate(POINTS)
    )
    (tmp_path / "scan.csv").write_text(table)
    np.testing.assert_array_equal(read_points(tmp_path / "scan.csv"), POINTS)


def test_six_columns_without_names_are_colours_not_intensities(tmp_path):
    (tmp_path / "scan.xyz").write_text("\n".join(f"{line} 20 30" for line in rows().split("\n")))
    np.testing.assert_array_equal(read_points(tmp_path / "scan.xyz"), POINTS[:, :3])


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n", "expected lines of at least 3 numbers"),
        ("", "expected a file with points, got an empty file"),
        (rows() + "\n1 2 3 4 5", "expected 4 columns in every line, .*got '1 2 3 4 5'"),
        ("once upon a time\n", "expected lines of at least 3 numbers"),
        ("a b c d\n" + rows(), "expected the fields x, y and z, got a, b, c, d"),
        ("x y z\n" + rows(), "expected names for 4 columns above the first point, got 'x y z'"),
        (rows()[:-12], "expected 4 columns in every line, as in the first point"),
        (rows().replace("5.125", "five"), "cannot be read: ValueError: could not convert string 'five'"),
    ],
)
def test_text_that_is_no_scan_is_refused(tmp_path, text, message):
    (tmp_path / "scan.txt").write_text(text)
    with pytest.raises(ValueError, match=f"scan.txt: .*{message}"):
        read_points(tmp_path / "scan.txt")
