"""A label set: the segments that a teacher predicts in the images of a dataset, in a folder that can be published."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from numpy.typing import DTypeLike
from PIL import Image
from safetensors.numpy import load_file, save

from uov_hf.data.frames import Frame, Frames
from uov_hf.data.parquet import Shards
from uov_hf.data.shards import Sharing, WriteReport, write_atomically, write_shards
from uov_hf.hub.upload import is_hub_id
from uov_hf.teachers.protocol import Augmentation, ImageSegments, Teacher, TeacherFrame
from uov_hf.vocabulary import Vocabulary


FORMAT_VERSION = 2

# Columns of a frame that a teacher reads.
CAMERA_COLUMNS = ["camera_names", "image_ids", "images", "image_sizes"]


class SegmentRow(TypedDict, total=False):
    """The segments of one frame with K cameras and S segments; only the columns that were read are present.

    Segment `v` (v >= 1) is row `v - 1` of the `segment_*` columns; ids are unique within the frame.
    """

    frame_id: str
    camera_names: list[str]  # K
    segmentation: list[bytes | None]  # K PNGs of segment ids, 0 = none; None for a camera that was left out
    augmented_segmentation: list[bytes | None]  # K * A PNGs in the geometry of the plain images: camera * A + a
    segment_camera: np.ndarray  # (S,) int16: place in `camera_names`
    segment_labels: np.ndarray  # (S,) int32: prompt index
    segment_scores: np.ndarray  # (S,) float32
    segment_embeds: np.ndarray  # (S, embed_dim) float16


class LabelSet:
    """
    The segments that a teacher predicts in every frame of a dataset, with the prompts that name them.

    Args:
        folder (`str` or `Path`):
            Holds `label_set.json` (teacher, settings, prompts), `prompt_embeds.safetensors`, and in `images/` a shard
            per sequence.

    Raises:
        FileNotFoundError: there is no label set in the folder.
        ValueError: it has another format version.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "label_set.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no label set in {self.folder}: no file `{path.name}`. "
                "Make one with examples/generate_label_set.py."
            )
        description = json.loads(path.read_text())
        if description.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {description.get('format_version')}, this code reads {FORMAT_VERSION}. "
                "Generate the label set again, or use the version of uov_hf that wrote it."
            )
        self.description: dict[str, Any] = description
        self.teacher: dict[str, Any] = description["teacher"]
        self.settings: dict[str, Any] = description["settings"]
        self.taxonomy: str = description["taxonomy"]
        self.class_names: list[str] = description["class_names"]
        self.prompts: list[str] = description["prompts"]
        self.prompt_groups = np.array(description["prompt_groups"], np.int64)
        self.prompt_to_class = np.array(description["prompt_to_class"], np.int64)
        self.is_thing = np.array(description["is_thing"], bool)
        self._shards = Shards(self.folder / "images")

    @classmethod
    def create(
        cls, folder: str | Path, teacher: Teacher, vocabulary: Vocabulary, settings: dict[str, Any]
    ) -> "LabelSet":
        """
        An empty label set, or the one that an earlier run with the same teacher and settings left.

        Args:
            folder (`str` or `Path`): The folder of the label set.
            teacher (`Teacher`): Embeds the prompts of the vocabulary.
            vocabulary (`Vocabulary`): Prompts, their groups and classes.
            settings (`dict`): Settings of the run as JSON: cameras, `augmentations` beside the plain images.

        Raises:
            ValueError: an augmentation is unknown, or the folder holds a label set with another teacher or settings.
        """
        for name in settings.get("augmentations", []):
            Augmentation.parse(name)  # raises
        description = {
            "format_version": FORMAT_VERSION,
            "teacher": {
                "name": teacher.name,
                "model_name_or_path": teacher.model_name_or_path,
                "revision": teacher.revision,
                "embed_dim": teacher.embed_dim,
                **teacher.settings,
            },
            "settings": settings,
            "taxonomy": vocabulary.name,
            "class_names": list(vocabulary.class_names),
            "prompts": list(vocabulary.prompts),
            "prompt_groups": np.asarray(vocabulary.prompt_groups).tolist(),
            "prompt_to_class": np.asarray(vocabulary.prompt_to_class).tolist(),
            "is_thing": np.asarray(vocabulary.is_thing).tolist(),
        }
        folder, content = Path(folder), json.dumps(description, indent=2, ensure_ascii=False)
        if (folder / "label_set.json").exists():
            _check_same(cls(folder), json.loads(content))
        else:
            prompt_embeds = teacher.encode_prompts(list(vocabulary.prompts)).astype(np.float32)
            write_atomically(folder / "prompt_embeds.safetensors", save({"prompt_embeds": prompt_embeds}))
            write_atomically(folder / "label_set.json", content.encode())
        return cls(folder)

    @classmethod
    def from_hub(
        cls, repo_id: str, revision: str | None = None, local_dir: str | Path | None = None, token: str | None = None
    ) -> "LabelSet":
        """
        Download a label set from the Hub, once.

        Args:
            repo_id (`str`): The dataset repository, `user/name`.
            revision (`str`, *optional*): Branch, tag or commit.
            local_dir (`str` or `Path`, *optional*): The folder to download to; by default the cache of the Hub.
            token (`str`, *optional*): By default that of `hf auth login`, or `HF_TOKEN`.

        Raises:
            huggingface_hub.errors.RepositoryNotFoundError: there is no such repository, or the token cannot read it.
            FileNotFoundError: there is no label set in the repository.
        """
        return cls(
            snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=local_dir, token=token)
        )

    @classmethod
    def open(cls, folder_or_id: str | Path) -> "LabelSet":
        """The label set in a folder; if there is no such folder, that of an id on the Hub.

        Raises:
            FileNotFoundError: there is no such folder, and the Hub could not be read.
            ValueError: the label set has another format version.
        """
        is_id = "/" in str(folder_or_id) and is_hub_id(str(folder_or_id))
        try:
            return cls.from_hub(str(folder_or_id)) if is_id else cls(folder_or_id)
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(
                f"There is no folder {folder_or_id}, and it could not be read from the Hub: {error}"
            ) from error

    @cached_property
    def prompt_embeds(self) -> np.ndarray:
        """Embeddings of the prompts, `(num_prompts, embed_dim)` float32, unit length: they define the text space."""
        return load_file(self.folder / "prompt_embeds.safetensors")["prompt_embeds"]

    @property
    def embed_dim(self) -> int:
        return self.teacher["embed_dim"]

    @property
    def teacher_id(self) -> str:
        """
        The id of the teacher for configurations and cards: `openai/clip-vit-base-patch16@<commit>`, or `synthetic`.

        A second model, which embeds, follows a plus sign. Of a local folder only the last name is part of the id,
        because it is published.
        """
        models = [(self.teacher["model_name_or_path"], self.teacher["revision"])]
        if self.teacher.get("embed_model_name_or_path") is not None:
            models.append(self.text_model)
        return "+".join(_model_id(*model) for model in models if model[0] is not None) or self.teacher["name"]

    @property
    def augmentations(self) -> list[str]:
        """The augmentations of the images that the teacher segmented beside the plain ones; see `Augmentation`."""
        return self.settings.get("augmentations", [])

    @property
    def text_model(self) -> tuple[str | None, str | None]:
        """Name or path and revision of the CLIP-space model that embedded the prompts; (None, None) if unknown."""
        if "embed_model_name_or_path" in self.teacher:
            return self.teacher["embed_model_name_or_path"], self.teacher["embed_revision"]
        is_clip = self.teacher["name"] == "clip"
        return (self.teacher["model_name_or_path"], self.teacher["revision"]) if is_clip else (None, None)

    @property
    def frame_ids(self) -> list[str]:
        """The id of every frame that has segments."""
        return self._shards.frame_ids

    def read(self, frame_id: str, columns: list[str] | None = None) -> SegmentRow:
        """
        The segments of one frame, by default all columns of [`SegmentRow`]; arrays are read-only.

        Raises:
            KeyError: the label set does not have the frame.
        """
        return cast(SegmentRow, self._shards.read(frame_id, columns))

    def write(
        self, frames: Frames, teacher: Teacher, cameras: list[str] | None = None, **sharing: Unpack[Sharing]
    ) -> WriteReport:
        """
        Segment the images of every frame that the label set lacks.

        Args:
            frames (`Frames`): The dataset.
            teacher (`Teacher`): The one that the label set was created with.
            cameras (`list[str]`, *optional*): The cameras to segment; all by default.
            sharing:
                `process_index`, `num_processes`, `on_error` and `show_progress` of `write_shards`.
        """

        def open_sequence(sequence: Frames) -> Callable[[int], Mapping[str, Any]]:
            return lambda place: segment_frame(sequence[place], teacher, cameras, self.augmentations)

        frames = frames.select_columns(["frame_id", "sequence_id", "timestamp", *CAMERA_COLUMNS])
        report = write_shards(self.folder / "images", self._schema, frames, open_sequence, **sharing)
        self._shards = Shards(self.folder / "images")
        return report

    @property
    def _schema(self) -> pa.Schema:
        embeds = pa.list_(pa.float16(), self.embed_dim)
        return pa.schema(
            {
                "frame_id": pa.string(),
                "camera_names": pa.list_(pa.string()),
                "segmentation": pa.list_(pa.binary()),
                "augmented_segmentation": pa.list_(pa.binary()),
                "segment_camera": pa.list_(pa.int16()),
                "segment_labels": pa.list_(pa.int32()),
                "segment_scores": pa.list_(pa.float32()),
                "segment_embeds": pa.list_(embeds),
            }
        )


