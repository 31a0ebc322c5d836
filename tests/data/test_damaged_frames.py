"""Frames as Parquet of which one bit has changed are refused by the name of the file, or read as they were written."""

import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from uov_hf.data.parquet import ParquetFrames
from uov_hf.data.parquet_files import read_metadata
from uov_hf.data.writing import write_parquet


def read_all(path: str) -> str:
    frames = ParquetFrames([path])
    np.set_printoptions(threshold=10**9)
    columns = ["points", "labels", "images", "lidar2cam", "image_ids"]
    rows = [frames.read(index, columns) for index in range(len(frames.frame_ids))]
    return repr((frames.frame_ids, frames.sequence_ids, rows))


def test_no_changed_bit_is_read_as_a_frame(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    path = min((tmp_path / "out").rglob("*.parquet"))
    content, truth, rng, num_refused = path.read_bytes(), read_all(str(path)), random.Random(0), 0
    with open(path, "rb") as file:
        footer = range(len(content) - 8 - read_metadata(file).serialized_size, len(content))
    for place in [*(rng.choice(footer) for _ in range(30)), *(rng.randrange(len(content)) for _ in range(30))]:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.unlink()
        path.write_bytes(changed)
        try:
            assert read_all(str(path)) == truth
        except ValueError as error:
            assert str(path) in str(error) and "again" in str(error)
            num_refused += 1
    assert num_refused > 30  # the other bits are of columns that are not read


def test_a_file_that_another_program_wrote_anew_is_refused_until_it_lacks_the_key_of_the_old_footer(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    path = min((tmp_path / "out").rglob("*.parquet"))
    truth, table, metadata = read_all(str(path)), pq.read_table(path), pq.read_metadata(path).metadata
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=1)
    with pytest.raises(ValueError, match=r"\.parquet: .* copied the key, .* remove the key .*`table.replace_schema_m"):
        read_all(str(path))
    del metadata[b"uov_hf_sha256"]
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=1)
    assert read_all(str(path)) == truth


def test_other_programs_read_the_files_and_verify_their_pages(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    path = min((tmp_path / "out").rglob("*.parquet"))
    assert pq.read_table(path, page_checksum_verification=True).num_rows == 3
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, page_checksum_verification=True)
