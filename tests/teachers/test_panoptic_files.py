"""Panoptic PNGs with JSON, COCO's and Cityscapes' among them: labels by category, embeddings by a second model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from broken_images import png_with_a_hole
from PIL import Image
from tiny_models import frame_of

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import load_teacher
from uov_hf.teachers.file_contents import number_from_one, read_ids
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture
def picture(tmp_path) -> dict:
    """A frame with one picture: its left half red, its right half blue."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24, 0] = pixels[:, 24:, 2] = 255
    image = Image.fromarray(pixels)
    image.save(path := tmp_path / "aachen_000000_000019_leftImg8bit.png")
    images = [{"bytes": None, "path": str(path)}]
    return frame_of(image) | {"image_ids": ["token"], "images": images, "image_sizes": np.array([[32, 48]])}


def halves(left: int, right: int) -> np.ndarray:
    ids = np.zeros((32, 48), np.int64)
    ids[:, :20], ids[:, 28:] = left, right
    return ids


def write_rgb(path, ids: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)).save(path)


CATEGORIES = [{"id": 26, "name": "car", "isthing": 1}, {"id": 21, "name": "vegetation"}, {"id": 7, "name": "road"}]


def write_panoptic(folder, name="token"):
    write_rgb(folder / f"{name}.png", halves(26001, 70021))
    info = [{"id": 70021, "category_id": 21, "score": 0.25}, {"id": 26001, "category_id": 26, "score": 0.75}]
    info += [{"id": 5, "category_id": 7}]  # it has no pixel
    (folder / f"{name}.json").write_text(json.dumps({"segments_info": info}))
    (folder / "categories.json").write_text(json.dumps(CATEGORIES))
    return folder


def write_coco(folder):
    """What the panoptic script of Cityscapes writes: COCO's format, with file names of its own."""
    stem = "aachen_000000_000019"
    write_rgb(folder / "cityscapes_panoptic_val" / f"{stem}_gtFine_panoptic.png", halves(26001, 21))
    info = [{"id": 21, "category_id": 21, "area": 640, "iscrowd": 0}, {"id": 26001, "category_id": 26, "area": 640}]
    annotation = {"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": info}
    image = {"id": stem, "width": 48, "height": 32, "file_name": f"{stem}_gtFine_leftImg8bit.png"}
    unused = {"id": 99, "name": "a word that no vocabulary has"}
    content = {"images": [image], "annotations": [annotation], "categories": [*CATEGORIES, unused]}
    (folder / "cityscapes_panoptic_val.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def read_halves(folder, picture, tiny_clip, **settings):
    prompts = load_vocabulary("cityscapes").prompts
    arguments = {"embed_model_name_or_path": tiny_clip, "embed_short_side": 64, **settings}
    teacher = load_teacher("files", str(folder), prompts=prompts, **arguments)
    [segments] = teacher.segment(picture)
    return teacher, segments


@pytest.mark.parametrize(("write", "scores"), [(write_panoptic, [0.25, 0.75]), (write_coco, [1, 1])])
def test_labels_come_from_categories_and_embeddings_from_the_second_model(write, scores, folder, picture, tiny_clip):
    prompts = load_vocabulary("cityscapes").prompts
    teacher, segments = read_halves(write(folder), picture, tiny_clip)
    assert [prompts[label] for label in segments.labels] == ["vegetation", "car"]
    np.testing.assert_array_equal(segments.segmentation, halves(2, 1))
    assert segments.scores.tolist() == scores
    assert segments.embeds.shape == (2, teacher.embed_dim) and teacher.settings["layout"] in ("panoptic", "coco")
    assert teacher.settings["embed_model_name_or_path"] == tiny_clip

    # The label does not change the embedding: only the pixels do.
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace('"car"', '"bus"'))
    _, renamed = read_halves(folder, picture, tiny_clip)
    assert prompts[renamed.labels[1]] == "bus"
    np.testing.assert_array_equal(renamed.embeds, segments.embeds)
    assert not np.allclose(segments.embeds[0], segments.embeds[1], atol=1e-3)


def test_an_image_may_be_without_segments(folder, picture, tiny_clip):
    write_rgb(write_panoptic(folder) / "token.png", halves(0, 0))
    _, segments = read_halves(folder, picture, tiny_clip)
    assert len(segments.labels) == len(segments.embeds) == 0 and not segments.segmentation.any()


