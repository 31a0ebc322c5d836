"""Label maps of a closed-set network: components as segments, probabilities as embeddings, files found by name."""

import json
import zipfile

import numpy as np
import pytest
from broken_images import png_with_a_hole
from PIL import Image
from scipy import ndimage

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.teachers import find_teacher, load_teacher
from uov_hf.teachers.label_maps import MIN_PIXELS, find_components, mean_probabilities
from uov_hf.vocabulary import load_vocabulary


CLASSES = ["road", "car", "sky", "train"]
ROAD, CAR, SKY, TRAIN = range(4)
HEIGHT, WIDTH = 40, 64


def fit(folder, name="semantic_kitti", **settings):
    return find_teacher("files").fit_vocabulary(load_vocabulary(name), str(folder), **settings)


def load_maps(folder, **settings):
    return load_teacher("files", str(folder), prompts=fit(folder).prompts, **settings)


def draw_labels() -> np.ndarray:
    """Sky above a road; on it two cars of one size and two spots of a car; a corner without label."""
    labels = np.full((HEIGHT, WIDTH), ROAD, np.uint8)
    labels[:16] = SKY
    labels[20:32, 4:16] = labels[20:32, 30:42] = CAR
    labels[36:38, 50:52] = labels[38:40, 52:54] = CAR  # they touch at a corner only
    labels[:4, :4] = 255
    return labels


def write_maps(folder, name="a", labels=None, scores=None, probs=None):
    labels = draw_labels() if labels is None else labels
    (folder / f"{name}_labels.png").parent.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    Image.fromarray(labels).save(folder / f"{name}_labels.png")
    if scores is not None:
        Image.fromarray(scores).save(folder / f"{name}_scores.png")
    if probs is not None:
        np.savez(folder / f"{name}_probs.npz", probs=probs)
    return folder


def test_a_layout_that_is_given_counts_before_the_one_that_is_found(tmp_path):
    write_maps(tmp_path)
    (tmp_path / "panoptic.json").write_text("{}")  # with a folder of this name, COCO's layout
    (tmp_path / "panoptic").mkdir()
    vocabulary = load_vocabulary("semantic_kitti")
    assert fit(tmp_path).prompts == vocabulary.prompts
    assert fit(tmp_path, layout="semantic").prompts[: len(CLASSES)] == CLASSES


def frame(*image_ids, path=None):
    """No image is opened unless a second model embeds it."""
    return {
        "frame_id": "f",
        "camera_names": [f"camera {place}" for place in range(len(image_ids))],
        "image_ids": list(image_ids),
        "images": [{"bytes": None, "path": path or f"away/{name}.png"} for name in image_ids],
        "image_sizes": np.array([[HEIGHT, WIDTH]] * len(image_ids)),
    }


def grow(labels: np.ndarray, start: tuple[int, int]) -> set[tuple[int, int]]:
    """The pixels of one label that a walk along rows and columns reaches."""
    reached, open_pixels = {start}, [start]
    while open_pixels:
        row, column = open_pixels.pop()
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            is_inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
            if is_inside and near not in reached and labels[near] == labels[start]:
                reached.add(near)
                open_pixels.append(near)
    return reached


