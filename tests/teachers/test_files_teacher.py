"""Official UOV/AFOV folders read back to the segments they were written from, and damaged files are named."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from uov_hf.teachers import ImageSegments, Teacher, load_teacher
from uov_hf.teachers.file_contents import read_features
from uov_hf.vocabulary import load_vocabulary


PROMPTS = load_vocabulary("nuscenes").prompts
HEIGHT, WIDTH, EMBED_DIM = 24, 40, 8
CAR, TREE, LAST = 0, 166, 174  # rows of the nuScenes prompts


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


TEXT_EMBEDS = unit(np.random.default_rng(0).normal(size=(len(PROMPTS), EMBED_DIM)))


def cells(num_segments: int) -> np.ndarray:
    """Ids 1…num_segments, one after the other, row by row; what is left of the image is unlabelled."""
    ids = np.arange(1, HEIGHT * WIDTH + 1)
    return np.where(ids > num_segments, 0, ids).reshape(HEIGHT, WIDTH)


def draw_segments() -> dict[str, ImageSegments]:
    """Segments of four images; more than 150 in an image break the official code."""
    usual, rng = np.zeros((HEIGHT, WIDTH), np.int64), np.random.default_rng(1)
    usual[4:, :20], usual[4:, 20:] = 1, 2
    usual[10:14, 5:9] = 3
    drawn = {}
    for name, ids in {"usual": usual, "crowd": cells(200), "larger-crowd": cells(300), "empty": cells(0)}.items():
        count = int(ids.max())
        labels = np.array([CAR, LAST, TREE]) if name == "usual" else rng.integers(len(PROMPTS), size=count)
        drawn[name] = ImageSegments(ids, labels, np.ones(count), unit(rng.normal(size=(count, EMBED_DIM))))
    return drawn


DRAWN = draw_segments()
# No image is opened to read the official layout.
FRAME = {
    "frame_id": "f0",
    "camera_names": ["CAM_USUAL", "CAM_CROWD", "CAM_LARGER_CROWD", "CAM_EMPTY"],
    "image_ids": list(DRAWN),
    "images": [{"bytes": None, "path": f"absent/{name}.jpg"} for name in DRAWN],
    "image_sizes": np.array([[HEIGHT, WIDTH]] * 4),
}


def load_files(folder, **settings) -> Teacher:
    return load_teacher("files", str(folder), prompts=PROMPTS, **settings)


def write_ids(path, ids: np.ndarray) -> None:
    Image.fromarray(ids.astype(np.uint8 if ids.max() < 256 else np.uint16)).save(path)


def write_official(folder, variant: str):
    """The files of superpixel_generation.py (docs/how_to/existing_labels.md); 16 bits where 8 are few."""
    folder.mkdir()
    text = torch.from_numpy(TEXT_EMBEDS)
    if variant == "fc-clip":  # a last row for void, and features that are not of unit length
        text = torch.cat([text, torch.full((1, EMBED_DIM), 9.0)])
    torch.save(text, folder / "text_embedding.pt")
    for image_id, segments in DRAWN.items():
        write_ids(folder / f"{image_id}.png", segments.segmentation)
        more = {"isthing": True} if variant == "fc-clip" else {"area": 1}
        info = [{"id": i, "category_id": int(label), **more} for i, label in enumerate(segments.labels, 1)]
        (folder / f"{image_id}.json").write_text(json.dumps(info))
        features = torch.cat([torch.zeros(1, EMBED_DIM), torch.from_numpy(segments.embeds)])
        double = [torch.full_like(features, 5.0), 3 * features]
        torch.save(double if variant == "fc-clip" else features, folder / f"{image_id}.pt")
    return folder


@pytest.mark.parametrize("variant", ["san", "cat-seg", "fc-clip"])
def test_an_official_folder_reads_back_to_the_same_segments(tmp_path, variant):
    teacher = load_files(write_official(tmp_path / "official", variant))
    assert teacher.settings == {"layout": "uov"} and teacher.embed_dim == EMBED_DIM
    np.testing.assert_allclose(teacher.encode_prompts(PROMPTS), TEXT_EMBEDS, atol=1e-6)
    for found, drawn in zip(teacher.segment(FRAME), DRAWN.values(), strict=True):
        for column in ("segmentation", "labels", "scores"):
            np.testing.assert_array_equal(getattr(found, column), getattr(drawn, column))
        np.testing.assert_allclose(found.embeds, drawn.embeds, atol=1e-6)


@pytest.fixture
def official(tmp_path):
    return write_official(tmp_path / "official", "san")


def damage_8_bits(folder):
    path = folder / "larger-crowd.png"
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)


def damage_code(folder):
    class Command:
        def __reduce__(self):
            return os.system, ("echo never run",)

    torch.save(Command(), folder / "usual.pt")


def save_json(name: str, content):
    return lambda folder: (folder / name).write_text(json.dumps(content))


def save_tensor(name: str, tensor):
    return lambda folder: torch.save(tensor, folder / name)


OFFICIAL_DAMAGE = {
    "no png": (
        lambda folder: (folder / "usual.png").unlink(),
        r"has no segments of this image: expected usual.png",
    ),
    "no json": (lambda folder: (folder / "usual.json").unlink(), r"usual.json: expected JSON"),
    "half a json": (lambda folder: (folder / "usual.json").write_text("[{"), "usual.json: expected JSON"),
    "no png at all": (lambda folder: (folder / "usual.png").write_text("?"), "usual.png: expected a whole image file"),
    "half a png": (
        lambda folder: (folder / "usual.png").write_bytes((folder / "usual.png").read_bytes()[:60]),
        "usual.png: expected a whole image file",
    ),
    "8 bits": (damage_8_bits, "larger-crowd.png has 8 bits, but segments up to id 300 .* Write it with 16 bits"),
    "code": (damage_code, "usual.pt: expected a PyTorch file of tensors"),
    "one feature": (save_tensor("usual.pt", torch.ones(8)), r"usual.pt: expected a tensor .* got shape \(8,\)"),
    "too few": (save_tensor("usual.pt", torch.ones(3, 8)), "usual.pt: expected 4 rows, one of zeros .* got 3"),
    "zeros": (save_tensor("usual.pt", torch.zeros(4, 8)), "usual.pt: rows of zeros"),
    "undescribed": (save_json("usual.json", []), r"usual.png holds ids \[1, 2, 3\], which its JSON does not"),
    "void": (save_json("usual.json", [{"id": 1, "category_id": 175}]), "usual.json: segment 1 has category 175"),
    "text": (
        save_json("usual.json", [{"id": "1", "category_id": 3}]),
        "usual.json: a segment must have whole num",
    ),
    "no list": (save_json("usual.json", {"segments": []}), "usual.json: expected a list of segments"),
    "twice": (save_json("usual.json", [{"id": 7, "category_id": 3}] * 2), r"id is described twice: \[7\]"),
}


@pytest.mark.parametrize("case", OFFICIAL_DAMAGE)
def test_a_damaged_official_file_is_named(official, case):
    damage, message = OFFICIAL_DAMAGE[case]
    damage(official)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_files(official).segment(FRAME)


def test_another_vocabulary_than_the_folders_is_refused(official):
    with pytest.raises(ValueError, match="text_embedding.pt: expected a row for each of the 60 prompts.*got 175"):
        load_teacher("files", str(official), prompts=load_vocabulary("cityscapes").prompts)


def test_an_official_folder_embeds_its_own_prompts_only(official):
    teacher = load_files(official)
    np.testing.assert_allclose(teacher.encode_prompts(["tree", "car"]), TEXT_EMBEDS[[TREE, CAR]], atol=1e-6)
    with pytest.raises(ValueError, match="has embeddings of its 175 prompts only, not of 'unicorn'"):
        teacher.encode_prompts(["car", "unicorn"])


def test_segments_of_another_size_or_of_an_augmented_image_are_refused(official):
    with pytest.raises(ValueError, match="there are none with flip. Leave --augmentations out"):
        load_files(official).segment(FRAME | {"augmentation": "flip"})
    write_ids(official / "usual.png", np.ones((5, 7)))
    with pytest.raises(ValueError, match=r"usual.png is \(5, 7\) \(height, width\), but its image is \(24, 40\)"):
        load_files(official).segment(FRAME)


def test_a_second_model_replaces_the_embeddings_of_an_official_folder(official, tiny_clip):
    for name in DRAWN:
        Image.new("RGB", (WIDTH, HEIGHT)).save(official.parent / f"{name}.jpg")
    images = [{"bytes": None, "path": str(official.parent / f"{name}.jpg")} for name in DRAWN]
    teacher = load_files(official, embed_model_name_or_path=tiny_clip, embed_short_side=64)
    own = load_files(official).segment(FRAME)
    for replaced, segments in zip(teacher.segment(FRAME | {"images": images}), own, strict=True):
        assert replaced.embeds.shape == (len(segments.labels), teacher.embed_dim)
        np.testing.assert_array_equal(replaced.segmentation, segments.segmentation)
    assert teacher.encode_prompts(["unicorn"]).shape == (1, teacher.embed_dim)


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        (None, "auto", "needs `model_name_or_path`, the folder"),
        ("away", "auto", "away is no folder"),
        ("files", "auto", r"has no known layout. It contains notes.txt; expected one of: uov: text_embedding.pt and"),
        ("files", "official", "`layout` must be auto or one of these, got 'official'"),
        ("files", "uov", "text_embedding.pt: expected a PyTorch file of tensors"),
        ("files", "coco", "files: expected <set>.json with `annotations` and `categories`"),
        ("files", "panoptic", "categories.json: expected JSON"),
    ],
)
def test_a_folder_that_is_of_no_layout_is_refused_with_the_layouts(tmp_path, name, layout, message):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/notes.txt").write_text("hello")
    source = name and str(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        load_teacher("files", source, prompts=["car"], layout=layout)


@pytest.mark.parametrize("tensor", [torch.ones(1).expand(4, 8), torch.ones(4, 8).to_sparse(), torch.ones(4, 8).int()])
def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path, tensor):
    """A stride of 0 repeats one number as often as the shape has it."""
    torch.save(tensor, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt: expected a .*dense tensor"):
        read_features(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(4, 8, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    ],
)
def test_a_tensor_of_another_kind_is_named(tmp_path, tensor):
    torch.save([1, tensor], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a.pt: expected a"):
        read_features(tmp_path / "a.pt")


def test_attributes_of_features_are_not_used(tmp_path):
    rows = torch.nn.Parameter(torch.ones(4, 8))
    rows.numel = rows.detach = rows.untyped_storage = 5
    torch.save(rows, tmp_path / "a.pt")
    assert torch.equal(read_features(tmp_path / "a.pt"), torch.ones(4, 8))


def test_a_damaged_file_of_tensors_is_named_whatever_it_raises(tmp_path):
    torch.save(torch.ones(4, 8), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pt").read_bytes()
    for place in range(0, len(content), 7):
        (tmp_path / "a.pt").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        try:
            read_features(tmp_path / "a.pt")
        except ValueError as error:
            assert "a.pt: expected" in str(error)
