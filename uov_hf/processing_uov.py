"""Model inputs from points, images and words, and labels of the original points from the scores of the model."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    BatchEncoding,
    BatchFeature,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, ProcessorMixin, TextKwargs
from transformers.utils import ModelOutput

from .afi import approximate_flat_interaction, labels_to_scores
from .array_checks import check_array, to_sizes, to_xyz
from .configuration_afi import DENSE, AFIConfig
from .configuration_uov import IGNORED
from .feature_extraction_uov import UOVFeatureExtractor


AFI_EVIDENCE = ("labels", "scores")
# Measured better than the paper's constants, which are an empty dictionary (docs/results.md).
DEFAULT_AFI = {"evidence": "scores", "level_shares": list(DENSE.level_shares or ()), "base_vote": DENSE.base_vote}


@dataclass
class PointSegmentation(ModelOutput):
    """The labels of one scan.

    Args:
        segmentation (`torch.LongTensor` of shape `(num_points,)`): Columns of the scores, or the ignored index.
        scores (`torch.FloatTensor` of shape `(num_points,)`): Score of each label, 0 for a point outside the grid.
        top_labels, top_scores (`torch.Tensor` of shape `(num_points, top_k)`, *optional*):
            The best labels, best first, and their scores; only with `top_k`.
    """

    segmentation: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    top_labels: torch.Tensor | None = None
    top_scores: torch.Tensor | None = None


class UOVProcessorKwargs(ProcessingKwargs, total=False):
    """Options of [`UOVProcessor.__call__`]: `images_kwargs`, `text_kwargs`, or an option of either by its name."""


class UOVProcessor(ProcessorMixin):
    """Voxelise scans, prepare camera images, tokenise words, and turn scores back into labels of points.

    Args:
        feature_extractor (`UOVFeatureExtractor`): Points to voxels.
        image_processor (an image processor of transformers): Camera images to `pixel_values`.
        tokenizer (a tokenizer of transformers):
            Words to `input_ids`. transformers saves no processor without one; see [`~UOVProcessor.from_teacher`].
        has_text_tower (`bool`, *optional*, defaults to `False`):
            Whether the model has a text tower for these tokens. Without one, `text` is refused.
        afi (`dict`, *optional*):
            Settings of approximate flat interaction: fields of [`AFIConfig`], with the ground ring's classes by name
            (`{"ground_ring": {"classes": ["road"]}}`), and `evidence`: `"labels"` (the evidence of a point is its best
            class, as in the paper) or `"scores"` (its probabilities). Fields that are not given have the paper's
            constants. `{}` is the paper's setting without the ground ring of its evaluation. By default
            `DEFAULT_AFI`.

    Raises:
        ValueError: A setting of `afi` is unknown or out of range.
    """

    valid_processor_kwargs = UOVProcessorKwargs
    text_kwargs = {"padding": True}

    def __init__(
        self,
        feature_extractor: UOVFeatureExtractor | None = None,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        has_text_tower: bool = False,
        afi: dict[str, Any] | None = None,
    ):
        super().__init__(feature_extractor, image_processor, tokenizer)
        self.has_text_tower = has_text_tower
        self.afi = dict(DEFAULT_AFI if afi is None else afi)
        ring_classes = (self.afi.get("ground_ring") or {}).get("classes", [])
        self.afi_settings({name: number for number, name in enumerate(ring_classes)})  # raises for wrong ones

    @classmethod
    def from_teacher(
        cls,
        feature_extractor: UOVFeatureExtractor,
        teacher_name_or_path: str | None = None,
        revision: str | None = None,
    ) -> "UOVProcessor":
        """Create a processor with the tokenizer and the image processor of a CLIP teacher.

        Without a teacher, the image processor is CLIP's default. The tokenizer is then a placeholder of single
        letters, and `text` is refused.

        Args:
            feature_extractor (`UOVFeatureExtractor`): Points to voxels.
            teacher_name_or_path (`str`, *optional*): Folder or Hub id of a CLIP model.
            revision (`str`, *optional*): Branch, tag or commit on the Hub; the one that made the label set.
        """
        if teacher_name_or_path is None:
            return cls(feature_extractor, CLIPImageProcessorPil(), _letter_tokenizer())
        # The teacher's name may come from a foreign label set: its repository must not run code here.
        source = {"revision": revision, "trust_remote_code": False}
        image_processor = AutoImageProcessor.from_pretrained(teacher_name_or_path, **source, backend="pil")
        tokenizer = AutoTokenizer.from_pretrained(teacher_name_or_path, **source)
        return cls(feature_extractor, image_processor, tokenizer, has_text_tower=True)

    def __call__(
        self,
        points: Any = None,
        images: Any = None,
        text: str | list[str] | None = None,
        intensity_max: float | Sequence[float | None] | None = None,
        num_columns: int | None = None,
        **kwargs: Unpack[UOVProcessorKwargs],
    ) -> BatchFeature:
        """Make one batch of scans, of their images, of words, or of all three.

        Scans and images are concatenated, never padded; words are padded to the longest. The model takes the whole
        batch but for `pixel_values`, which are for the teacher.

        Args:
            points (array of shape `(num_points, 3 or more)`, path, or a list of them, *optional*):
                Scans: x, y, z in metres in the lidar frame, then the intensity as in the file.
            images (image, list of images, or list of such lists, *optional*):
                The image of one camera, those of the cameras of one scan, or of each scan of the batch, equally many.
            text (`str` or `list[str]`, *optional*): Words for the text tower.
            intensity_max (`float` or `list[float]`, *optional*): The sensor's full scale; see [`UOVFeatureExtractor`].
            num_columns (`int`, *optional*): Columns of `.bin` files, if they are not to be measured.
            return_tensors (`str`, *optional*, defaults to `"pt"`): `"pt"`, which the model reads, or `"np"`.
            images_kwargs, text_kwargs (`dict`, *optional*):
                Options of the image processor and of the tokenizer. Options of either may be passed by their names,
                such as `padding`.

        Returns:
            `BatchFeature`: For points: `voxel_coords`, `voxel_features`, `point_to_voxel`, `num_points`. For images:
            `pixel_values` of shape `(batch, num_cameras, 3, height, width)`. For text: `input_ids` and
            `attention_mask` of shape `(num_texts, longest)`.

        Raises:
            ValueError: Nothing is passed, or `text` without a text tower, or scans have different numbers of images.
            TypeError: An option is unknown.
        """
        if points is None and images is None and text is None:
            raise ValueError("`UOVProcessor` needs at least one of `points`, `images` and `text`.")
        self._check_options(kwargs)
        options = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        images_options, text_options = options["images_kwargs"], options["text_kwargs"]
        return_tensors = [own.pop("return_tensors", None) for own in (text_options, images_options)]
        batch = {}
        if points is not None:
            batch.update(self.feature_extractor(points, intensity_max, return_tensors="np", num_columns=num_columns))
        if images is not None:
            batch["pixel_values"] = self._pixel_values(images, **images_options)
        if text is not None:
            batch.update(self._tokenize(text, **text_options))
        return BatchFeature(batch, tensor_type=next(filter(None, return_tensors), "pt"))

    def _check_options(self, options: Mapping[str, object]) -> None:
        """Raise for options that `ProcessorMixin` would ignore with a warning."""
        image_options = getattr(self.image_processor, "valid_kwargs", ImagesKwargs)
        allowed = {"common_kwargs"}.union(
            *(kind.__annotations__ for kind in (UOVProcessorKwargs, TextKwargs, ImagesKwargs, image_options))
        )
        if unknown := sorted(set(options) - allowed):
            raise TypeError(
                f"`UOVProcessor` has no option {', '.join(unknown)}. Pass options of the tokenizer in `text_kwargs` "
                "and those of the image processor in `images_kwargs`."
            )

    def post_process_semantic_segmentation(
        self,
        class_scores: torch.Tensor,
        point_to_voxel: torch.Tensor,
        num_points: torch.Tensor | list[int] | None = None,
        per_voxel: bool = False,
        include_background: bool = False,
        ignored_index: int = IGNORED,
        refine: str | None = None,
        points: Any = None,
        label2id: dict[str, int] | None = None,
        top_k: int | None = None,
    ) -> list[PointSegmentation]:
        """Labels and scores of the original points of each scan.

        Args:
            class_scores (`torch.Tensor` of shape `(rows, C)`):
                Logits, such as those of [`UOVModel.class_scores`], of each point, or of each voxel with `per_voxel`.
            point_to_voxel (`torch.LongTensor` of shape `(num_points,)`):
                The voxel of each point; negative for a point outside the grid, which gets `ignored_index` and score 0.
            num_points (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Points of each scan; by default there is one scan.
            per_voxel (`bool`, *optional*, defaults to `False`):
                Whether rows are voxels. This is cheaper, because scores are compared once for each voxel.
            include_background (`bool`, *optional*, defaults to `False`):
                Whether the last column is background, which becomes `ignored_index`.
            ignored_index (`int`, *optional*, defaults to 255): The label of points without a class.
            refine (`"afi"`, *optional*):
                Refine the labels by approximate flat interaction with the settings `afi` of this processor, on the
                device of `class_scores`. Points outside the grid are ignored and get no label.
            points (array of shape `(num_points, 3 or more)`, or a list of them, *optional*):
                The scans as passed to the processor, or concatenated. Only for `refine`.
            label2id (`dict[str, int]`, *optional*): `model.config.label2id`. Only for a ground ring.
            top_k (`int`, *optional*): Number of best labels to return besides; all if there are fewer.

        Returns:
            `list[PointSegmentation]`: The labels of each scan, with the softmax probability of the label as score, or
            its share of the evidence after AFI.

        Raises:
            ValueError: Shapes or the number of rows do not fit, scores are NaN, or `points` are missing or do not fit.
        """
        check_array("class_scores", class_scores, ("num_rows", "1 or more"), "f")
        check_array("point_to_voxel", point_to_voxel, ("num_points",), "iu")
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        sizes = to_sizes(num_points, len(point_to_voxel), "point_to_voxel")
        point_to_voxel = point_to_voxel.cpu()  # each count and look-up would stop an accelerator
        self._check_rows(len(class_scores), point_to_voxel, per_voxel)
        if refine not in (None, "afi"):
            raise ValueError(f'`refine` must be "afi" or None, got {refine!r}.')
        in_grid = point_to_voxel >= 0
        kept = in_grid.nonzero().squeeze(1)
        rows = (point_to_voxel[kept] if per_voxel else kept).to(class_scores.device)
        probabilities = class_scores.float().softmax(dim=-1)  # (rows, C)
        if probabilities.isnan().any():
            raise ValueError(
                "`class_scores` must be logits that are no NaN and below infinity, got some that are not. Were the "
                "weights or the features of a voxel not finite?"
            )
        if refine == "afi":
            points = _concatenate(points, sizes)[kept]
            num_in_grid = [int(scan.sum()) for scan in in_grid.split(sizes)]
            probabilities = self._refine(points, probabilities[rows], num_in_grid, label2id)
            rows = torch.arange(len(rows), device=rows.device)
        kept = kept.to(class_scores.device)
        found = dict(zip(("scores", "segmentation"), probabilities.max(dim=-1), strict=True))  # (rows,)
        if top_k is not None:
            best = probabilities.sort(dim=-1, descending=True, stable=True)  # (rows, C)
            found |= {"top_scores": best.values[:, :top_k], "top_labels": best.indices[:, :top_k]}
        for name, values in found.items():
            is_label = name in ("segmentation", "top_labels")
            if is_label and include_background:
                values = values.masked_fill(values == class_scores.shape[1] - 1, ignored_index)
            of_points = values.new_full((len(point_to_voxel), *values.shape[1:]), ignored_index if is_label else 0)
            found[name] = of_points.index_copy(0, kept, values[rows])
        scans = zip(*(values.split(sizes) for values in found.values()), strict=True)
        return [PointSegmentation(**dict(zip(found, own, strict=True))) for own in scans]

    def _refine(
        self, points: torch.Tensor, probabilities: torch.Tensor, num_points: list[int], label2id: dict | None
    ) -> torch.Tensor:
        config, evidence = self.afi_settings(label2id)
        if evidence == "labels":
            probabilities = labels_to_scores(probabilities.argmax(dim=-1), probabilities.shape[1], ignore_index=-1)
        return approximate_flat_interaction(points, probabilities, config, num_points)

    def afi_settings(self, label2id: dict[str, int] | None) -> tuple[AFIConfig, str]:
        """The constants of AFI for these classes, and the kind of evidence.

        Raises:
            ValueError: A setting is unknown or out of range, or a ground ring names a class that is not among these.
        """
        settings = dict(self.afi)
        evidence = settings.pop("evidence", "labels")
        if evidence not in AFI_EVIDENCE:
            raise ValueError(f"`evidence` of `afi` must be one of {', '.join(AFI_EVIDENCE)}, got {evidence!r}.")
        return AFIConfig.from_dict(settings, label2id), evidence

    def _check_rows(self, num_rows: int, point_to_voxel: torch.Tensor, per_voxel: bool) -> None:
        if per_voxel and len(point_to_voxel) and num_rows <= point_to_voxel.max():
            raise ValueError(
                f"`class_scores` has {num_rows} rows, but `point_to_voxel` contains voxel {point_to_voxel.max()}. "
                "Pass the scores of all voxels."
            )
        if not per_voxel and num_rows != len(point_to_voxel):
            raise ValueError(
                f"`class_scores` must have one row for each of the {len(point_to_voxel)} points, got {num_rows}. "
                "If rows are voxels, pass `per_voxel=True`."
            )

    def _pixel_values(self, images: Any, **options: Any) -> np.ndarray:
        if not isinstance(images, (list, tuple)):
            images = list(images) if getattr(images, "ndim", None) == 4 else [images]
        scans = images if images and isinstance(images[0], (list, tuple)) else [images]
        num_cameras = {len(cameras) for cameras in scans}
        if len(num_cameras) > 1 or 0 in num_cameras:
            numbers = sorted(num_cameras)
            raise ValueError(f"`images` must have as many cameras for each scan, and at least one, got {numbers}.")
        flat = [image for cameras in scans for image in cameras]
        pixel_values = self.image_processor(flat, **options, return_tensors="np")["pixel_values"]
        return pixel_values.reshape(len(scans), -1, *pixel_values.shape[1:])  # (batch, num_cameras, 3, height, width)

    def _tokenize(self, text: str | list[str], **options: Any) -> BatchEncoding:
        if not self.has_text_tower:
            raise ValueError(
                "`text` cannot be processed: this checkpoint has no text tower, only baked prompts "
                "(`model.config.prompts`). Embed other words with its teacher and pass them to `model.set_classes`."
            )
        tokens = self.tokenizer([text] if isinstance(text, str) else list(text), **options)
        self.tokenizer("")  # a tokenizer keeps padding and truncation of its last call, and would save them
        return tokens


def _concatenate(points: Any, num_points: list[int]) -> torch.Tensor:
    """Positions `(num_points, 3)` of the points of all scans, on the CPU."""
    if points is None:
        raise ValueError("`refine` needs the `points` that were passed to the processor.")
    scans = [to_xyz(scan) for scan in (points if isinstance(points, (list, tuple)) else [points])]
    sizes = [len(scan) for scan in scans]
    if sizes not in (num_points, [sum(num_points)]):
        raise ValueError(f"`points` must be scans of {num_points} points, or all of them in one, got {sizes}.")
    return torch.cat(scans).cpu()


def _letter_tokenizer() -> CLIPTokenizer:
    letters = string.ascii_lowercase
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])
