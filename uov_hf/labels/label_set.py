"""A label set: the segments that a teacher predicts in the images of a dataset, in a folder that can be published."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np
import pyarrow as pa
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.numpy import save

from uov_hf.data.frames import Frames
from uov_hf.data.parquet import Shards
from uov_hf.data.shard_file import write_atomically
from uov_hf.data.shards import Sharing, write_shards
from uov_hf.data.unfinished_rows import UnfinishedRows
from uov_hf.data.write_report import WriteReport
from uov_hf.data.writer_lock import remove_leftovers, writer_lock
from uov_hf.hub.upload import hide_folders, is_hub_id
from uov_hf.labels.description import FORMAT_VERSION, read_description, read_embeds, to_sealed_json
from uov_hf.labels.identity import (
    IDENTITY_COLUMNS,
    IDENTITY_SCHEMA,
    DatasetIdentity,
    Identity,
    check_first_frames,
    identify,
)
from uov_hf.labels.row_checks import check_segment_row
from uov_hf.labels.segments import CAMERA_COLUMNS, SegmentRow, segment_frame
from uov_hf.teachers.protocol import Augmentation, Teacher
from uov_hf.vocabulary import Vocabulary


# Files of a label set in a repository that are downloaded where only its images or its point labels are needed.
PROMPT_EMBEDS = "prompt_embeds.safetensors"
DESCRIPTION_FILES = ["label_set.json", PROMPT_EMBEDS, "README.md", "LICENSE.md"]


class LabelSet:
    """
    The segments that a teacher predicts in every frame of a dataset, with the prompts that name them.

    Args:
        folder (`str` or `Path`):
            Holds `label_set.json` (teacher, settings, prompts, dataset), `prompt_embeds.safetensors` if the teacher
            has embeddings, and in `images/` the shards.

    Raises:
        FileNotFoundError: there is no label set in the folder.
        ValueError: it has another format version, or its description is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "label_set.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no label set in {self.folder}: no file `{path.name}`. "
                "Make one with examples/generate_label_set.py."
            )
        description = read_description(path)
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
        cls,
        folder: str | Path,
        teacher: Teacher,
        vocabulary: Vocabulary,
        settings: dict[str, Any],
        dataset: DatasetIdentity | None = None,
    ) -> "LabelSet":
        """
        An empty label set, or the one that an earlier run with the same teacher and settings left.

        Args:
            folder (`str` or `Path`): The folder of the label set.
            teacher (`Teacher`): Embeds the prompts of the vocabulary.
            vocabulary (`Vocabulary`): Prompts, their groups and classes.
            settings (`dict`): Settings of the run as JSON: cameras, `augmentations` beside the plain images.
            dataset (`DatasetIdentity`, *optional*):
                The frames of the first run; later runs may add others (labels/identity.py).

        Raises:
            ValueError: an augmentation is unknown, the teacher has other prompts than the vocabulary, or the folder
                holds a label set with another teacher or settings.
        """
        for name in settings.get("augmentations", []):
            Augmentation.parse(name)  # raises
        if list(teacher.prompts) != list(vocabulary.prompts):
            raise ValueError(
                f"The teacher {teacher.name!r} predicts {len(teacher.prompts)} prompts that are not those of the "
                f"vocabulary {vocabulary.name!r}: its labels would get wrong classes. Give both the vocabulary of "
                "`find_teacher(name).fit_vocabulary(vocabulary, model_name_or_path, revision)`."
            )
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
            "dataset": dataset,
        }
        folder = Path(folder)
        if not (folder / "label_set.json").exists():
            embeds = teacher.encode_prompts(list(vocabulary.prompts)).astype(np.float32) if teacher.embed_dim else None
            with writer_lock(folder):  # the two files are of one teacher
                if not (folder / "label_set.json").exists():  # another run may have written it before it unlocked
                    checksums = {}
                    if embeds is not None:
                        content = save({"prompt_embeds": embeds})
                        checksums["prompt_embeds_sha256"] = hashlib.sha256(content).hexdigest()
                        write_atomically(folder / PROMPT_EMBEDS, content)
                    write_atomically(folder / "label_set.json", to_sealed_json(description | checksums))
        remove_leftovers(folder)
        label_set = cls(folder)
        _check_same(label_set, json.loads(json.dumps(description)))  # lists for tuples
        return label_set

    @classmethod
    def from_hub(
        cls,
        repo_id: str,
        revision: str | None = None,
        local_dir: str | Path | None = None,
        token: str | None = None,
        only: Literal["images", "points"] | None = None,
    ) -> "LabelSet":
        """
        Download a label set from the Hub, once.

        Args:
            repo_id (`str`): The dataset repository, `user/name`.
            revision (`str`, *optional*): Branch, tag or commit.
            local_dir (`str` or `Path`, *optional*): The folder to download to; by default the cache of the Hub.
            token (`str`, *optional*): By default that of `hf auth login`, or `HF_TOKEN`.
            only (`str`, *optional*): Download only the segments (`"images"`) or only the point labels (`"points"`).

        Raises:
            huggingface_hub.errors.RepositoryNotFoundError: there is no such repository, or the token cannot read it.
            FileNotFoundError: there is no label set in the repository.
        """
        patterns = None if only is None else [*DESCRIPTION_FILES, f"{only}/*"]
        folder = snapshot_download(
            repo_id,
            repo_type="dataset",
            revision=revision,
            local_dir=local_dir,
            token=token,
            allow_patterns=patterns,
        )
        return cls(folder)

    @classmethod
    def open(
        cls,
        folder_or_id: str | Path,
        local_dir: str | Path | None = None,
        only: Literal["images", "points"] | None = None,
    ) -> "LabelSet":
        """The label set in a folder; if there is no such folder, that of an id on the Hub, as by `from_hub`.

        Raises:
            FileNotFoundError: there is no such folder, and the Hub could not be read or has no such repository.
            ValueError: the label set has another format version.
        """
        if not is_label_set_id(folder_or_id):
            return cls(folder_or_id)
        try:
            return cls.from_hub(str(folder_or_id), local_dir=local_dir, only=only)
        except (LocalEntryNotFoundError, RepositoryNotFoundError) as error:
            raise FileNotFoundError(
                f"There is no folder {folder_or_id}, and it could not be read from the Hub: {error}"
            ) from error

    @property
    def is_cached(self) -> bool:
        """Whether the label set is in the cache of the Hub, which nothing is written to."""
        snapshots = self.folder.resolve().parent
        return snapshots.name == "snapshots" and snapshots.parent.name.startswith("datasets--")

    def check_may_be_written(self) -> None:
        """
        Raises:
            PermissionError: the label set is in the cache of the Hub.
        """
        if self.is_cached:
            raise PermissionError(
                f"{self.folder} is in the cache of the Hub, which must not be written to: download the label set to a "
                "folder of your own (`hf download USER/NAME --repo-type dataset --local-dir labels`) and give that."
            )

    @cached_property
    def prompt_embeds(self) -> np.ndarray:
        """Embeddings of the prompts, `(num_prompts, embed_dim)` float32, unit length: they define the text space.

        Raises:
            ValueError: the label set has no embeddings, or their file is damaged.
        """
        self.check_has_embeds()
        path, sha256 = self.folder / PROMPT_EMBEDS, self.description.get("prompt_embeds_sha256")
        return read_embeds(path, sha256, (len(self.prompts), self.embed_dim))

    @property
    def embed_dim(self) -> int:
        """Dimension of the teacher's space; 0 for labels without embeddings."""
        return self.teacher["embed_dim"]

    def check_has_embeds(self) -> None:
        """
        Raises:
            ValueError: the label set has no embeddings.
        """
        if not self.embed_dim:
            raise ValueError(
                f"{self.folder} has labels without embeddings, because the teacher {self.teacher['name']!r} had none. "
                "Pre-training and a text head need embeddings; distillation from scratch with a linear head does not "
                "(examples/distill.py --preset minkunet34). To get embeddings, generate the label set in another "
                "folder, with --teacher_settings embed_model_name_or_path=openai/clip-vit-base-patch16, or from label "
                "maps that have the probabilities of all labels (docs/how_to/existing_labels.md)."
            )

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

    def __contains__(self, frame_id: str) -> bool:
        return frame_id in self._shards

    @property
    def skipped(self) -> dict[str, str]:
        """Frame id -> error of the frames that were broken and have no segments."""
        return self._shards.skipped

    @property
    def num_missing(self) -> int:
        """
        How many frames are missing, of the sequences that have segments and of the frames of the first run.

        Skipped frames are not missing.
        """
        lengths = {index["sequence_id"]: index.get("sequence_length", 0) for index in self._shards.indexes.values()}
        wanted = max(sum(lengths.values()), (self.description.get("dataset") or {}).get("num_frames", 0))
        return max(0, wanted - len(self.frame_ids) - len(self.skipped))

    def read(self, frame_id: str, columns: list[str] | None = None) -> SegmentRow:
        """
        The segments of one frame, by default all columns of [`SegmentRow`]; arrays are read-only.

        Raises:
            KeyError: the label set does not have the frame.
            ValueError: the row has other columns or values than a label set; the message names its file.
        """
        row = self._shards.read(frame_id, self._schema.names if columns is None else columns)
        file = self._shards.file_of(frame_id)
        check_segment_row(row, file, len(self.prompts), len(self.augmentations), self.embed_dim)
        return cast(SegmentRow, row)

    def write(
        self,
        frames: Frames,
        teacher: Teacher,
        cameras: list[str] | None = None,
        calibration_changed: bool = False,
        **sharing: Unpack[Sharing],
    ) -> WriteReport:
        """
        Segment the images of every frame that the label set lacks.

        Args:
            frames (`Frames`): The dataset.
            teacher (`Teacher`): The one that the label set was created with.
            cameras (`list[str]`, *optional*): The cameras to segment; all by default.
            calibration_changed (`bool`, *optional*, defaults to `False`):
                Whether the calibration was corrected after the label set was begun.
            sharing: As of [`~uov_hf.data.shards.write_shards`].

        Raises:
            RuntimeError, ValueError, OSError, KeyError: as `write_shards`.
            ValueError: the label set has other frames of the same ids.
            PermissionError: the label set is in the cache of the Hub.
        """
        self.check_may_be_written()
        check_first_frames(frames, self.__contains__, self.read_identity, self.folder, calibration_changed)
        # A run that was stopped before its first shard has left rows, perhaps of other frames.
        rows = UnfinishedRows(self.folder / "images", self._schema)

        def read_unfinished(frame_id: str) -> Identity:
            return cast(Identity, rows.read(frame_id, list(IDENTITY_SCHEMA)))

        check_first_frames(frames, rows.__contains__, read_unfinished, self.folder, calibration_changed)

        def open_sequence(sequence: Frames) -> Callable[[int], Mapping[str, Any]]:
            def make_row(place: int) -> Mapping[str, Any]:
                frame = sequence[place]
                return {**segment_frame(frame, teacher, cameras, self.augmentations), **identify(frame)}

            return make_row

        frames = frames.select_columns(sorted({*IDENTITY_COLUMNS, *CAMERA_COLUMNS}))
        report = write_shards(self.folder / "images", self._schema, frames, open_sequence, **sharing)
        self._shards = Shards(self.folder / "images")
        return report

    def read_identity(self, frame_id: str) -> Identity:
        """What identifies the frame that the segments belong to."""
        return cast(Identity, self.read(frame_id, list(IDENTITY_SCHEMA)))

    @property
    def _schema(self) -> pa.Schema:
        # Arrow does not keep how many rows of width 0 there are.
        embeds = {"segment_embeds": pa.list_(pa.list_(pa.float16(), self.embed_dim))} if self.embed_dim else {}
        return pa.schema(
            {
                "frame_id": pa.string(),
                "camera_names": pa.list_(pa.string()),
                "segmentation": pa.list_(pa.binary()),
                "augmented_segmentation": pa.list_(pa.binary()),
                "segment_camera": pa.list_(pa.int16()),
                "segment_labels": pa.list_(pa.int32()),
                "segment_scores": pa.list_(pa.float32()),
                **embeds,
                **IDENTITY_SCHEMA,
            }
        )


def is_label_set_id(folder_or_id: str | Path) -> bool:
    """Whether this is an id on the Hub, `user/name`, and no folder."""
    return "/" in str(folder_or_id) and is_hub_id(str(folder_or_id))


def _model_id(source: str, revision: str | None) -> str:
    if not is_hub_id(source):
        return str(hide_folders(source))
    return f"{source}@{revision}" if revision else source


def _check_same(found: LabelSet, wanted: dict[str, Any]) -> None:
    # Runs may add other frames of the dataset: rows, not the description, guard against another dataset.
    differing = [key for key in wanted if key != "dataset" and found.description.get(key) != wanted[key]]
    if differing:
        details = "; ".join(f"{key}: there {found.description.get(key)}, here {wanted[key]}" for key in differing)
        raise ValueError(
            f"{found.folder} holds a label set of another teacher, vocabulary or settings: this run cannot continue "
            f"it. Give another --output_dir, or delete the folder. Differences: {details[:1000]}"
        )
