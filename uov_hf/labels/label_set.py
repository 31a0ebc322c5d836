"""A label set: what a teacher said about the images of a dataset, in a folder that can be published."""

import io
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.numpy import load_file, save

from uov_hf.hub.upload import is_hub_id
from uov_hf.labels.shards import Row, Shards, WriteReport, write_atomically, write_shards
from uov_hf.teachers.protocol import Augmentation, ImageSegments, Teacher, TeacherFrame


FORMAT_VERSION = 2

# Columns of a frame that have one entry per camera.
CAMERA_COLUMNS = ["camera_names", "image_ids", "images", "camera_timestamps", "lidar2cam", "intrinsics", "image_sizes"]


class LabelSet:
    """
    A teacher's segments for every frame of a dataset, and the words they are named by.

    Args:
        folder (`str` or `Path`):
            `label_set.json` and `prompt_embeds.safetensors` say who spoke; `images/` has a Parquet shard per sequence.

    Raises:
        FileNotFoundError: there is no label set in the folder.
        ValueError: it is of another format version.
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
    def create(cls, folder: str | Path, teacher: Teacher, vocabulary, settings: dict[str, Any]) -> "LabelSet":
        """
        An empty label set, or the one that an earlier run with the same teacher and settings left.

        Args:
            folder (`str` or `Path`):
                Where it goes.
            teacher (`Teacher`):
                Who will speak; embeds the vocabulary's prompts.
            vocabulary (`Vocabulary`):
                Prompts, their groups and classes.
            settings (`dict`):
                How the run was made (cameras, `augmentations` beside the plain images); JSON.

        Raises:
            ValueError: the folder holds a label set that was made otherwise.
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
        cls,
        repo_id: str,
        revision: str | None = None,
        local_dir: str | Path | None = None,
        token: str | None = None,
    ) -> "LabelSet":
        """
        A label set of the Hub, downloaded once.

        Args:
            repo_id (`str`):
                The dataset repository, `user/name`.
            revision (`str`, *optional*):
                Branch, tag or commit.
            local_dir (`str` or `Path`, *optional*):
                Where it goes; by default into the cache of the Hub.
            token (`str`, *optional*):
                By default the one of `hf auth login`, or `HF_TOKEN`.

        Raises:
            huggingface_hub.errors.RepositoryNotFoundError: it is not there, or private and not ours.
            FileNotFoundError: there is no label set in the repository.
        """
        return cls(
            snapshot_download(repo_id, repo_type="dataset", revision=revision, local_dir=local_dir, token=token)
        )

    @classmethod
    def open(cls, folder_or_id: str | Path) -> "LabelSet":
        """The label set in a folder; or, where there is no such folder and it can be an id, of the Hub."""
        is_id = "/" in str(folder_or_id) and is_hub_id(str(folder_or_id))
        try:
            return cls.from_hub(str(folder_or_id)) if is_id else cls(folder_or_id)
        except LocalEntryNotFoundError as error:
            raise FileNotFoundError(f"There is no folder {folder_or_id}, and the Hub said: {error}") from error

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload it, and return the address; `options` are those of [`~uov_hf.labels.publishing.push_label_set`]."""
        from uov_hf.labels.publishing import push_label_set  # which imports this file

        return push_label_set(self, repo_id, **options)

    @cached_property
    def prompt_embeds(self) -> np.ndarray:
        """`(num_prompts, embed_dim)` float32, unit length; the truth of the text space."""
        return load_file(self.folder / "prompt_embeds.safetensors")["prompt_embeds"]

    @property
    def embed_dim(self) -> int:
        return self.teacher["embed_dim"]

    @property
    def teacher_id(self) -> str:
        """
        Who spoke, for configurations and cards: "openai/clip-vit-base-patch16@<commit>", or "synthetic". A second
        model, which embeds, stands behind a plus sign.

        Of a folder it is the last name only: where it lies on the trainer's machine is nobody else's business.
        """
        models = [(self.teacher["model_name_or_path"], self.teacher["revision"])]
        if self.teacher.get("embed_model_name_or_path") is not None:
            models.append(self.text_model)
        return "+".join(_model_id(*model) for model in models if model[0] is not None) or self.teacher["name"]

    @property
    def augmentations(self) -> list[str]:
        """The augmented images that the teacher was shown beside the plain ones; see `Augmentation`."""
        return self.settings.get("augmentations", [])

    @property
    def text_model(self) -> tuple[str | None, str | None]:
        """Name or path and revision of the CLIP-space model that read the words; twice None where none is known."""
        if "embed_model_name_or_path" in self.teacher:
            return self.teacher["embed_model_name_or_path"], self.teacher["embed_revision"]
        is_clip = self.teacher["name"] == "clip"
        return (self.teacher["model_name_or_path"], self.teacher["revision"]) if is_clip else (None, None)

    @property
    def frame_ids(self) -> list[str]:
        return self._shards.frame_ids

    def read(self, frame_id: str, columns: list[str] | None = None) -> Row:
        """
        What the teacher said about one frame.

        Returns:
            `camera_names` (list of K, the frame's), `segmentation` (list of K PNGs, None for a camera left out; see
            `decode_segmentation`; ids are unique within the frame, id `v` is row `v - 1` of the segment columns),
            `segment_camera` (place in `camera_names`), `segment_labels` (prompt index), `segment_scores`, each `(S,)`,
            and `segment_embeds` `(S, embed_dim)` float16, all read-only; or the `columns` asked for. With A
            `augmentations` there is `augmented_segmentation`, a list of K · A PNGs in the geometry of the plain
            images: entry `camera * A + augmentation`. Their segments are further rows of the same columns.

        Raises:
            KeyError: the label set does not know the frame.
        """
        return self._shards.read(frame_id, columns)

    def write(self, frames, teacher: Teacher, cameras: list[str] | None = None, **sharing: Any) -> WriteReport:
        """
        Let the teacher speak about every frame that it has not spoken about yet.

        Args:
            frames (`Frames`):
                The dataset.
            teacher (`Teacher`):
                The one the label set was created with.
            cameras (`list[str]`, *optional*):
                The cameras to show it; all by default.
            sharing:
                `process_index`, `num_processes`, `on_error` and `show_progress` of `write_shards`.
        """

        def make_rows(sequence):
            def make_row(index):
                return segment_frame(sequence[index], teacher, cameras, self.augmentations)

            return map(make_row, range(len(sequence)))

        frames = frames.select_columns(["frame_id", "sequence_id", "timestamp", *CAMERA_COLUMNS])
        report = write_shards(self.folder / "images", self._schema, frames, make_rows, **sharing)
        self._shards.refresh()
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
    frame: Row, teacher: Teacher, cameras: list[str] | None = None, augmentations: Sequence[str] = ()
) -> Row:
    """The row of a label set for one frame: the chosen cameras, with ids that are unique within the frame.

    The teacher is shown the plain images first and then each augmentation of them; their ids go on counting.
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
    said: list[tuple[int, ImageSegments]] = []
    for augmentation in (None, *augmentations):
        for camera, answer in zip(chosen, teacher.segment({**shown, "augmentation": augmentation}), strict=True):
            _check_answer(answer, frame, camera, augmentation, teacher)
            ids = Augmentation.parse(augmentation).restore(answer.segmentation, frame["image_sizes"][camera])
            num_before = sum(len(earlier.labels) for _, earlier in said)
            pngs[camera, augmentation] = encode_segmentation(np.where(ids > 0, ids.astype(np.int64) + num_before, 0))
            said.append((camera, answer))

    answers = [answer for _, answer in said]
    return {
        "frame_id": frame["frame_id"],
        "camera_names": names,
        "segmentation": [pngs.get((camera, None)) for camera in range(len(names))],
        "augmented_segmentation": [pngs.get(key) for key in product(range(len(names)), augmentations)],
        "segment_camera": _concatenate([np.full(len(answer.labels), camera) for camera, answer in said], np.int16),
        "segment_labels": _concatenate([answer.labels for answer in answers], np.int32),
        "segment_scores": _concatenate([answer.scores for answer in answers], np.float32),
        "segment_embeds": np.concatenate(
            [np.empty((0, teacher.embed_dim), np.float16), *(answer.embeds.astype(np.float16) for answer in answers)]
        ),
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


def _concatenate(arrays: list[np.ndarray], dtype) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype)