def test_an_image_is_found_by_its_id_or_by_the_name_of_its_file(folder, picture, tiny_clip):
    write_panoptic(folder, name="aachen_000000_000019_leftImg8bit")
    assert len(read_halves(folder, picture, tiny_clip)[1].labels) == 2
    with pytest.raises(FileNotFoundError, match="expected other.png or aachen_000000_000019_leftImg8bit.png"):
        (folder / "aachen_000000_000019_leftImg8bit.png").unlink()
        read_halves(folder, picture | {"image_ids": ["other"]}, tiny_clip)


def numbered(picture, image_id):
    """The frame of a dataset whose pictures are numbered, sequence by sequence."""
    path = Path(picture["images"][0]["path"]).with_name("000000.png")
    shutil.copy(picture["images"][0]["path"], path)
    return picture | {"image_ids": [image_id], "images": [{"bytes": None, "path": str(path)}]}


def test_a_number_in_a_flat_folder_is_not_taken_for_the_image_of_every_sequence(folder, picture, tiny_clip):
    write_panoptic(folder, name="000000")
    with pytest.raises(FileNotFoundError, match="expected 08/000000.png"):
        read_halves(folder, numbered(picture, "08/000000"), tiny_clip)
    write_panoptic(folder, name="08/000000")
    assert len(read_halves(folder, numbered(picture, "08/000000"), tiny_clip)[1].labels) == 2


@pytest.mark.parametrize("absolute", [False, True])
def test_a_set_of_coco_names_pngs_of_its_own_folder_only(folder, picture, tiny_clip, absolute):
    path, png = write_coco(folder) / "cityscapes_panoptic_val.json", folder.parent / "outside.png"
    (folder / "cityscapes_panoptic_val" / "aachen_000000_000019_gtFine_panoptic.png").rename(png)
    name = str(png) if absolute else "../../outside.png"
    path.write_text(path.read_text().replace("aachen_000000_000019_gtFine_panoptic.png", name))
    with pytest.raises(ValueError, match="panoptic_val.json: expected the name of a file in .*outside.png"):
        read_halves(folder, picture, tiny_clip)


def test_an_image_id_leads_to_no_file_outside_the_folder(folder, picture, tiny_clip):
    write_panoptic(folder)
    for name in ("token.png", "token.json"):
        (folder / name).rename(folder.parent / name)
    with pytest.raises(ValueError, match="The image id ../token: expected the name of a file in "):
        read_halves(folder, picture | {"image_ids": ["../token"]}, tiny_clip)


def test_one_file_is_not_of_two_images(folder, picture, tiny_clip):
    teacher, _ = read_halves(write_panoptic(folder, name="aachen_000000_000019_leftImg8bit"), picture, tiny_clip)
    with pytest.raises(ValueError, match="leftImg8bit.png fits two images, token and a/aachen"):
        teacher.segment(picture | {"image_ids": ["a/aachen_000000_000019_leftImg8bit"]})


def test_ids_may_be_grey_values_of_16_bits(folder, picture, tiny_clip):
    Image.fromarray(halves(300, 9).astype(np.uint16)).save(write_panoptic(folder) / "token.png")
    info = [{"id": 300, "category_id": 26}, {"id": 9, "category_id": 21}]
    (folder / "token.json").write_text(json.dumps(info))
    np.testing.assert_array_equal(read_halves(folder, picture, tiny_clip)[1].segmentation, halves(1, 2))


@pytest.mark.parametrize("write", [write_panoptic, write_coco])
def test_a_category_that_is_no_prompt_is_refused_with_the_prompts(write, folder, picture, tiny_clip):
    write(folder)
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace('"car"', '"auto"'))
    with pytest.raises(ValueError, match=r"json: 1 of \d categories are no prompts .*\['auto'\].*'cars', 'truck'"):
        read_halves(folder, picture, tiny_clip)


