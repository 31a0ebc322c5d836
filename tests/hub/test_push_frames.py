"""Frames on the Hub: the same rows come back, downloaded or streamed, and through plain `datasets`."""

import io
import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_car
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi
from same_frames import assert_same_frame

from uov_hf.data import load_frames
from uov_hf.data.parquet import read_index
from uov_hf.data.publishing import push_dataset
from uov_hf.data.writing import write_from_command_line, write_parquet
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.datasets.point_cloud_folder import PointCloudFolder


class SecretScenes(NuScenes):
    """The street, as if it were of somebody who forbids to publish it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.licence, self.may_be_published = "Its owner's.", False


@pytest.fixture
def run(monkeypatch, tiny_street, tmp_path):
    """A dataset script as a program."""

    def run(*arguments, builder=NuScenes):
        paths = ["--data_dir", str(tiny_street), "--output_dir", str(tmp_path / "parquet")]
        monkeypatch.setattr(sys, "argv", ["nuscenes.py", *paths, *arguments])
        write_from_command_line(builder, "nuScenes.")

    return run


def assert_same_frames(found, expected):
    for frame, wanted in zip(found, expected, strict=True):
        assert_same_frame(frame, wanted)


def test_frames_come_back_bit_for_bit_by_id(hub, run, tiny_street):
    run("--push_to_hub", "me/street", "--split", "train", "test")
    for split in ("train", "test"):
        assert_same_frames(load_frames("me/street", split), load_frames("nuscenes", split, data_dir=tiny_street))
    whole = load_frames("me/street", "all")
    assert len(whole) == 4 and whole.taxonomy == "nuscenes"


def test_streamed_frames_are_the_same_and_nothing_is_downloaded_whole(hub, run, tiny_street):
    run("--push_to_hub", "me/street")
    expected = load_frames("nuscenes", "train", data_dir=tiny_street)
    hub.requests.clear()
    assert_same_frames(load_frames("me/street", "train", streaming=True), expected)
    assert not list(hub.home.rglob("*.parquet")) and any("/large/" in request for request in hub.requests)


@pytest.mark.parametrize("streaming", [False, True])
def test_plain_datasets_reads_them_too(hub, run, tiny_street, streaming):
    run("--push_to_hub", "me/street")
    expected = load_frames("nuscenes", "train", data_dir=tiny_street)
    rows = list(load_dataset("me/street", split="train", streaming=streaming).with_format("numpy"))
    assert [str(row["frame_id"]) for row in rows] == expected.frame_ids
    assert all(np.array_equal(row["points"], frame["points"]) for row, frame in zip(rows, expected, strict=True))


def test_what_is_written_anew_leaves_no_shard_of_before(hub, tiny_street, tmp_path):
    builder = NuScenes(data_dir=str(tiny_street))
    write_parquet(builder, tmp_path / "small", max_shard_bytes=1)  # a shard for every frame
    push_dataset(builder, tmp_path / "small", "me/street")
    before = set(hub.files("me/street", "datasets"))
    write_parquet(builder, tmp_path / "whole")
    push_dataset(builder, tmp_path / "whole", "me/street", commit_message="Larger shards")
    after = {name for name in hub.files("me/street", "datasets") if name.endswith(".parquet")}
    assert len(before) > len(after) == len(list((tmp_path / "whole").rglob("*.parquet")))
    assert_same_frames(load_frames("me/street", "train"), load_frames("nuscenes", "train", data_dir=tiny_street))


def test_the_card_has_the_hubs_metadata_and_no_path_of_this_machine(hub, run, tiny_street, tmp_path):
    run("--push_to_hub", "me/street")
    card = DatasetCard.load("me/street")
    assert "A synthetic street of uov-hf" in card.text and "redistributed" not in card.text
    assert card.data.pretty_name == "Synthetic street (nuScenes format)" and "\n# Synthetic street (nuS" in card.text
    assert (card.data.license_name, card.data.license_link) == ("nuscenes-terms", "LICENSE.md")
    assert (card.data.task_categories, card.data.size_categories) == (["image-segmentation"], ["n<1K"])
    assert card.data.class_names == load_frames("me/street", "train").class_names and "255 is ignored" in card.text
    for name, content in hub.files("me/street", "datasets").items():
        footer = str(pq.read_metadata(io.BytesIO(content)).metadata) if name.endswith("parquet") else ""
        for folder in (tiny_street, tmp_path):
            assert str(folder).encode() not in content and str(folder) not in footer


def test_a_frame_that_was_skipped_does_not_say_where_it_lay(hub, tiny_street, tmp_path):
    root = shutil.copytree(tiny_street, tmp_path / "street")
    (broken,) = sorted((root / "samples" / "LIDAR_TOP").iterdir())[:1]
    broken.write_bytes(b"half")
    builder = NuScenes(data_dir=f"{root}/")  # as a shell completes it
    assert len(write_parquet(builder, tmp_path / "parquet", on_error="skip").skipped) == 1
    push_dataset(builder, tmp_path / "parquet", "me/street", revision="v2")
    contents = hub.files("me/street", "datasets", revision="v2")
    footers = [
        json.dumps(read_index(io.BytesIO(content))) for name, content in contents.items() if name.endswith("parquet")
    ]
    assert any(f"samples/LIDAR_TOP/{broken.name}" in footer for footer in footers)
    assert not any(str(tmp_path) in footer for footer in footers)


def test_an_own_vocabulary_goes_with_the_frames_and_its_folder_does_not(hub, tmp_path):
    small_car.write_car(tmp_path / "car")
    small_car.write_calibration(tmp_path / "car", small_car.calibration() | {"taxonomy": "yard.yaml"})
    (tmp_path / "car" / "yard.yaml").write_text(
        "name: yard\nclasses:\n  - name: ground\n    prompts: [ground]\nraw_classes:\n"
        "  - {name: floor, id: 40, class: ground}\n"
    )
    builder = PointCloudFolder(data_dir=str(tmp_path / "car"))
    write_parquet(builder, tmp_path / "parquet")
    (tmp_path / "parquet" / "notes.yaml").write_text("at: home")
    push_dataset(builder, tmp_path / "parquet", "me/car", private=True)
    assert "notes.yaml" not in hub.files("me/car", "datasets")
    shutil.rmtree(tmp_path / "car")  # as on another machine
    assert not any(str(tmp_path).encode() in content for content in hub.files("me/car", "datasets").values())
    for dataset in (str(tmp_path / "parquet"), "me/car"):
        frames = load_frames(dataset, "all")
        assert frames.class_names == ["ground"] and (frames[0]["labels"] == 0).all()


@pytest.mark.parametrize("name", ["../yard.yaml", "{folder}/yard.yaml"])
def test_a_foreign_card_names_a_vocabulary_of_its_own_only(run, tmp_path, name):
    run()
    card, name = tmp_path / "parquet" / "README.md", name.format(folder=tmp_path)
    card.write_text(card.read_text().replace("taxonomy: nuscenes", f"taxonomy: {name}"))
    with pytest.raises(ValueError, match="README.md: expected the name of a file in .*yard.yaml"):
        load_frames(str(tmp_path / "parquet"), "train")


def test_what_may_not_be_published_goes_only_into_a_private_repository(hub, run):
    with pytest.raises(PermissionError, match="which its licence does not allow: Its owner's."):
        run("--push_to_hub", "me/street", builder=SecretScenes)
    assert not hub.repos
    HfApi().create_repo("me/open", repo_type="dataset")
    with pytest.raises(PermissionError, match="me/open exists and is public"):
        run("--push_to_hub", "me/open", "--private", builder=SecretScenes)
    assert list(hub.files("me/open", "datasets")) == [".gitattributes"]
    run("--push_to_hub", "me/street", "--private", builder=SecretScenes)
    assert hub.repos["datasets", "me/street"].private and len(load_frames("me/street", "train")) == 2
    assert next(iter(load_frames("me/street", "train", streaming=True)))["points"].shape[1] == 4
