"""Frames are pushed with their card; sensor data that may not be published is not, and the error has the reason."""

import sys

import pytest
from tiny_frames import OwnCar, PublicCar, SecretCar

from uov_hf.data import publishing
from uov_hf.data.publishing import push_dataset
from uov_hf.data.writing import write_from_command_line, write_parquet


@pytest.fixture
def uploads(monkeypatch):
    """What would have been uploaded; tests/hub/test_push_frames.py uploads."""
    asked = []
    monkeypatch.setattr(publishing, "upload", lambda *arguments, **options: asked.append((arguments, options)))
    return asked


def run(monkeypatch, car, tmp_path, *arguments):
    car.record(tmp_path / "car")
    paths = ["--data_dir", str(tmp_path / "car"), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["own_car.py", *paths, *arguments])
    write_from_command_line(car, "Own car.")


@pytest.mark.parametrize(
    ("car", "reason", "way_out"),
    [
        (SecretCar, "sensor data of tiny_frames, which its licence does not allow: Its owner's.", "--private"),
        (OwnCar, "not stated that it may be published: Its owner's.", "may_be_published = True` in the class OwnCar"),
    ],
)
def test_sensor_data_is_not_pushed_in_public(uploads, tmp_path, monkeypatch, car, reason, way_out):
    with pytest.raises(PermissionError, match=reason) as error:
        run(monkeypatch, car, tmp_path, "--push_to_hub", "me/car")
    assert way_out in str(error.value) and "a label set, which contains no sensor data" in str(error.value)
    assert uploads == [] and not (tmp_path / "out").exists()  # before hours of writing


def test_nothing_but_the_shards_and_the_card_is_uploaded(uploads, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("at home")
    run(monkeypatch, OwnCar, tmp_path, "--push_to_hub", "me/car", "--private")
    (((repo_id, files), options),) = uploads
    assert repo_id == "me/car" and options["private"] and options["repo_type"] == "dataset"
    shards = {f"default/train/{path.name}" for path in (tmp_path / "out/default/train").iterdir()}
    assert set(files) == {"README.md", "LICENSE.md", *shards} and shards
    assert options["replaces"] == ["default/train/*.parquet"]  # what an earlier folder had


@pytest.mark.parametrize("content", ["", "---\npretty_name: own car\n"])
def test_a_card_that_lists_nothing_is_written_anew(tmp_path, content):
    car = OwnCar.record(tmp_path / "car")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text(content)
    with pytest.raises(ValueError, match="README.md: expected the card of write_parquet"):
        push_dataset(PublicCar.record(tmp_path / "car"), tmp_path / "out", "me/car", private=False)
    write_parquet(car, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "default/train/*.parquet" in card and "ask its owner" in card


def test_private_alone_is_answered_with_what_it_belongs_to(uploads, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, OwnCar, tmp_path, "--private")
    assert "--private belongs to --push_to_hub" in capsys.readouterr().err


def test_a_folder_has_frames_of_one_set_of_terms_only(tmp_path):
    secret = SecretCar.record(tmp_path / "secret")
    public = PublicCar.record(tmp_path / "public")
    public.licence = "Anybody's."
    write_parquet(secret, tmp_path / "out")
    with pytest.raises(ValueError, match=r"README.md: the folder holds frames under other terms .* \(Anybody's"):
        write_parquet(public, tmp_path / "out")


def test_a_shard_that_may_not_be_published_is_not_whoever_pushes_it(uploads, tmp_path):
    secret = SecretCar.record(tmp_path / "car")
    write_parquet(secret, tmp_path / "out")
    public = PublicCar(data_dir=str(tmp_path / "car"))
    with pytest.raises(PermissionError, match=r"\.parquet: holds sensor data that may not be published"):
        push_dataset(public, tmp_path / "out", "me/car")
    assert uploads == []
    push_dataset(public, tmp_path / "out", "me/car", private=True)
    assert len(uploads) == 1
