"""Segment ROS bags into bags, with a labelled and coloured scan beside each original one."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uov_hf import PointCloudSegmentationPipeline
from uov_hf.bag_paths import find_bags
from uov_hf.bags.copying import BagCopy, copy_bag, copy_path
from uov_hf.bags.point_cloud2 import with_labels
from uov_hf.bags.reading import RawMessage
from uov_hf.bags.recording import BagFrame, BagRecording, open_recording, sequence_name
from uov_hf.configuration_uov import IGNORED
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.pipeline_uov import PointCloudSegmentation
from uov_hf.segmenting import class_colors
from uov_hf.written_together import only_writer


UNLABELLED_COLOR = (128, 128, 128)


@dataclass(frozen=True)
class SegmentedBag:
    """A bag with labelled scans, and its numbers of points by class; `""` is no label."""

    bag: Path
    result: Path
    picture: Path  # its first scan from above
    num_scans: int
    num_points: dict[str, int]


@dataclass(frozen=True)
class LabelledScan:
    """The labels of one message, `(num_points,)` each."""

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]


def segment_bags(
    segmenter: PointCloudSegmentationPipeline,
    bags: Iterable[str | Path],
    output_dir: str | Path,
    *,
    candidate_labels: Any = None,
    candidate_embeds: Any = None,
    intensity_max: float | None = None,
    **options: Any,
) -> Iterator[SegmentedBag]:
    """Segment every scan of some bags.

    `output_dir/<name>_segmented` is a bag with all topics of the original, and for each lidar topic `/points` a topic
    `/points/segmented`: the same points with the fields `rgb`, `score` and `label`. It is .mcap, or .bag if the
    original is one. `<name>_segmented.json` has the name and colour of every label. The network gets the points of all
    chosen lidars, corrected for the car's motion where the bag has poses; the points of the topic are those of the
    original.

    Args:
        segmenter (`PointCloudSegmentationPipeline`): See [`load_segmenter`].
        bags (iterable of `str` or `Path`): Bags, or folders of bags; rosbag.yaml beside them counts.
        output_dir (`str` or `Path`): Folder of the results.
        candidate_labels, candidate_embeds:
            See [`PointCloudSegmentationPipeline`].
        intensity_max (`float`, *optional*): Full scale of the intensity; by default that of the bag.
        options:
            Further options of a call of the pipeline.

    Raises:
        ValueError: A bag cannot be read or segmented. Results of the bags before it are kept.
        BlockingIOError: Another run writes into the folder.
    """
    own = {"candidate_labels": candidate_labels, "candidate_embeds": candidate_embeds, "intensity_max": intensity_max}
    found = [(path, root) for root in map(Path, bags) for path in find_bags(root)]
    names = Counter(sequence_name(path) for path, _ in found)
    if equal := [str(path) for path, _ in found if names[sequence_name(path)] > 1]:
        raise ValueError(f"expected bags of different names, as results have them, got {', '.join(equal)}.")
    with only_writer(Path(output_dir)):
        for path, root in found:
            recording = open_recording(path, root, points_only=True)
            yield _BagSegmenter(segmenter, recording, own, options).write(Path(output_dir))


class _BagSegmenter:
    """Segments the frames of one recording, each when the first of its scans is copied."""

    def __init__(
        self,
        segmenter: PointCloudSegmentationPipeline,
        recording: BagRecording,
        inputs: dict[str, Any],
        options: dict[str, Any],
    ):
        self.segmenter, self.recording, self.bag, self.options = segmenter, recording, recording.bag, options
        self.inputs = {**inputs, "intensity_max": inputs["intensity_max"] or recording.intensity_max}
        self.class_names: list[str] = []
        self.counts = np.zeros(IGNORED + 1, np.int64)
        self.frame_of = {
            (moments[lidar.topic].topic, moments[lidar.topic].log_time, moments[lidar.topic].place): frame
            for frame, moments in zip(recording.frames(), recording.moments, strict=True)
            for lidar in recording.lidars
            if lidar.topic in moments
        }
        self.ready: dict[tuple[str, int, int], LabelledScan] = {}
        self.picture: Image.Image | None = None  # of the first scan

    def write(self, output_dir: Path) -> SegmentedBag:
        name = f"{self.recording.name}_segmented"
        with copy_bag(self.bag, output_dir, name) as copy:
            for message in self.bag.raw_messages(list(self.bag.topics)):
                copy.copy(message)
                self._write_labelled(message, copy)
        classes = [
            {"id": row, "name": label, "color": color, "num_points": int(self.counts[row])}
            for row, (label, color) in enumerate(zip(self.class_names, self._colors[:-1].tolist(), strict=True))
        ]
        about = {"bag": self.bag.path.name, "classes": classes, "ignored_index": IGNORED}
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (output_dir / f"{name}.json").write_text(text, encoding="utf-8")
        num_points = {label: int(count) for label, count in zip(self.class_names, self.counts, strict=False)}
        num_points[""] = int(self.counts[IGNORED])
        picture = output_dir / f"{name}.png"
        if self.picture:
            self.picture.save(picture)
        result = copy_path(self.bag, output_dir, name)
        return SegmentedBag(self.bag.path, result, picture, len(self.frame_of), num_points)

    def _write_labelled(self, message: RawMessage, copy: BagCopy) -> None:
        key = message.connection.topic, message.log_time, message.place
        if key not in self.frame_of:
            return
        if key not in self.ready:
            self._segment(self.frame_of[key])
        scan, source = self.ready.pop(key), f"{self.bag.path}, {key[0]}"
        colors = self._colors[np.minimum(scan.labels, len(self.class_names))]
        types = self.bag.typestore.types
        cloud = with_labels(self.bag.decode(message), scan.labels, scan.scores, colors, types, source)
        copy.write(f"{key[0]}/segmented", cloud, message.log_time)

    def _segment(self, frame: BagFrame) -> None:
        """The labels of every message of a frame."""
        clouds = frame.clouds
        try:
            points = np.concatenate(list(clouds.values()))
            result: PointCloudSegmentation = self.segmenter({"points": points, **self.inputs}, **self.options)
        except ValueError as error:
            raise ValueError(f"{self.bag.path}, frame {frame.frame_id}: {error}") from error
        labels, scores = result["segmentation"].astype(np.uint8), result["scores"].astype(np.float32)
        self.class_names = list(result["labels"])
        self.counts += np.bincount(labels, minlength=IGNORED + 1)
        if self.picture is None:
            self.picture = draw_birds_eye_view(
                points, labels, self.class_names, class_colors(self.class_names), title=frame.frame_id
            )
        ends = np.cumsum([len(cloud) for cloud in clouds.values()])[:-1]
        for moment, own_labels, own_scores in zip(clouds, np.split(labels, ends), np.split(scores, ends), strict=True):
            self.ready[moment.topic, moment.log_time, moment.place] = LabelledScan(own_labels, own_scores)

    @property
    def _colors(self) -> NDArray[np.uint8]:
        """The colour of every class, and last that of points without a label."""
        return np.concatenate([class_colors(self.class_names), np.array([UNLABELLED_COLOR], np.uint8)])
