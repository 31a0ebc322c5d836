"""A label set on the Hub: the same rows come back, tables for others, and nothing of the machine it was made on."""

import io
import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_car
from datasets import load_dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import RepositoryNotFoundError

from uov_hf.data import load_frames
from uov_hf.evaluation import label_card
from uov_hf.labels import LabelSet, PointLabels, label_points, push_label_set
from uov_hf.teachers import find_teacher, load_teacher
from uov_hf.vocabulary import load_vocabulary
from uov_hf_cli.__main__ import main


@pytest.fixture(scope="module")
def made(tiny_street, tmp_path_factory):
    """A label set of the tiny street with point labels, whose teacher and settings name folders of this machine."""
    folder = tmp_path_factory.mktemp("at_home") / "labels"
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    teacher.model_name_or_path = str(folder.with_name("weights") / "my-teacher")
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    others = ["models\\secret team\\masks", "models/secret team/masks"]  # of another machine
    settings = {"cameras": None, "files": [str(folder.with_name("masks")), *others]}
    label_set = LabelSet.create(folder, teacher, vocabulary, settings)
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    (folder / "notes.txt").write_text("at home")
    return label_set


def assert_same_rows(one, other):
    assert one.frame_ids == other.frame_ids and one.frame_ids
    for frame_id in one.frame_ids:
        rows = one.read(frame_id), other.read(frame_id)
        assert rows[0].keys() == rows[1].keys()
        for name in rows[0]:
            assert np.array_equal(rows[0][name], rows[1][name]), name


def test_a_label_set_and_its_point_labels_come_back_as_they_went(hub, made):
    push_label_set(made, "labels")
    pulled = LabelSet.from_hub("me/labels")
    assert_same_rows(made, pulled)
    assert_same_rows(PointLabels(made.folder), PointLabels(pulled.folder))
    assert np.array_equal(made.prompt_embeds, pulled.prompt_embeds)
    assert (made.teacher_id, made.prompts, made.class_names) == (pulled.teacher_id, pulled.prompts, pulled.class_names)


def test_a_label_set_without_embeddings_is_pushed_without_them(hub, tmp_path):
    """As the teacher `files` writes it; the rows have no column of embeddings."""
    maps = str(small_car.write_label_maps(tmp_path / "maps"))
    vocabulary = find_teacher("files").fit_vocabulary(load_vocabulary("semantic_kitti"), maps)
    teacher = load_teacher("files", maps, prompts=vocabulary.prompts)
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, {})
    small_car.write_car(tmp_path / "car")
    label_set.write(load_frames("point_cloud_folder", data_dir=tmp_path / "car"), teacher)
    push_label_set(label_set, "alone")
    pulled = LabelSet.from_hub("me/alone")
    assert pulled.embed_dim == 0 and pulled.class_names == label_set.class_names
    assert_same_rows(label_set, pulled)


def test_an_id_stands_where_a_folder_may_and_a_folder_comes_first(hub, made):
    push_label_set(made, "labels")
    assert LabelSet.open(made.folder).folder == made.folder
    assert LabelSet.open("me/labels").frame_ids == made.frame_ids
    with pytest.raises(FileNotFoundError, match="There is no label set in labels"):
        LabelSet.open("labels")
    with pytest.raises(FileNotFoundError, match="There is no folder out/labels, and it could not be read"):
        LabelSet.open("out/labels")


def test_others_read_it_as_tables(hub, made):
    push_label_set(made, "labels")
    images = load_dataset("me/labels", split="train")
    assert list(images["frame_id"]) == made.frame_ids
    assert np.array_equal(images[0]["segment_labels"], made.read(made.frame_ids[0])["segment_labels"])
    points = load_dataset("me/labels", "points_paper", split="train", streaming=True)
    row, expected = next(iter(points)), PointLabels(made.folder).read(made.frame_ids[0])
    assert row["frame_id"] == made.frame_ids[0] and np.array_equal(row["labels"], expected["labels"])


def test_neither_paths_nor_sensor_data_nor_other_files_go_with_it(hub, made, tiny_street):
    push_label_set(made, "labels")
    files = hub.files("me/labels", "datasets")
    kinds = {name.rsplit(".", 1)[-1] for name in files if name != ".gitattributes"}
    assert kinds == {"json", "parquet", "safetensors", "md"} and "notes.txt" not in files
    for secret in (str(made.folder.parent), str(tiny_street), "secret team"):
        assert not any(secret.encode() in content for content in files.values())
        assert not any(secret in str(pq.read_metadata(io.BytesIO(files[n])).metadata) for n in files if "images/" in n)
    description = json.loads(files["label_set.json"])
    assert description["teacher"]["model_name_or_path"] == "my-teacher"
    assert description["settings"]["files"] == ["masks"] * 3
    columns = set().union(*(pq.read_schema(io.BytesIO(files[n])).names for n in files if n.endswith("parquet")))
    assert not columns & {"points", "images", "image", "intensity"}