def _model_id(source: str, revision: str | None) -> str:
    if not is_hub_id(source):
        return Path(source).resolve().name
    return f"{source}@{revision}" if revision else source


def _check_answer(answer: ImageSegments, frame: Row, camera: int, augmentation: str | None, teacher: Teacher) -> None:
    who = f"The teacher {teacher.name!r}, frame {frame['frame_id']}, camera {frame['camera_names'][camera]}:"
    image_size = Augmentation.parse(augmentation).augmented_size(frame["image_sizes"][camera])
    if answer.segmentation.shape != image_size:
        raise ValueError(
            f"{who} the image is {image_size} (height, width), the segmentation {answer.segmentation.shape}."
        )
    if len(answer.labels) and not 0 <= answer.labels.min() <= answer.labels.max() < len(teacher.prompts):
        raise ValueError(
            f"{who} labels must be rows of its {len(teacher.prompts)} prompts, "
            f"got {answer.labels.min()}…{answer.labels.max()}."
        )
    if answer.embeds.shape[1] != teacher.embed_dim:
        raise ValueError(f"{who} embeddings must have {teacher.embed_dim} dimensions, got {answer.embeds.shape[1]}.")


def _check_same(found: LabelSet, wanted: dict[str, Any]) -> None:
    differing = [key for key in wanted if found.description.get(key) != wanted[key]]
    if differing:
        details = "; ".join(f"{key}: there {found.description.get(key)}, here {wanted[key]}" for key in differing)
        raise ValueError(
            f"{found.folder} holds a label set that was made otherwise, so this run cannot continue it. "
            f"Give another --output_dir, or delete the folder. What differs: {details[:1000]}"
        )
