"""Classes by picture: photos become classes in the space of a teacher, and points near them get the class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_groupvit, save_tiny_tipsv2
from transformers import CLIPModel, CLIPProcessor, pipeline

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.teachers import embed_pictures
from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.clip_space import SpaceConfig
from uov_hf.teachers.images import ScaledImage
from uov_hf.teachers.second_space import load_clip_space


@pytest.fixture
def photos(tmp_path) -> dict[str, list]:
    """Square ones, so that what CLIP's own processor cuts off is nothing."""
    rng = np.random.default_rng(0)
    names = {"tuk-tuk": ["a.png", "b.png"], "cow": ["c.png"]}
    for seed, name in enumerate(name for own in names.values() for name in own):
        pixels = rng.integers(0, 256, (96 + seed, 96 + seed, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    return {word: [tmp_path / name for name in own] for word, own in names.items()}


def test_a_picture_is_embedded_as_clip_embeds_it(tiny_clip, photos):
    embeds = embed_pictures(photos, tiny_clip)
    clip, processor = CLIPModel.from_pretrained(tiny_clip).eval(), CLIPProcessor.from_pretrained(tiny_clip)
    assert {name: own.shape for name, own in embeds.items()} == {"tuk-tuk": (2, 32), "cow": (1, 32)}
    for name, own in embeds.items():
        pixels = processor.image_processor([Image.open(path) for path in photos[name]], return_tensors="pt")
        with torch.no_grad():
            expected = clip.get_image_features(**pixels).pooler_output
        np.testing.assert_allclose(own, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)
        assert own.dtype == np.float32


def test_a_wide_picture_is_embedded_whole(tiny_clip, pictures):
    wide, plain = pictures[0], embed_pictures({"x": [pictures[0]]}, tiny_clip)["x"]
    edited = wide.copy()
    edited.paste((255, 0, 0), (0, 0, 12, wide.height))  # where a square cut out of the middle would not reach
    assert plain.shape == (1, 32) and np.linalg.norm(plain) == pytest.approx(1, abs=1e-5)
    assert np.abs(embed_pictures({"x": [edited]}, tiny_clip)["x"] - plain).max() > 1e-3


def test_in_tipsv2_a_picture_is_its_class_token(tmp_path, photos):
    folder = save_tiny_tipsv2(tmp_path / "tipsv2")
    space = load_clip_space(Checkpoint(folder), SpaceConfig(short_side=56))
    with torch.no_grad():
        pixels = space.pixels(ScaledImage(Image.open(photos["cow"][0]).convert("RGB")))[None]
        expected = space.model.vision_model(pixels).last_hidden_state[:, 0]
    embeds = embed_pictures(photos, folder)["cow"]
    np.testing.assert_allclose(embeds, expected / expected.norm(dim=1, keepdim=True), atol=1e-5)


def test_a_photo_is_turned_as_the_camera_was_held(tiny_clip, pictures, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: turn it by 90° to the right
    pictures[2].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    embeds = embed_pictures({"upright": [pictures[2]], "phone": [tmp_path / "phone.png"]}, tiny_clip)
    np.testing.assert_allclose(embeds["phone"], embeds["upright"], atol=1e-6)


def segmenter_of_the_space(folder, teacher: str):
    """A network in a space of 32 dimensions, of a teacher of that name."""
    torch.manual_seed(0)
    uov = UOVModel(UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8, projection_dim=32, teacher=teacher))
    uov.set_classes(["car"], torch.eye(1, 32), torch.tensor([0]))
    save_checkpoint(folder, uov, UOVProcessor.from_teacher(UOVFeatureExtractor(voxel_size=[1, 1, 1])))
    return pipeline("point-cloud-segmentation", model=str(folder), device="cpu")


def test_points_that_are_embedded_like_a_picture_get_its_class(tiny_clip, photos, tmp_path, monkeypatch):
    segmenter = segmenter_of_the_space(tmp_path / "uov", Path(tiny_clip).name)
    embeds = embed_pictures(photos, tiny_clip)
    like = torch.from_numpy(np.concatenate([embeds["cow"], embeds["tuk-tuk"]]))  # cow, and either tuk-tuk
    rows = torch.tensor([0, 1, 2, 1])
    points = np.array([[5, 0, 0], [-5, 0, 0], [0, 7, 0], [0, -7, 0]], np.float32)
    monkeypatch.setattr(UOVModel, "get_point_features", lambda *_: like[rows])
    alone = segmenter(points, candidate_embeds=embeds)
    assert [alone["labels"][row] for row in alone["segmentation"]] == ["cow", "tuk-tuk", "tuk-tuk", "tuk-tuk"]
    mixed = segmenter(points, candidate_labels="car", candidate_embeds=embeds)
    assert mixed["labels"] == ["car", "tuk-tuk", "cow"] and mixed["segmentation"].tolist() == [2, 1, 1, 1]


def test_the_teacher_of_the_checkpoint_is_recognised_by_its_name(tiny_clip, photos):
    name = tiny_clip.rsplit("/", 1)[-1]
    for teacher in (name, f"facebook/sam2@abc+{name}", None):
        config = UOVConfig.from_preset("tiny", projection_dim=32, teacher=teacher)
        assert embed_pictures(photos, tiny_clip, config=config)["cow"].shape == (1, 32)


def test_without_a_name_the_recorded_teacher_is_taken(tiny_clip, photos, monkeypatch):
    parent, name = tiny_clip.rsplit("/", 1)
    monkeypatch.chdir(parent)
    config = UOVConfig.from_preset("tiny", projection_dim=32, teacher=name)
    np.testing.assert_array_equal(
        embed_pictures(photos, config=config)["cow"], embed_pictures(photos, tiny_clip)["cow"]
    )


@pytest.mark.parametrize(
    "recorded, message",
    [
        ({"teacher": "openai/clip-vit-large-patch14@abc"}, "are in the space of .openai/clip-vit-large-patch14., "),
        ({"teacher": "synthetic"}, "are in the space of 'synthetic', and .* embeds pictures in another"),
        ({"projection_dim": 12}, r"in 32 dimensions, and the points of this checkpoint have 12: .* not recorded"),
    ],
)
def test_pictures_in_another_space_are_refused(tiny_clip, photos, recorded, message):
    config = UOVConfig.from_preset("tiny", **{"projection_dim": 32} | recorded)
    with pytest.raises(ValueError, match=message):
        embed_pictures(photos, tiny_clip, config=config)


def test_what_cannot_be_embedded_is_named(tiny_clip, photos, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a photo")
    cases = [
        ({"cow": [tmp_path / "torn.jpg"]}, "A picture of 'cow': .*torn.jpg: expected a whole image file"),
        (
            {"cow": [tmp_path / "absent.jpg"]},
            "A picture of 'cow': .*absent.jpg: expected .*No such file",
        ),
        ({"cow": []}, r"at least one picture for each class, got none for \['cow'\]"),
        ({}, "must name at least one class"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            embed_pictures(given, tiny_clip)
    with pytest.raises(ValueError, match="no record of the teacher .*: give `model_name_or_path`"):
        embed_pictures(photos)
    with pytest.raises(ValueError, match="of type 'groupvit'"):
        embed_pictures(photos, save_tiny_groupvit(tmp_path / "groupvit"))