def test_its_card_is_the_label_card_where_there_is_one(hub, made, tmp_path):
    made = LabelSet(shutil.copytree(made.folder, tmp_path / "labels"))
    push_label_set(made, "labels")
    card = DatasetCard.load("me/labels")
    assert "# Pseudo-labels of my-teacher" in card.text and "{" not in card.text
    assert card.data.annotations_creators == ["machine-generated"] and card.data.class_names == made.class_names
    assert b"sensor data" in hub.files("me/labels", "datasets")["LICENSE.md"]
    assert [config["config_name"] for config in card.data.to_dict()["configs"]] == ["images", "points_paper"]
    (made.folder / "card" / "figures").mkdir(parents=True)
    (made.folder / "card" / "README.md").write_text("---\nlicense: other\npretty_name: Mine\n---\n\n# Point labels\n")
    (made.folder / "card" / "figures" / "classes.png").write_bytes(b"a picture")
    push_label_set(made, "labels", private=False, commit_message="With its card")
    card = DatasetCard.load("me/labels", ignore_metadata_errors=False)
    assert card.data.pretty_name == "Mine" and "# Point labels" in card.text and "LabelSet.from_hub" in card.text
    assert hub.files("me/labels", "datasets")["figures/classes.png"] == b"a picture"
    assert hub.repos["datasets", "me/labels"].at("main").title == "With its card"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_label_card_of_an_id_is_written_to_a_folder_of_ones_own(hub, made, tiny_street, tmp_path, monkeypatch):
    def write_card(label_set, *arguments):
        data = ["--data_dir", tiny_street, "--split", "all", "--max_frames", 1]
        monkeypatch.setattr(sys, "argv", ["label_card", *map(str, [label_set, *data, *arguments])])
        label_card.main()

    push_label_set(made, "labels")
    with pytest.raises(ValueError, match="Give --dataset and --output_dir: me/labels is no folder of yours"):
        write_card("me/labels")
    cached = LabelSet.from_hub("me/labels").folder
    before = contents(hub.home / "hub")
    with pytest.raises(ValueError, match="Give --output_dir: .*Its cache must not be written to"):
        write_card(cached, "--dataset", "nuscenes")
    write_card("me/labels", "--dataset", "nuscenes", "--output_dir", tmp_path / "card")
    assert json.loads((tmp_path / "card" / "card.json").read_text())["num_frames"] == 4
    assert len([*(tmp_path / "card_gallery").glob("*.png")]) == 3
    assert contents(hub.home / "hub") == before


def test_the_command_line_pushes_to_a_private_branch(hub, made, without_token, capsys):
    assert main(["push", str(made.folder), "me/labels", "--private", "--revision", "v2"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.endpoint}/me/labels/commit/")
    assert list(hub.files("me/labels", "datasets")) == [".gitattributes"]
    assert LabelSet.from_hub("me/labels", revision="v2").frame_ids == made.frame_ids
    without_token()
    with pytest.raises(RepositoryNotFoundError, match="make sure you are authenticated"):
        LabelSet.from_hub("me/labels", revision="v2", local_dir=made.folder.with_name("elsewhere"))


def test_point_labels_of_another_label_set_are_not_pushed(hub, made, tmp_path):
    made = LabelSet(shutil.copytree(made.folder, tmp_path / "labels"))
    (path,) = made.folder.glob("points/*/point_labels.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"label_set_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="point_labels.json: these point labels were made from another label set"):
        push_label_set(made, "labels")
    assert not hub.repos


def test_a_label_set_without_shards_is_not_pushed(hub, made, tmp_path):
    for name in ("label_set.json", "prompt_embeds.safetensors"):
        (tmp_path / name).write_bytes((made.folder / name).read_bytes())
    with pytest.raises(ValueError, match="has no shards yet"):
        push_label_set(LabelSet(tmp_path), "labels")
    assert not hub.repos


def test_a_partial_label_set_is_pushed_only_on_demand(hub, made, tiny_street, tmp_path, capsys):
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    teacher = load_teacher("synthetic", prompts=made.prompts, data_dir=str(tiny_street))
    part = LabelSet.create(tmp_path / "part", teacher, load_vocabulary("nuscenes"), {})
    part.write(frames.select([0]), teacher)
    with pytest.raises(ValueError, match=r"part is partial: frames are missing \(1 in images\)"):
        push_label_set(part, "labels")
    assert not hub.repos
    assert main(["push", str(part.folder), "me/labels", "--allow_partial"]) == 0
    part.write(frames, teacher)
    label_points(part, frames.select([0]))
    with pytest.raises(ValueError, match=r"frames are missing \(3 in points/paper\)"):
        push_label_set(part, "labels")


@pytest.mark.parametrize("only", ["images", "points"])
def test_only_a_part_is_downloaded(hub, made, tmp_path, only):
    push_label_set(made, "labels")
    pulled = LabelSet.from_hub("me/labels", local_dir=tmp_path / "pulled", only=only)
    folders = {path.name for path in pulled.folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders == {only} and pulled.prompts == made.prompts
    if only == "points":
        assert_same_rows(PointLabels(made.folder), PointLabels(pulled.folder))
    else:
        assert_same_rows(made, pulled)


def test_a_mistyped_folder_is_named_where_the_hub_cannot_be_asked(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder out/labels, and it could not be read from the Hub"):
        LabelSet.open("out/labels")
    with pytest.raises(FileNotFoundError, match="There is no label set in labels"):
        LabelSet.open("labels/")
