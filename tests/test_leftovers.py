"""Which files in a folder are data."""

import pytest

from uov_hf.leftovers import data_files


LEFTOVERS = ["._0.bin", ".0.bin.swp", ".DS_Store", "~$0.csv", "#0.csv#", "0.tmp.npy", "0.part.bin", "__MACOSX"]


@pytest.mark.parametrize("name", LEFTOVERS)
def test_leftovers_of_other_programs_are_no_data(tmp_path, name):
    for one in ("0.bin", "0 (1).bin", "0.pcd.bin", "1700.01.bin", name):
        (tmp_path / one).touch()
    assert [path.name for path in data_files(tmp_path, "*")] == ["0 (1).bin", "0.bin", "0.pcd.bin", "1700.01.bin"]
