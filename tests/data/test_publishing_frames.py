"""What may be published goes to the Hub with its card; sensor data that may not is held back, with the reason."""

import sys
from types import SimpleNamespace

import datasets
import pytest
from tiny_frames import OwnCar, PublicCar, SecretCar

from uov_hf.data import publishing
from uov_hf.data.publishing import push_dataset
from uov_hf.data.writing import write_from_command_line, write_parquet


class StandInHub:
    """What `HfApi` would have been asked; repositories are a dict of name -> private."""

    def __init__(self, **repositories: bool):
        self.repositories = repositories
        self.uploads = []

    def __call__(self) -> "StandInHub":
        return self

    def create_repo(self, repo_id, repo_type, private, exist_ok):
        assert repo_type == "dataset" and exist_ok
        self.repositories.setdefault(repo_id, private)
        return SimpleNamespace(repo_id=repo_id)

    def repo_info(self, repo_id, repo_type):
        assert repo_type == "dataset"
        return SimpleNamespace(private=self.repositories[repo_id])

    def upload_folder(self, **upload):
        self.uploads.append(upload)
        return f"https://huggingface.co/datasets/{upload['repo_id']}"


@pytest.fixture
def hub(monkeypatch):
    hub = StandInHub(taken=False)
    monkeypatch.setattr(publishing, "HfApi", hub)
    return hub


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(monkeypatch, car, tmp_path, *arguments):
    car.record(tmp_path / "car", cache_dir=str(tmp_path / "cache"))
    paths = ["--data_dir", str(tmp_path / "car"), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["own_car.py", *paths, *arguments])
    write_from_command_line(car, "Own car.")


def test_sensor_data_is_not_pushed_in_public(hub, tmp_path, monkeypatch):
    with pytest.raises(PermissionError, match="sensor data of tiny_frames, which its licence does not allow") as error:
        run(monkeypatch, SecretCar, tmp_path, "--push_to_hub", "me/car")
    assert "Its owner's." in str(error.value) and "--private" in str(error.value)
    assert "a label set, which holds no sensor data" in str(error.value)
    assert hub.uploads == [] and hub.repositories == {"taken": False}
    assert not (tmp_path / "out").exists()  # it is said before hours of writing


def test_an_owner_who_has_not_said_is_told_how_to(hub, tmp_path, monkeypatch):
    with pytest.raises(PermissionError, match="nobody has said that it may be published: Its owner's.") as error:
        run(monkeypatch, OwnCar, tmp_path, "--push_to_hub", "me/car")
    assert "set `may_be_published = True` in the class OwnCar" in str(error.value)
    assert "licence does not allow" not in str(error.value) and hub.uploads == []


def test_a_private_repository_gets_the_shards_and_the_card_and_nothing_else(hub, tmp_path, monkeypatch):
    run(monkeypatch, OwnCar, tmp_path, "--push_to_hub", "me/car", "--private")
    assert hub.repositories["me/car"] is True
    assert hub.uploads == [
        {
            "repo_id": "me/car",
            "repo_type": "dataset",
            "folder_path": tmp_path / "out",
            "allow_patterns": ["README.md", "default/train/*.parquet"],
            "delete_patterns": ["default/train/*.parquet"],  # what an earlier folder had
        }
    ]


def test_a_repository_that_is_public_already_is_refused(hub, tmp_path):
    car = OwnCar.record(tmp_path / "car", cache_dir=str(tmp_path / "cache"))
    write_parquet(car, tmp_path / "out")
    with pytest.raises(PermissionError, match="taken is there already and is public"):
        push_dataset(car, tmp_path / "out", "taken", private=True)
    assert hub.uploads == []


def test_what_may_be_published_is(hub, tmp_path, monkeypatch):
    run(monkeypatch, PublicCar, tmp_path, "--push_to_hub", "me/car", "--split", "val")
    assert hub.repositories["me/car"] is False and len(hub.uploads) == 1
    card = (tmp_path / "out/README.md").read_text()
    assert "Its owner's." in card and "redistributed" not in card


@pytest.mark.parametrize("content", ["", "---\npretty_name: own car\n"])
def test_a_card_that_lists_nothing_is_written_anew(tmp_path, content):
    car = OwnCar.record(tmp_path / "car", cache_dir=str(tmp_path / "cache"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text(content)
    with pytest.raises(ValueError, match="README.md: expected the card that write_parquet writes"):
        push_dataset(PublicCar.record(tmp_path / "car"), tmp_path / "out", "me/car", private=False)
    write_parquet(car, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "default/train/*.parquet" in card and "ask its owner" in card


def test_a_card_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    car = OwnCar.record(tmp_path / "car", cache_dir=str(tmp_path / "cache"))
    write_parquet(car, tmp_path / "out")
    before = (tmp_path / "out/README.md").read_text()
    (tmp_path / "out/README.md.tmp").mkdir()  # in the way
    with pytest.raises(OSError, match=r"README.md: could not be written: .*run the same command again"):
        write_parquet(car, tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text() == before


def test_private_alone_is_answered_with_what_it_belongs_to(hub, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, OwnCar, tmp_path, "--private")
    assert "--private says what the repository of --push_to_hub is" in capsys.readouterr().err
