"""Official UOV/AFOV folders read back to the segments they were written from, and damaged files are named."""

import json
import os

import numpy as np
import pytest
import torch
from halves_teacher import ListSource
from PIL import Image

from uov_hf.data import Frames
from uov_hf.labels import LabelSet
from uov_hf.labels.label_set import decode_segmentation
from uov_hf.teachers import ImageSegments, Teacher, load_teacher
from uov_hf.vocabulary import load_vocabulary


NUSCENES = load_vocabulary("nuscenes")
HEIGHT, WIDTH, EMBED_DIM = 24, 40, 8
CAMERA_NAMES = ["CAM_USUAL", "CAM_CROWDED", "CAM_OVERCROWDED", "CAM_EMPTY"]
CAR, TREE, LAST = 0, 166, 174  # rows of the nuScenes prompts


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cells(num_segments: int) -> np.ndarray:
    """Ids 1…num_segments, one after the other, row by row; what is left of the image is unlabelled."""
    ids = np.zeros(HEIGHT * WIDTH, np.int64)
    ids[:num_segments] = np.arange(1, num_segments + 1)
    return ids.reshape(HEIGHT, WIDTH)


class Drawn(Teacher):
    """Segments that follow from the image's name; more than 150 segments of an image break the official code."""

    name, embed_dim, settings = "drawn", EMBED_DIM, {}

    def encode_prompts(self, prompts):
        return unit(np.random.default_rng(0).normal(size=(len(prompts), EMBED_DIM)))

    def segment(self, frame):
        return [self.segment_image(image_id) for image_id in frame["image_ids"]]

    def segment_image(self, image_id: str) -> ImageSegments:
        rng = np.random.default_rng(list(image_id.encode()))
        usual = np.zeros((HEIGHT, WIDTH), np.int64)
        usual[4:, :20], usual[4:, 20:] = 1, 2
        usual[10:14, 5:9] = 3
        ids = {"usual": usual, "crowd": cells(200), "overc": cells(300), "empty": cells(0)}[image_id[:5]]
        labels = rng.integers(len(self.prompts), size=ids.max())
        labels = np.array([CAR, LAST, TREE]) if image_id[:5] == "usual" else labels
        embeds = unit(rng.normal(size=(ids.max(), EMBED_DIM)))
        return ImageSegments(ids, labels, np.ones(ids.max(), np.float32), embeds)


@pytest.fixture
def frames(tmp_path) -> Frames:
    """Two frames of four cameras; no image is opened to read the official layout."""
    rows = []
    for index in range(2):
        ids = [f"{name}-{index}" for name in ("usual", "crowded", "overcrowded", "empty")]
        images = [{"bytes": None, "path": str(tmp_path / f"{image_id}.jpg")} for image_id in ids]
        row = {"frame_id": f"f{index}", "sequence_id": "s", "timestamp": index, "camera_names": CAMERA_NAMES}
        rows.append(row | {"image_ids": ids, "images": images, "image_sizes": np.array([[HEIGHT, WIDTH]] * 4)})
    return Frames(ListSource(rows))


@pytest.fixture
def drawn() -> Drawn:
    return Drawn(NUSCENES.prompts)


def one_frame(frames: Frames) -> dict:
    return frames.select_columns(["frame_id", "camera_names", "image_ids", "images", "image_sizes"])[0]


def write_ids(path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path)