def test_a_folder_without_embeddings_gives_labels_alone(folder, picture):
    teacher = load_teacher("files", str(write_panoptic(folder)), prompts=load_vocabulary("cityscapes").prompts)
    [segments] = teacher.segment(picture)
    np.testing.assert_array_equal(segments.segmentation, halves(2, 1))
    assert teacher.embed_dim == 0 and segments.embeds.shape == (2, 0)
    with pytest.raises(ValueError, match=r"layout panoptic\) has no embeddings.*`embed_model_name_or_path`"):
        teacher.encode_prompts(["car"])


def test_an_image_that_occurs_twice_is_refused(folder, picture, tiny_clip):
    write_coco(folder)
    (folder / "again.json").write_text((folder / "cityscapes_panoptic_val.json").read_text())
    (folder / "again").mkdir()
    with pytest.raises(ValueError, match="cityscapes_panoptic_val.json: image aachen_000000_000019.* occurs twice"):
        read_halves(folder, picture, tiny_clip)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"image_id"',
            '"image"',
            "cityscapes_panoptic_val.json is not of COCO's panoptic format: KeyError: 'image_id'",
        ),
        (
            '"annotations"',
            '"labels"',
            "cityscapes_panoptic_val.json is not of COCO's panoptic format: .*'annotations'",
        ),
        ('"id": 26001', '"id": 16777216', "whole numbers `id`, 1 to 16777215"),
        ('"id": 26001', '"id": 26002', r"gtFine_panoptic.png holds ids \[26001\], which its JSON does not describe"),
        ('"area"', '"score"', "`score` of segment 21 must be 0 to 1, got 640"),
    ],
)
def test_a_damaged_set_is_named(folder, picture, tiny_clip, old, new, message):
    path = write_coco(folder) / "cityscapes_panoptic_val.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_halves(folder, picture, tiny_clip)


@pytest.mark.parametrize("write", [write_panoptic, write_coco])
def test_a_png_of_another_size_is_named_before_it_is_decoded(folder, picture, tiny_clip, write):
    [png] = write(folder).rglob("*.png")
    png.write_bytes(png_with_a_hole())
    with pytest.raises(ValueError, match=rf"{png.name} is \(300, 300\) .*, but its image is \(32, 48\)"):
        read_halves(folder, picture, tiny_clip)


def test_panoptic_files_of_real_images_become_point_labels(folder, shared_data, tiny_clip):
    """Upper half vegetation, lower half road: most of the labelled points near the ground are road."""
    frames = load_frames("nuscenes", "all", data_dir=shared_data / "nuscenes")
    frame, vocabulary = frames[0], load_vocabulary("cityscapes")
    for image_id, (height, width) in zip(frame["image_ids"], frame["image_sizes"], strict=True):
        write_rgb(
            folder / f"{image_id}.png", np.repeat(np.arange(height) // (height // 2) + 1, width).reshape(-1, width)
        )
        info = [{"id": 1, "category_id": 21}, {"id": 2, "category_id": 7}]
        (folder / f"{image_id}.json").write_text(json.dumps(info))
    (folder / "categories.json").write_text(json.dumps(CATEGORIES))
    source = {"embed_model_name_or_path": tiny_clip, "embed_short_side": 64, "templates": "none"}
    teacher = load_teacher("files", str(folder), prompts=vocabulary.prompts, **source)
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, {})
    label_set.write(frames, teacher)
    label_points(label_set, frames)

    labels = PointLabels(label_set.folder).read(frames.frame_ids[0])["labels"]
    low = labels[(frame["points"][:, 2] < -1) & (labels != 255)]
    assert len(low) > 5000 and (low == vocabulary.class_names.index("road")).mean() > 0.9
    assert set(np.unique(labels)) == {vocabulary.class_names.index(name) for name in ("road", "vegetation")} | {255}


@pytest.mark.parametrize("pixels", [np.full((4, 4), 255, np.uint8), np.full((4, 4), 2**31 - 1, np.int32)])
def test_a_pixel_of_no_segment_is_refused_whatever_its_id(tmp_path, pixels):
    """A grey value of 8 bits must not overflow, and a large one not take memory for all ids below it."""
    Image.fromarray(pixels).save(tmp_path / "a.png", "TIFF")
    ids = np.array([1])
    with pytest.raises(ValueError, match=r"a.png holds ids \[\d+\], which its JSON does not describe"):
        number_from_one(read_ids(tmp_path / "a.png", ids, (4, 4)), ids, tmp_path / "a.png")