@pytest.mark.parametrize("block", [1, 3, 7, 12])
def test_segments_are_connected_components_and_small_ones_are_one_segment_for_each_label(block):
    """Against a walk from pixel to pixel, for labels in blocks of this many pixels."""
    rng = np.random.default_rng(block)
    coarse = rng.choice([0, 1, 2, 255], p=[0.5, 0.3, 0.1, 0.1], size=(HEIGHT // block + 1, WIDTH // block + 1))
    labels = coarse.repeat(block, 0).repeat(block, 1)[:HEIGHT, :WIDTH].astype(np.uint8)
    segmentation, segment_labels = find_components(labels)
    np.testing.assert_array_equal(segmentation > 0, labels != 255)
    np.testing.assert_array_equal(segment_labels[segmentation[segmentation > 0] - 1], labels[segmentation > 0])
    assert set(np.unique(segmentation)) - {0} == set(range(1, len(segment_labels) + 1))
    small: dict[int, set] = {}
    for pixel in np.ndindex(labels.shape):
        if labels[pixel] != 255:
            of_segment = set(zip(*np.nonzero(segmentation == segmentation[pixel]), strict=True))
            if len(component := grow(labels, pixel)) >= MIN_PIXELS:
                assert of_segment == component
            else:
                small.setdefault(int(labels[pixel]), of_segment)
                assert component <= of_segment and of_segment == small[int(labels[pixel])]


def test_components_of_many_labels_are_found_in_one_pass(monkeypatch):
    """A pass for each label took 18 s for a PNG of 12 KB."""
    label, passes = ndimage.label, []
    monkeypatch.setattr(ndimage, "label", lambda image: passes.append(image) or label(image))
    labels = np.repeat(np.arange(254, dtype=np.uint8), 64).reshape(254, 64)
    segmentation, segment_labels = find_components(labels)
    assert len(passes) == 1
    np.testing.assert_array_equal(segmentation, labels + np.int32(1))
    np.testing.assert_array_equal(segment_labels, np.arange(254))


def test_the_labels_of_the_folder_are_prompts_with_the_classes_of_the_vocabulary(tmp_path):
    vocabulary = fit(write_maps(tmp_path))
    assert vocabulary.prompts[:4] == CLASSES
    names = [vocabulary.class_names[index] if index < 255 else None for index in vocabulary.prompt_to_class[:4]]
    assert names == ["road", "car", None, "other-vehicle"]
    assert set(vocabulary.prompt_to_class.tolist()) == {*range(len(vocabulary.class_names)), 255}
    with pytest.raises(ValueError, match=r"has the 4 labels of classes.json \(road, car, sky, …\), not other words"):
        load_teacher("files", str(tmp_path), prompts=["car", "road"])
    (tmp_path / "classes.json").write_text('["road", "spaceship"]')
    with pytest.raises(ValueError, match="has no class for 1 of the 2 labels of .*'spaceship'"):
        fit(tmp_path)


def test_labels_alone_are_segments_with_score_1_and_without_embeddings(tmp_path):
    teacher = load_maps(write_maps(tmp_path))
    [segments] = teacher.segment(frame("a"))
    assert segments.labels.tolist() == [ROAD, CAR, CAR, CAR, SKY] and segments.scores.tolist() == [1] * 5
    sizes = np.bincount(segments.segmentation.ravel())
    assert sizes.tolist() == [16, 24 * 64 - 2 * 144 - 8, 144, 144, 8, 16 * 64 - 16]
    assert teacher.embed_dim == 0 and segments.embeds.shape == (5, 0)
    assert teacher.settings == {"layout": "semantic", "min_pixels": MIN_PIXELS}


def test_a_score_is_the_mean_over_the_pixels_of_the_segment(tmp_path):
    scores = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    [segments] = load_maps(write_maps(tmp_path, scores=scores)).segment(frame("a"))
    for segment, score in enumerate(segments.scores, 1):
        assert score == pytest.approx(scores[segments.segmentation == segment].mean() / 255, abs=1e-6)


@pytest.mark.parametrize("size", [(5, 8), (7, 9), (40, 64)])
def test_mean_probabilities_are_those_of_the_cell_of_each_pixel(size):
    rng = np.random.default_rng(0)
    probs = rng.integers(0, 256, (3, *size), dtype=np.uint8)
    segmentation = rng.integers(0, 4, (HEIGHT, WIDTH))
    expected = np.zeros((3, 3))
    for row, column in np.ndindex(HEIGHT, WIDTH):
        if segment := segmentation[row, column]:
            cell = probs[:, row * size[0] // HEIGHT, column * size[1] // WIDTH]
            expected[segment - 1] += cell / (segmentation == segment).sum()
    np.testing.assert_allclose(mean_probabilities(probs, segmentation, 3), expected, rtol=1e-5)


def test_probabilities_are_embeddings_in_which_labels_are_unit_vectors(tmp_path):
    probs = np.zeros((4, 5, 8), np.uint8)
    probs[SKY, :2], probs[ROAD, 2:], probs[CAR, 2:] = 255, 180, 75
    teacher = load_maps(write_maps(tmp_path, probs=probs))
    [segments] = teacher.segment(frame("a"))
    assert teacher.embed_dim == 5
    road = np.array([180, 75, 0, 0, 0]) / np.hypot(180, 75)
    np.testing.assert_allclose(segments.embeds[0], road, atol=1e-6)
    np.testing.assert_allclose(segments.embeds[4], [0, 0, 1, 0, 0], atol=1e-6)
    embeds = teacher.encode_prompts(teacher.prompts)
    np.testing.assert_array_equal(embeds[:4], np.eye(5)[:4])
    assert len(embeds) > 4 and (segments.embeds @ embeds[4:].T == 0).all()  # the network never predicts these


def test_another_array_beside_the_probabilities_is_not_read(tmp_path):
    write_maps(tmp_path, probs=np.ones((4, 5, 8), np.uint8))
    np.savez(tmp_path / "a_probs.npz", probs=np.ones((4, 5, 8), np.uint8), other=np.array([{}]))
    [segments] = load_maps(tmp_path).segment(frame("a"))
    np.testing.assert_allclose(segments.embeds, [[0.5, 0.5, 0.5, 0.5, 0]] * 5)


def test_a_second_model_replaces_probabilities(tmp_path, tiny_clip):
    write_maps(tmp_path, probs=np.ones((4, 5, 8), np.uint8))
    path = tmp_path / "a.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    teacher = load_maps(tmp_path, embed_model_name_or_path=tiny_clip, embed_short_side=64)
    [segments] = teacher.segment(frame("a", path=str(path)))
    assert segments.embeds.shape == (5, teacher.embed_dim) and teacher.embed_dim not in (0, 5)


@pytest.mark.parametrize("name", ["token", "08/left/000003", "08/000003", "more/08/000003", "more/token"])
def test_an_image_is_found_by_its_id_its_file_or_its_sequence_also_in_subfolders(tmp_path, name):
    teacher = load_maps(write_maps(tmp_path, name))
    image = frame("token") if "token" in name else frame("08/left/000003", path="raw/08/images/left/000003.png")
    [segments] = teacher.segment(image)
    assert len(segments.labels) == 5


def test_the_labels_may_lie_in_the_folder_above_as_for_several_datasets(tmp_path):
    write_maps(tmp_path, "kitti/08/000003")
    write_maps(tmp_path, "pandaset/08/000003", labels=np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(ValueError, match=r"kitti/08/000003_labels.png and .*pandaset.* both fit the image 08/000003"):
        load_maps(tmp_path).segment(frame("08/000003"))
    [segments] = load_maps(tmp_path / "kitti").segment(frame("08/000003"))
    assert len(segments.labels) == 5


def test_a_number_or_a_sequence_of_several_cameras_identifies_no_image(tmp_path):
    write_maps(write_maps(tmp_path, "more/000003"), "08/000003")
    with pytest.raises(FileNotFoundError, match=r"has no labels of this image: expected 08/left/000003_labels.png\."):
        load_maps(tmp_path).segment(frame("08/left/000003", "08/right/000003", path="000003.png"))
    with pytest.raises(FileNotFoundError, match=r"expected 000003_labels.png\."):
        load_maps(tmp_path).segment(frame("000003"))
    with pytest.raises(ValueError, match="The image id ../a: expected the name of a file in "):
        load_maps(tmp_path).segment(frame("../a"))


def too_many(folder):
    Image.fromarray(np.full((HEIGHT, WIDTH), 4, np.uint8)).save(folder / "a_labels.png")


def save_array(name, array, **arrays):
    if name.endswith("png"):
        return lambda folder: Image.fromarray(array).save(folder / name)
    return lambda folder: np.savez(folder / name, **arrays)


def pack(path, method):
    with zipfile.ZipFile(path) as archive:
        content = archive.read("probs.npy")
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("probs.npy", content)


DAMAGE = {
    "no file": (lambda folder: (folder / "a_labels.png").unlink(), "expected a_labels.png"),
    "no image": (lambda folder: (folder / "a_labels.png").write_text("?"), "a_labels.png: expected a whole image"),
    "colours": (
        save_array("a_labels.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
        "a_labels.png: expected labels as grey values of 8 bits, got an image of mode RGB",
    ),
    "a label too many": (too_many, r"a_labels.png holds the labels \[4\]; expected 0 to 3"),
    "another size": (
        lambda folder: (folder / "a_labels.png").write_bytes(png_with_a_hole()),  # found before it is decoded
        r"a_labels.png is \(300, 300\) \(height, width\), but its image is \(40, 64\)",
    ),
    "another size of scores": (
        lambda folder: (folder / "a_scores.png").write_bytes(png_with_a_hole()),
        r"a_scores.png is \(300, 300\) \(height, width\), but its image is \(40, 64\)",
    ),
    "16 bits of scores": (
        save_array("a_scores.png", np.zeros((HEIGHT, WIDTH), np.uint16)),
        "a_scores.png: expected scores as grey values of 8 bits, got an image of mode I;16",
    ),
    "no probabilities": (lambda folder: (folder / "a_probs.npz").unlink(), "a_probs.npz: expected a whole .npz file"),
    "half an archive": (
        lambda folder: (folder / "a_probs.npz").write_text("PK"),
        "a_probs.npz: expected a whole .npz f",
    ),
    "another array": (save_array("a_probs.npz", None, other=np.zeros(1)), "a_probs.npz: expected .* `probs`"),
    "logits": (
        save_array("a_probs.npz", None, probs=np.zeros((4, 5, 8))),
        r"`probs` as uint8 of shape \(4, h, w\), .* got float64 of shape \(4, 5, 8\)",
    ),
    "an array far larger than the image": (
        save_array("a_probs.npz", None, probs=np.ones((4, 90, 128), np.uint8)),
        "a_probs.npz: expected `probs` of at most 41,984 bytes, got 46,208",
    ),
    "an unlimited method": (
        lambda folder: pack(folder / "a_probs.npz", zipfile.ZIP_BZIP2),
        "a_probs.npz: .*`probs` is compressed by another method",
    ),
    "zeros": (save_array("a_probs.npz", None, probs=np.zeros((4, 5, 8), np.uint8)), "a_probs.npz: rows of zeros"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_named(tmp_path, case):
    damage, message = DAMAGE[case]
    write_maps(tmp_path, scores=np.zeros((HEIGHT, WIDTH), np.uint8), probs=np.ones((4, 5, 8), np.uint8))
    (tmp_path / "b_probs.npz").touch()  # the folder has probabilities
    damage(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_maps(tmp_path).segment(frame("a"))


@pytest.mark.parametrize("content", ["[", "{}", "[]", '["car", "car"]', "[1, 2]"])
def test_a_wrong_list_of_labels_is_named(tmp_path, content):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(ValueError, match="classes.json.*(JSON|expected a list of 1 to 255 different labels)"):
        fit(tmp_path)


def test_the_predictions_of_a_real_network_become_point_labels(shared_data, tmp_path):
    """Each dataset finds its own among the files of several; most points on the ground before the car are ground."""
    folder = shared_data / "real" / "espnetv2_cityscapes"
    if not folder.is_dir():
        pytest.skip(f"the predictions are not at {folder}")
    frames = load_frames("point_cloud_folder", data_dir=shared_data / "real" / "kitti_car").select([0, 12])
    vocabulary = fit(folder)
    teacher = load_teacher("files", str(folder), prompts=vocabulary.prompts)
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, {})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    assert label_set.embed_dim == 20
    flat = [vocabulary.class_names.index(name) for name in ("road", "sidewalk", "terrain")]
    for place, frame_id in enumerate(frames.frame_ids):
        row, labels = label_set.read(frame_id), PointLabels(label_set.folder).read(frame_id)["labels"]
        similarity = row["segment_embeds"].astype(np.float32) @ label_set.prompt_embeds.T
        assert 40 < len(row["segment_labels"]) < 1000
        assert (similarity.argmax(axis=1) == row["segment_labels"]).mean() > 0.6
        low = labels[(frames[place]["points"][:, 2] < -1.5) & (labels != 255)]
        assert len(low) > 3000 and np.isin(low, flat).mean() > 0.8