def segment_frame(
    frame: Frame, teacher: Teacher, cameras: list[str] | None = None, augmentations: Sequence[str] = ()
) -> SegmentRow:
    """
    The row of a label set for one frame with `CAMERA_COLUMNS`. All cameras are segmented unless `cameras` names some.

    The ids of augmented images (see `Augmentation`) follow those of the plain ones.

    Raises:
        ValueError: the frame lacks a camera, or a prediction does not fit its image or the prompts.
    """
    names = list(frame["camera_names"])
    if missing := sorted(set(cameras or []) - set(names)):
        raise ValueError(f"Frame {frame['frame_id']} has no camera {', '.join(missing)}; it has {', '.join(names)}.")
    chosen = [index for index, name in enumerate(names) if cameras is None or name in cameras]
    shown = TeacherFrame(
        frame_id=frame["frame_id"],
        camera_names=[names[i] for i in chosen],
        image_ids=[frame["image_ids"][i] for i in chosen],
        images=[frame["images"][i] for i in chosen],
        image_sizes=np.array([frame["image_sizes"][i] for i in chosen]),
    )

    pngs: dict[tuple[int, str | None], bytes] = {}
    predictions: list[tuple[int, ImageSegments]] = []
    num_segments = 0
    for augmentation in (None, *augmentations):
        for camera, segments in zip(chosen, teacher.segment({**shown, "augmentation": augmentation}), strict=True):
            _check_segments(segments, frame, camera, augmentation, teacher)
            ids = Augmentation.parse(augmentation).restore(segments.segmentation, frame["image_sizes"][camera])
            pngs[camera, augmentation] = encode_segmentation(np.where(ids > 0, ids.astype(np.int64) + num_segments, 0))
            predictions.append((camera, segments))
            num_segments += len(segments.labels)

    parts = [segments for _, segments in predictions]
    embeds = [np.empty((0, teacher.embed_dim), np.float16), *(part.embeds.astype(np.float16) for part in parts)]
    return {
        "frame_id": frame["frame_id"],
        "camera_names": names,
        "segmentation": [pngs.get((camera, None)) for camera in range(len(names))],
        "augmented_segmentation": [pngs.get(key) for key in product(range(len(names)), augmentations)],
        "segment_camera": _concatenate([np.full(len(part.labels), camera) for camera, part in predictions], np.int16),
        "segment_labels": _concatenate([part.labels for part in parts], np.int32),
        "segment_scores": _concatenate([part.scores for part in parts], np.float32),
        "segment_embeds": np.concatenate(embeds),
    }


