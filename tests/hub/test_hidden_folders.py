"""What is published has no folders of a machine: of a path, of whatever system, the last name remains."""

import pytest

from uov_hf.hub.upload import hide_folders, is_hub_id


DRIVE = "C:"


@pytest.mark.parametrize(
    "path",
    [
        "/data/me/models/clip",
        "~/models/clip",
        "./clip",
        "../secret/clip",
        "models/secret team/clip",
        "out/secret/clip",
        "secret team/clip",
        DRIVE + "\\Users\\me\\clip",
        DRIVE + "\\Users\\me\\clip\\",
        DRIVE + "/data/me/clip",
        DRIVE + "\\clip",
        "\\\\server\\share\\clip",
        "\\\\server\\clip",
        "models\\secret\\clip",
        "file:///data/me/clip",
    ],
)
def test_only_the_last_name_of_a_path_remains(path):
    assert hide_folders(path) == "clip" and not is_hub_id(path)
    assert hide_folders({"model": [path, {"embed": (path,)}]}) == {"model": ["clip", {"embed": ["clip"]}]}


def test_a_folder_that_exists_is_hidden_whatever_its_name(tmp_path, monkeypatch):
    (tmp_path / "me" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hide_folders(str(tmp_path / "me" / "clip")) == hide_folders("me/clip") == "clip"
    assert hide_folders("..") == tmp_path.parent.name and hide_folders("me") == "me"


@pytest.mark.parametrize(
    "value",
    [
        "openai/clip-vit-base-patch16",
        "gpt2",
        "photo",
        "refs/pr/3",
        "https://example.org/a/b",
        "train[:50%]+val",
        0.5,
        None,
    ],
)
def test_ids_on_the_hub_references_and_plain_values_stay(value):
    assert hide_folders(value) == value
