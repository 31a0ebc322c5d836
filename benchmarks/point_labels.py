"""Speed of point labels of one frame, ours against the official code's loop, by turns in one run.

    python benchmarks/point_labels.py                                       # a synthetic street, 900 x 1600
    python benchmarks/point_labels.py --data_dir nuscenes --dataset_config v1.0-mini

The official rule (docs/explanation/method.md, 2.5) is implemented twice. `OfficialLines` has the steps of the official
file: it transforms the cloud through four coordinate frames for every camera, makes an array as long as the cloud for
every mask, and finally counts the labelled points one by one. `plain_loop` is the same rule with loops over masks and
points. All must give the same labels. Masks are decoded and files are read beforehand, except in the rows "from disk".
Real frames have no teacher here, so their masks are tiles with random prompts.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from common import make_parser, table, timed
from PIL import Image

from uov_hf.configuration_uov import IGNORED
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, decode_segmentation
from uov_hf.labels.consolidation import PRESETS
from uov_hf.labels.labelling import SequenceLabeller
from uov_hf.synthetic import generate_street
from uov_hf.teachers import ImageSegments, Teacher, load_teacher
from uov_hf.vocabulary import load_vocabulary


TILES = (8, 10)  # rows and columns: some tens of masks an image
NO_CLASS = 99


class Tiles(Teacher):
    """Cuts every image into tiles and gives each a random prompt; it opens no image."""

    name, embed_dim, settings = "tiles", 8, {"tiles": list(TILES)}

    def encode_prompts(self, prompts):
        return np.ones((len(prompts), self.embed_dim), np.float32) / np.sqrt(self.embed_dim)

    def segment(self, frame):
        rng, num_tiles = np.random.default_rng(0), TILES[0] * TILES[1]
        answers = []
        for height, width in frame["image_sizes"]:
            row, column = np.arange(height) * TILES[0] // height, np.arange(width) * TILES[1] // width
            tiles = row[:, None] * TILES[1] + column + 1
            prompts = rng.integers(len(self.prompts), size=num_tiles)
            embeds = self.encode_prompts(prompts)
            answers.append(ImageSegments(tiles, prompts, rng.random(num_tiles, np.float32), embeds))
        return answers


class OfficialLines:
    """The steps of `ov_segment/SAN/superpixel2superpoint.py` for a frame, in their order, in our own code."""

    def __init__(self, frame, categories: list[list[int]], prompt_to_raw: np.ndarray, true_labels: np.ndarray):
        self.frame, self.categories, self.true_labels = frame, categories, true_labels
        self.raw_of_prompt = dict(enumerate(prompt_to_raw.tolist()))
        self.cloud = np.ascontiguousarray(frame["points"].T)  # (4, num_points) float32

    def label(self, masks: list[np.ndarray]) -> np.ndarray:
        """100 · superpoint + raw class, −1 for points without a segment."""
        labels = np.full(self.cloud.shape[1], -1, np.int32)
        for seen, mask_of_point, mask, label in self.segments(masks):
            in_mask = np.zeros(len(labels), bool)
            in_mask[seen] = np.isin(mask_of_point, mask)
            labels[in_mask] = label
        agreement = np.sum(np.equal(labels % 100, self.true_labels)) / len(labels)
        labelled = len([label for label in labels if label != -1]) / len(labels)
        self.agreement = agreement / labelled
        return labels

    def segments(self, masks: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, int, int]]:
        """Every mask that a point falls on: which points its camera sees, their masks, the mask and its label."""
        superpoint = 0
        for camera, mask_map in enumerate(masks):
            pixels, seen = self.project(self.cloud.copy(), camera)
            mask_of_point = mask_map[pixels[:, 0], pixels[:, 1]]
            for mask in np.unique(mask_of_point[mask_of_point > 0]):
                raw_class = self.raw_of_prompt[self.categories[camera][mask - 1]]
                yield seen, mask_of_point, mask, superpoint * 100 + raw_class
                superpoint += 1

    def project(self, cloud: np.ndarray, camera: int):
        """Section 1.4. The frame has only the product of the four motions, so the other three are identities here."""
        for motion in (np.eye(4), np.eye(4), np.eye(4), self.frame["lidar2cam"][camera]):
            cloud[:3] = motion[:3, :3] @ cloud[:3]
            for axis in range(3):
                cloud[axis] += motion[axis, 3]
        view = np.eye(4)
        view[:3, :3] = self.frame["intrinsics"][camera]
        pictured = view @ np.concatenate([cloud[:3], np.ones((1, cloud.shape[1]))])
        columns, rows, _ = pictured[:3] / pictured[2:3].repeat(3, 0)
        height, width = self.frame["image_sizes"][camera]
        seen = np.ones(cloud.shape[1], bool)
        for condition in (cloud[2] > 1.0, columns > 0, columns < width - 1, rows > 0, rows < height - 1):
            seen = np.logical_and(seen, condition)
        pixels = np.stack([rows, columns], axis=1)[np.flatnonzero(seen)]
        return np.round(pixels).astype(np.int64), seen


def plain_loop(official: OfficialLines, masks: list[np.ndarray]) -> np.ndarray:
    """The rule of section 2.5, mask by mask and point by point."""
    labels = np.full(official.cloud.shape[1], -1, np.int32)
    for seen, mask_of_point, mask, label in official.segments(masks):
        for place, point in enumerate(np.flatnonzero(seen)):
            if mask_of_point[place] == mask:
                labels[point] = label
    return labels


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, help="A nuScenes root; by default a street is rendered.")
    parser.add_argument("--dataset_config", help="Such as v1.0-mini; by default the only one there is.")
    parser.add_argument("--num_rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.data_dir, args.dataset_config, args.num_rounds)


def measure(folder: Path, root: Path | None, dataset_config: str | None, num_rounds: int) -> None:
    vocabulary = load_vocabulary("nuscenes")
    if root is None:
        root = generate_street(
            folder / "street", 1, 3, image_size=(900, 1600), azimuth_steps=1084, splits={"train": 1}
        )
        teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(root))
    else:
        teacher = Tiles(vocabulary.prompts)
    frames = load_frames("nuscenes", split="all", data_dir=root, dataset_config=dataset_config)
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    contestants = prepare(folder / "official", frames, label_set, vocabulary)

    seconds = {name: [] for name in contestants}
    for turn in range(num_rounds + 1):
        answers = {}
        for name, label in contestants.items():
            taken, answers[name] = timed(label)
            if turn:  # the first round fills caches
                seconds[name].append(taken)
    for name, labels in answers.items():
        num_others = (labels != answers["official"]).sum()
        if num_others and "consolidated" not in name:
            raise RuntimeError(f"{name}: {num_others} labels are not the official ones.")
    report(label_set, frames, seconds)


def prepare(folder: Path, frames, label_set: LabelSet, vocabulary) -> dict[str, Callable[[], np.ndarray]]:
    """Name → a function that labels the first frame, as training ids."""
    frame = frames[0]
    row = label_set.read(frame["frame_id"])
    decoded = [decode_segmentation(png) for png in row["segmentation"]]
    first_row = np.array([row["segment_camera"].searchsorted(camera) for camera in range(len(decoded))])
    masks = [np.where(ids > 0, ids - first, 0) for ids, first in zip(decoded, first_row, strict=True)]
    categories = [row["segment_labels"][row["segment_camera"] == camera].tolist() for camera in range(len(masks))]
    folder.mkdir()
    for camera, mask_map in enumerate(masks):
        Image.fromarray(mask_map.astype(np.uint8)).save(folder / f"{camera}.png")
        (folder / f"{camera}.json").write_text(json.dumps([{"category_id": c} for c in categories[camera]]))
    true_labels = np.asarray(frame["labels"] if frame["labels"] is not None else np.zeros(len(frame["points"])))
    official = OfficialLines(frame, categories, vocabulary.prompt_to_raw, true_labels)

    def as_classes(labels):
        raw = labels % 100
        return np.where(raw == NO_CLASS, IGNORED, vocabulary.raw_to_class[np.minimum(raw, 31)])

    def official_from_disk():
        official.categories = [
            [mask["category_id"] for mask in json.loads((folder / f"{camera}.json").read_text())]
            for camera in range(len(masks))
        ]
        return official.label([np.array(Image.open(folder / f"{camera}.png")) for camera in range(len(masks))])

    in_memory = FramesInMemory([frame])
    return {
        "official": lambda: as_classes(official.label(masks)),
        "plain loop": lambda: as_classes(plain_loop(official, masks)),
        "ours, paper": lambda: label_in_memory(in_memory, label_set, row, decoded),
        "official from disk": lambda: as_classes(official_from_disk()),
        "ours, paper, from disk": lambda: labeller(frames, label_set, "paper").make_row(0)["labels"],
        "ours, consolidated, from disk": lambda: labeller(frames, label_set, "consolidated").make_row(0)["labels"],
    }


def labeller(frames, label_set: LabelSet, preset: str) -> SequenceLabeller:
    return SequenceLabeller(frames, label_set, PRESETS[preset])


class FramesInMemory(list):
    """Frames in memory."""

    @property
    def frame_ids(self) -> list[str]:
        return [frame["frame_id"] for frame in self]

    def select_columns(self, columns: list[str]) -> "FramesInMemory":
        return self


def label_in_memory(frames: FramesInMemory, label_set: LabelSet, row, decoded: list[np.ndarray]) -> np.ndarray:
    """Our labels of a frame whose row of the label set is read, and whose masks are decoded."""
    with (
        patch.object(label_set, "read", lambda frame_id, columns: row),
        patch("uov_hf.labels.labelling.decode_all", lambda *args: decoded),
    ):
        return labeller(frames, label_set, "paper").make_row(0)["labels"]


def report(label_set: LabelSet, frames, seconds: dict[str, list[float]]) -> None:
    frame = frames[0]
    num_masks = len(label_set.read(frame["frame_id"], ["segment_labels"])["segment_labels"])
    size = " x ".join(map(str, frame["image_sizes"][0]))
    print(f"{len(frame['points'])} points, {len(frame['camera_names'])} images of {size}, {num_masks} masks")
    rows = [[name, *(f"{1000 * of(times):.1f} ms" for of in (np.median, np.min))] for name, times in seconds.items()]
    print(table(["", "median", "fastest"], rows))
    for name in ("official", "plain loop"):
        ratios = [of(seconds[name]) / of(seconds["ours, paper"]) for of in (np.median, np.min)]
        print("{} / ours, paper: {:.1f} of the medians, {:.1f} of the fastest".format(name, *ratios))


if __name__ == "__main__":
    main()