def write_official(folder, drawn: Drawn, frames: Frames, variant: str):
    """The files of superpixel_generation.py (docs/how_to/existing_labels.md); 16 bits where 8 are few."""
    folder.mkdir()
    text = torch.from_numpy(drawn.encode_prompts(drawn.prompts))
    if variant == "fc-clip":  # a last row for void, and features that are not of unit length
        text = torch.cat([text, torch.full((1, EMBED_DIM), 9.0)])
    torch.save(text, folder / "text_embedding.pt")
    for image_id in [image_id for frame in frames.select_columns(["image_ids"]) for image_id in frame["image_ids"]]:
        segments = drawn.segment_image(image_id)
        write_ids(folder / f"{image_id}.png", segments.segmentation)
        more = {"isthing": True} if variant == "fc-clip" else {"area": 1}
        info = [{"id": i, "category_id": int(label), **more} for i, label in enumerate(segments.labels, 1)]
        (folder / f"{image_id}.json").write_text(json.dumps(info))
        features = torch.cat([torch.zeros(1, EMBED_DIM), torch.from_numpy(segments.embeds)])
        double = [torch.full_like(features, 5.0), 3 * features]
        torch.save(double if variant == "fc-clip" else features, folder / f"{image_id}.pt")
    return folder


@pytest.mark.parametrize("variant", ["san", "cat-seg", "fc-clip"])
def test_an_official_folder_reads_back_to_the_same_label_set(tmp_path, drawn, frames, variant):
    direct = LabelSet.create(tmp_path / "direct", drawn, NUSCENES, {})
    direct.write(frames, drawn)
    folder = write_official(tmp_path / "official", drawn, frames, variant)
    teacher = load_teacher("files", str(folder), prompts=NUSCENES.prompts)
    read = LabelSet.create(tmp_path / "read", teacher, NUSCENES, {})
    read.write(frames, teacher)

    assert read.teacher["name"] == "files" and read.teacher["layout"] == "uov" and read.embed_dim == EMBED_DIM
    np.testing.assert_allclose(read.prompt_embeds, direct.prompt_embeds, atol=1e-6)
    assert read.frame_ids == direct.frame_ids == ["f0", "f1"]
    for frame_id in direct.frame_ids:
        ours, theirs = read.read(frame_id), direct.read(frame_id)
        for mine, its in zip(ours["segmentation"], theirs["segmentation"], strict=True):
            np.testing.assert_array_equal(decode_segmentation(mine), decode_segmentation(its))
        for column in ("segment_labels", "segment_camera", "segment_scores"):
            np.testing.assert_array_equal(ours[column], theirs[column])
        np.testing.assert_allclose(ours["segment_embeds"], theirs["segment_embeds"], atol=1e-3)  # float16
        assert len(ours["segment_labels"]) == 503 and ours["segment_labels"][1] == LAST
        assert (decode_segmentation(ours["segmentation"][0])[:4] == 0).all()


@pytest.fixture
def official(tmp_path, drawn, frames):
    return write_official(tmp_path / "official", drawn, frames, "san")


def damage_8_bits(folder):
    path = folder / "overcrowded-0.png"
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)


def damage_code(folder):
    class Command:
        def __reduce__(self):
            return os.system, ("echo never run",)

    torch.save(Command(), folder / "usual-0.pt")


def save_json(name: str, content):
    return lambda folder: (folder / name).write_text(json.dumps(content))


def save_tensor(name: str, tensor):
    return lambda folder: torch.save(tensor, folder / name)