def encode_segmentation(segmentation: np.ndarray) -> bytes:
    """PNG of segment ids, with 8 bits where they suffice and 16 where not."""
    if segmentation.max(initial=0) > np.iinfo(np.uint16).max:
        raise ValueError(f"A frame may have at most 65535 segments, got id {segmentation.max()}.")
    dtype = np.uint8 if segmentation.max(initial=0) < 256 else np.uint16
    buffer = io.BytesIO()
    Image.fromarray(segmentation.astype(dtype)).save(buffer, format="png")
    return buffer.getvalue()


def decode_segmentation(png: bytes) -> np.ndarray:
    """Segment ids `(height, width)` of a label set's PNG, uint8 or uint16."""
    return np.asarray(Image.open(io.BytesIO(png)))


def _concatenate(arrays: list[np.ndarray], dtype: DTypeLike) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


def _model_id(source: str, revision: str | None) -> str:
    if not is_hub_id(source):
        return Path(source).resolve().name
    return f"{source}@{revision}" if revision else source


def _check_segments(
    segments: ImageSegments, frame: Frame, camera: int, augmentation: str | None, teacher: Teacher
) -> None:
    where = f"The teacher {teacher.name!r}, frame {frame['frame_id']}, camera {frame['camera_names'][camera]}:"
    image_size = Augmentation.parse(augmentation).augmented_size(frame["image_sizes"][camera])
    if segments.segmentation.shape != image_size:
        raise ValueError(
            f"{where} expected a segmentation of {image_size} (height, width) as the image, got "
            f"{segments.segmentation.shape}."
        )
    if len(segments.labels) and not 0 <= segments.labels.min() <= segments.labels.max() < len(teacher.prompts):
        raise ValueError(
            f"{where} expected labels that are rows of its {len(teacher.prompts)} prompts, "
            f"got {segments.labels.min()}…{segments.labels.max()}."
        )
    if segments.embeds.shape[1] != teacher.embed_dim:
        raise ValueError(
            f"{where} expected embeddings of {teacher.embed_dim} dimensions, got {segments.embeds.shape[1]}."
        )


def _check_same(found: LabelSet, wanted: dict[str, Any]) -> None:
    differing = [key for key in wanted if found.description.get(key) != wanted[key]]
    if differing:
        details = "; ".join(f"{key}: there {found.description.get(key)}, here {wanted[key]}" for key in differing)
        raise ValueError(
            f"{found.folder} holds a label set of another teacher, vocabulary or settings: this run cannot continue "
            f"it. Give another --output_dir, or delete the folder. Differences: {details[:1000]}"
        )
