"""What may be published goes to the Hub with its card; sensor data that may not is held back, with the reason."""

import sys
from types import SimpleNamespace

import datasets
import pytest
from tiny_frames import OwnCar, PublicCar

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
        run(monkeypatch, OwnCar, tmp_path, "--push_to_hub", "me/car")
    assert "Its owner's." in str(error.value) and "--private" in str(error.value)
    assert "a label set, which holds no sensor data" in str(error.value)
    assert hub.uploads == [] and hub.repositories == {"taken": False}
    assert not (tmp_path / "out").exists()  # it is said before hours of writing


def test_a_private_repository_gets_the_shards_and_the_card_and_nothing_else(hub, tmp_path, monkeypatch):
    run(monkeypatch, OwnCar, tmp_path, "--push_to_hub", "me/car", "--private")
    assert hub.repositories["me/car"] is True
    assert hub.uploads == [
        {
            "repo_id": "me/car",
            "repo_type": "dataset",
            "folder_path": tmp_path / "out",
            "allow_patterns": ["README.md", "default/train/*.parquet"],
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
    assert "Its owner's." in card and "may **not** be redistributed" not in card


def test_private_alone_is_answered_with_what_it_belongs_to(hub, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, OwnCar, tmp_path, "--private")
    assert "--private says what the repository of --push_to_hub is" in capsys.readouterr().err