OFFICIAL_DAMAGE = {
    "no png": (
        lambda folder: (folder / "usual-0.png").unlink(),
        r"has no segments of this image: expected usual-0.png",
    ),
    "no json": (lambda folder: (folder / "usual-0.json").unlink(), r"usual-0.json: expected a JSON file"),
    "half a json": (lambda folder: (folder / "usual-0.json").write_text("[{"), "usual-0.json is not JSON"),
    "no png at all": (lambda folder: (folder / "usual-0.png").write_text("?"), "usual-0.png is not a readable PNG"),
    "8 bits": (damage_8_bits, "overcrowded-0.png has 8 bits, but segments up to id 300 .* Write it with 16 bits"),
    "code": (damage_code, "usual-0.pt: expected a file of tensors"),
    "one feature": (save_tensor("usual-0.pt", torch.ones(8)), r"usual-0.pt: expected a tensor .* got shape \(8,\)"),
    "too few": (save_tensor("usual-0.pt", torch.ones(3, 8)), "usual-0.pt: expected 4 rows, one of zeros .* got 3"),
    "zeros": (save_tensor("usual-0.pt", torch.zeros(4, 8)), "usual-0.pt: rows of zeros"),
    "undescribed": (save_json("usual-0.json", []), r"usual-0.png holds ids \[1, 2, 3\], which its JSON does not"),
    "void": (save_json("usual-0.json", [{"id": 1, "category_id": 175}]), "usual-0.json: segment 1 has category 175"),
    "text": (
        save_json("usual-0.json", [{"id": "1", "category_id": 3}]),
        "usual-0.json: a segment must have whole num",
    ),
    "no list": (save_json("usual-0.json", {"segments": []}), "usual-0.json: expected a list of segments"),
    "twice": (save_json("usual-0.json", [{"id": 7, "category_id": 3}] * 2), r"id is described twice: \[7\]"),
}


@pytest.mark.parametrize("case", OFFICIAL_DAMAGE)
def test_a_damaged_official_file_is_named(official, frames, case):
    damage, message = OFFICIAL_DAMAGE[case]
    damage(official)
    teacher = load_teacher("files", str(official), prompts=NUSCENES.prompts)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        teacher.segment(one_frame(frames))


def test_another_vocabulary_than_the_folders_is_refused(official):
    with pytest.raises(ValueError, match="text_embedding.pt: expected a row for each of the 60 prompts.*got 175"):
        load_teacher("files", str(official), prompts=load_vocabulary("cityscapes").prompts)


def test_an_official_folder_embeds_its_own_prompts_only(official, drawn):
    teacher = load_teacher("files", str(official), prompts=NUSCENES.prompts)
    some = teacher.encode_prompts(["tree", "car"])
    np.testing.assert_allclose(some, drawn.encode_prompts(NUSCENES.prompts)[[TREE, CAR]], atol=1e-6)
    with pytest.raises(ValueError, match="text embeddings of its 175 prompts only, not of 'unicorn'"):
        teacher.encode_prompts(["car", "unicorn"])


def test_an_image_of_another_size_is_refused(official, frames):
    write_ids(official / "usual-0.png", np.ones((5, 7)))
    teacher = load_teacher("files", str(official), prompts=NUSCENES.prompts)
    with pytest.raises(ValueError, match=r"usual-0.png is \(5, 7\).*frame f0, camera CAM_USUAL, is \(24, 40\)"):
        teacher.segment(one_frame(frames))


def test_there_are_no_segments_of_an_augmented_image(official, frames):
    teacher = load_teacher("files", str(official), prompts=NUSCENES.prompts)
    with pytest.raises(ValueError, match="there are none with flip. Leave --augmentations out"):
        teacher.segment(one_frame(frames) | {"augmentation": "flip"})


def test_an_official_folder_takes_no_second_model(official):
    with pytest.raises(ValueError, match=r"layout uov\) has embeddings of its own: leave"):
        load_teacher("files", str(official), prompts=NUSCENES.prompts, embed_model_name_or_path="openai/clip")


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        (None, "auto", "needs `model_name_or_path`, the folder"),
        ("away", "auto", "away is no folder"),
        ("files", "auto", r"has no known layout. It contains notes.txt; expected one of: uov: text_embedding.pt and"),
        ("files", "official", "`layout` must be auto or one of these, got 'official'"),
        ("files", "uov", "text_embedding.pt: expected a file of tensors"),
        ("files", "coco", "files: expected <set>.json with `annotations` and `categories`"),
        ("files", "panoptic", "categories.json: expected a JSON file"),
    ],
)
def test_a_folder_that_is_of_no_layout_is_refused_with_the_layouts(tmp_path, name, layout, message):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/notes.txt").write_text("hello")
    source = name and str(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        load_teacher("files", source, prompts=["car"], layout=layout)
