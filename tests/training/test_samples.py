"""Samples depend on (seed, epoch, frame) alone; superpoints have their points and prompts, points their labels."""

import numpy as np
import pytest
import torch
from labelled_street import label_street

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import collate_scans
from uov_hf.training.objectives import count_labelled_voxels
from uov_hf.training.samples import AnnotatedSamples, DistillationSamples, TMPSamples


@pytest.fixture
def street(tiny_street, street_labels):
    """Frames, label set and point labels."""
    frames = load_frames("nuscenes", split="all", data_dir=tiny_street)
    return frames, LabelSet(street_labels), PointLabels(street_labels)


def make_samples(street, augmentation=None, seed=0) -> TMPSamples:
    return TMPSamples(*street, UOVFeatureExtractor(), augmentation, seed)


def equal(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_sample_is_a_function_of_seed_epoch_and_frame(street):
    augmentation = AugmentationConfig(min_pairs=10)
    samples = make_samples(street, augmentation)
    first = samples[3, 1]
    samples[0, 0], samples[3, 0]
    assert equal(first, samples[3, 1]) and equal(first, make_samples(street, augmentation)[3, 1])
    assert not equal(first, samples[4, 1])
    assert not equal(first, make_samples(street, augmentation, seed=1)[3, 1])


def test_without_augmentation_every_pair_on_a_segment_is_there(street):
    frames, label_set, point_labels = street
    for index in range(len(frames)):
        sample, frame_id = make_samples(street)[0, index], frames.frame_ids[index]
        pairs, segments = point_labels.read(frame_id), label_set.read(frame_id)
        on_segment = pairs["pair_segment"] > 0
        assert np.array_equal(sample["pair_to_point"], pairs["pair_to_point"][on_segment])
        segment = pairs["pair_segment"][on_segment] - 1
        labels = sample["segment_labels"][sample["superpoint_ids"]]
        assert np.array_equal(labels, segments["segment_labels"][segment])
        np.testing.assert_allclose(
            sample["segment_embeds"][sample["superpoint_ids"]], segments["segment_embeds"][segment], atol=1e-3
        )
        assert len(sample["point_to_voxel"]) == len(frames[index]["points"])


def test_superpoint_ids_are_compact_and_embeddings_of_unit_length(street):
    sample = make_samples(street, AugmentationConfig(min_pairs=10))[0, 0]
    assert torch.equal(sample["superpoint_ids"].unique(), torch.arange(len(sample["segment_labels"])))
    assert sample["segment_embeds"].dtype == torch.float32
    torch.testing.assert_close(sample["segment_embeds"].norm(dim=1), torch.ones(len(sample["segment_labels"])))
    assert sample["segment_labels"].dtype == sample["superpoint_ids"].dtype == sample["scene_ids"].dtype == torch.int64
    assert sample["prompt_embeds"].shape == (175, 64) and sample["prompt_groups"].shape == (175,)


def test_every_pair_has_a_voxel(street):
    frames, label_set, point_labels = street
    extractor = UOVFeatureExtractor(coordinate_system="cartesian", point_cloud_range=[-10, -10, -5, 10, 10, 5])
    sample = TMPSamples(frames, label_set, point_labels, extractor)[0, 0]
    assert (sample["point_to_voxel"] < 0).any() and (sample["point_to_voxel"][sample["pair_to_point"]] >= 0).all()
    assert torch.equal(sample["superpoint_ids"].unique(), torch.arange(len(sample["segment_labels"])))


def test_no_image_is_opened(street, monkeypatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_: pytest.fail("an image was opened"))
    assert len(make_samples(street, AugmentationConfig())[0, 0]["segment_labels"])


@pytest.mark.parametrize("kind, labels", [(TMPSamples, slice(1, 3)), (DistillationSamples, slice(2, 3))])
def test_point_labels_of_another_cloud_are_refused(street, kind, labels):
    samples = kind(street[0], *street[labels], UOVFeatureExtractor())
    whole = samples.frames[0]
    samples.frames = [whole | {"points": whole["points"][:-1]}]
    with pytest.raises(ValueError, match="made from another dataset"):
        samples[0, 0]


def test_a_distillation_sample_has_the_teachers_label_of_every_point(street):
    frames, _, point_labels = street
    plain = DistillationSamples(frames, point_labels, UOVFeatureExtractor(), with_confidence=True)
    teacher = point_labels.read(frames.frame_ids[1])
    sample = plain[0, 1]
    assert np.array_equal(sample["labels"], teacher["labels"]) and sample["labels"].dtype == torch.int64
    assert np.array_equal(sample["confidence"], teacher["confidence"].astype(np.float32))
    assert len(sample["labels"]) == len(sample["point_to_voxel"]) == len(frames[1]["points"])
    assert "confidence" not in DistillationSamples(frames, point_labels, UOVFeatureExtractor())[0, 1]


def test_distillation_turns_the_points_by_seed_epoch_and_frame_and_drops_none(street):
    frames, _, point_labels = street
    samples = [DistillationSamples(frames, point_labels, UOVFeatureExtractor(), AugmentationConfig()) for _ in "ab"]
    first = samples[0][3, 1]
    assert equal(first, samples[1][3, 1]) and not equal(first, samples[0][4, 1])
    assert torch.equal(first["labels"], samples[0][4, 1]["labels"])


def test_scans_of_a_batch_keep_their_labels_end_to_end(street):
    frames, _, point_labels = street
    samples = DistillationSamples(frames, point_labels, UOVFeatureExtractor(), with_confidence=True)
    parts = [samples[0, 0], samples[0, 1]]
    batch = collate_scans(parts)
    assert torch.equal(batch["labels"], torch.cat([part["labels"] for part in parts]))
    assert len(batch["confidence"]) == len(batch["point_to_voxel"]) == batch["num_points"].sum()
    assert batch["voxel_coords"][:, 0].unique().tolist() == [0, 1]
    separate = sum(count_labelled_voxels(collate_scans([part])) for part in parts)
    assert count_labelled_voxels(batch) == pytest.approx(separate)


@pytest.fixture(scope="module")
def front_camera(tiny_street, tmp_path_factory):
    """The same with labels of one camera only."""
    labels = label_street(tiny_street, tmp_path_factory.mktemp("front") / "labels", cameras=["CAM_FRONT"])
    return load_frames("nuscenes", split="all", data_dir=tiny_street), LabelSet(labels), PointLabels(labels)


MIXED = AugmentationConfig(min_pairs=10, mix_sectors=True)


@pytest.mark.parametrize("kind", [TMPSamples, DistillationSamples])
def test_mixed_samples_are_a_function_of_seed_epoch_and_frame(front_camera, kind):
    arguments = front_camera if kind is TMPSamples else front_camera[::2]
    samples = [kind(*arguments, UOVFeatureExtractor(), MIXED) for _ in "ab"]
    first = samples[0][3, 1]
    samples[0][0, 1]
    assert equal(first, samples[0][3, 1]) and equal(first, samples[1][3, 1]) and not equal(first, samples[0][4, 1])


def test_mixing_multiplies_the_labels_that_a_scan_has(front_camera):
    frames, _, point_labels = front_camera
    shares = [
        (DistillationSamples(frames, point_labels, UOVFeatureExtractor(), augmentation)[0, 0]["labels"] != 255)
        .float()
        .mean()
        for augmentation in (AugmentationConfig(), MIXED)
    ]
    assert shares[1] > 3 * shares[0]


def test_superpoints_of_a_mixed_sample_keep_their_points_and_embeddings(front_camera):
    """Each has the embedding and prompt of a segment, and at most as many points as that segment has."""
    frames, label_set, point_labels = front_camera
    sample = TMPSamples(frames, label_set, point_labels, UOVFeatureExtractor(), MIXED)[0, 0]
    num_superpoints = len(sample["segment_labels"])
    assert torch.equal(sample["superpoint_ids"].unique(), torch.arange(num_superpoints))
    assert len(sample["scene_ids"]) == len(sample["segment_embeds"]) == num_superpoints
    assert (sample["point_to_voxel"][sample["pair_to_point"]] >= 0).all()
    frame_ids = frames.frame_ids
    rows = [label_set.read(frame_id, ["segment_embeds", "segment_labels"]) for frame_id in frame_ids]
    embeds = np.concatenate([row["segment_embeds"] for row in rows]).astype(np.float32)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    sizes = np.concatenate(
        [
            np.bincount(
                point_labels.read(frame_id, ["pair_segment"])["pair_segment"], minlength=len(row["segment_labels"]) + 1
            )[1:]
            for frame_id, row in zip(frame_ids, rows, strict=True)
        ]
    )
    labels = np.concatenate([row["segment_labels"] for row in rows])
    of_superpoint = np.bincount(sample["superpoint_ids"])
    for embed, label, size in zip(
        sample["segment_embeds"].numpy(), sample["segment_labels"], of_superpoint, strict=True
    ):
        source = np.abs(embeds - embed).max(axis=1).argmin()
        assert np.abs(embeds[source] - embed).max() < 1e-5 and labels[source] == label and size <= sizes[source]


def test_a_broken_frame_is_no_part_of_the_mixed_scans_of_others(street, monkeypatch):
    """Without this, one broken frame makes a mixed scan of nearly every other frame a broken one, too."""
    frames, _, point_labels = street
    broken = frames.frame_ids[0]
    read = PointLabels.read

    def read_or_break(self, frame_id, columns=None):
        if frame_id == broken:
            raise KeyError(frame_id)
        return read(self, frame_id, columns)

    monkeypatch.setattr(PointLabels, "read", read_or_break)
    augmentation = AugmentationConfig(mix_sectors=True)
    samples = DistillationSamples(frames, point_labels, UOVFeatureExtractor(), augmentation)
    monkeypatch.setattr("uov_hf.training.mixing.labelled_sector", lambda bins: np.arange(360) < 40)
    for epoch in range(4):
        assert len(samples[epoch, 1]["labels"])
        with pytest.raises(KeyError):
            samples[epoch, 0]


def spoil(frames, index: int, monkeypatch, **values) -> None:
    """Change the first point of one frame: `x=…` or `intensity=…`; with `all_intensities`, those of all points."""
    read = frames.source.read

    def read_spoilt(place, columns):
        frame = read(place, columns)
        if place == index:
            points = frame["points"] = frame["points"].copy()
            points[0, 0], points[0, 3] = values.get("x", points[0, 0]), values.get("intensity", points[0, 3])
            points[:, 3] = values.get("all_intensities", points[:, 3])
        return frame

    monkeypatch.setattr(frames.source, "read", read_spoilt)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"x": 12345.5}, r"at \(12345\.5, .*\) m\. Points must be in the lidar"),
        ({"all_intensities": 300}, "got 255, but"),
    ],
)
def test_points_without_voxels_are_named_by_their_frame_and_their_coordinates_in_the_file(
    street, values, message, monkeypatch
):
    spoil(street[0], 1, monkeypatch, **values)
    for augmentation in (None, AugmentationConfig(min_pairs=10, random_scale=0.1, cuboid_size=0)):
        with pytest.raises(ValueError, match=f"^Frame {street[0].frame_ids[1]}: .*{message}"):
            make_samples(street, augmentation)[0, 1]


def test_one_wrong_intensity_stays_within_the_range_of_the_others_and_ruins_no_statistics(street, monkeypatch):
    samples = AnnotatedSamples(street[0], UOVFeatureExtractor())
    before = samples[0, 1]["voxel_features"]
    spoil(street[0], 1, monkeypatch, intensity=1e30)
    after = samples[0, 1]["voxel_features"]
    assert after.max() == 255 and torch.equal(before[1:], after[1:])
    norm = torch.nn.BatchNorm1d(1)
    norm(after)
    assert norm.running_var < 255**2
