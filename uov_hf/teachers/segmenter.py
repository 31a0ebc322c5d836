"""Semantic segmenters of `transformers` with a closed list of labels: label, score and features of each pixel."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    AutoImageProcessor,
    PreTrainedModel,
)
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.utils import ModelOutput

from uov_hf.teachers.checkpoints import Checkpoint
from uov_hf.teachers.images import ScaledImage
from uov_hf.teachers.label_space import LabelSpace, Piece


# Those of `MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING` that need nothing but the image: OneFormer needs a task as text.
QUERY_MODELS = ("eomt", "eomt_dinov3", "mask2former", "maskformer")
# Their processors pad each image where `do_pad` is set; those of Mask2Former pad batches, and the others ignore it.
PADDING_MODELS = ("dpt", "eomt", "eomt_dinov3")
WHOLE_IMAGE = (slice(None), slice(None))


@dataclass(frozen=True)
class Prediction:
    """What a segmenter predicts for one image; `pieces` are its features."""

    labels: Tensor  # (height, width), int64: row of `Segmenter.labels`
    scores: Tensor  # (height, width), float32, 0…1
    pieces: list[Piece]


class Segmenter:
    """A model for semantic segmentation with its image processor, whose post-processing decides the labels.

    Args:
        checkpoint (`Checkpoint`): The weights.

    Raises:
        ValueError: the model is of another kind, or its image processor pads images.
    """

    model: Any  # its classes share no interface of their own
    processor: Any

    def __init__(self, checkpoint: Checkpoint):
        config = checkpoint.load_config()
        self.labels = labels_of(config)
        self.has_queries: bool = config.model_type in QUERY_MODELS
        self.model = checkpoint.load(find_model_class(config, checkpoint.name_or_path))
        self.processor = load_image_processor(checkpoint, config.model_type)

    def label_space(self) -> LabelSpace:
        """The space of the model's last features and its labels."""
        num_labels = len(self.labels)
        return LabelSpace(self.model, num_labels + self.has_queries, num_labels)  # a query may be "no object"

    def predict(self, image: ScaledImage, space: LabelSpace | None = None) -> Prediction:
        """Segment an image, with its features in `space` where that is given."""
        inputs = self.processor(image.pixels, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        if space is None:
            outputs = in_float32(self.model(**inputs))
            return Prediction(*self._best_labels(outputs, image.size), [])
        with space.record() as features:
            outputs = in_float32(self.model(**inputs))
        # Models with queries run their last layer after several blocks: the last run is the prediction.
        return Prediction(*self._best_labels(outputs, image.size), self._pieces(outputs, features[-1], image.size))

    def _best_labels(self, outputs: ModelOutput, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Label and score of each pixel, both `(height, width)`."""
        [found] = self.processor.post_process_semantic_segmentation(
            outputs, target_sizes=[image_size], return_segmentation_scores=True
        )
        values = found.segmentation_scores  # (num_labels, height, width)
        best = values.amax(dim=0)
        scores = best.clamp(max=1) if self.has_queries else (best - values.logsumexp(dim=0)).exp()
        return found.segmentation, scores

    def _pieces(self, outputs: ModelOutput, features: Tensor, image_size: tuple[int, int]) -> list[Piece]:
        """The features of an image; EoMT cuts it into several squares."""
        if not self.has_queries:
            return [Piece(WHOLE_IMAGE, features[0])]
        objectness = 1 - outputs["class_queries_logits"].softmax(dim=-1)[..., -1]  # (pieces, Q)
        maps = objectness[..., None, None] * outputs["masks_queries_logits"].sigmoid()
        areas = [self._area(int(start), int(end), image_size) for _, start, end in outputs.get("patch_offsets") or ()]
        return [Piece(*piece) for piece in zip(areas or [WHOLE_IMAGE], maps, features, strict=True)]

    def _area(self, start: int, end: int, image_size: tuple[int, int]) -> tuple[slice, slice]:
        """The part of an image in columns (of a high image: rows) `start` to `end` after EoMT's resizing."""
        size = self.processor.size
        resized = get_size_with_aspect_ratio(image_size, size["shortest_edge"], size["longest_edge"])
        along = int(image_size[0] <= image_size[1])
        scale = image_size[along] / resized[along]
        part = slice(round(start * scale), round(end * scale))
        return (slice(None), part) if along else (part, slice(None))


def labels_of(config: Any) -> list[str]:
    """The labels of a model, in the order of their ids."""
    return [label.strip() for _, label in sorted(config.id2label.items())]


def find_model_class(config: Any, name: str) -> type[PreTrainedModel]:
    """The class of a semantic segmenter with this configuration.

    Raises:
        ValueError: the model is of another kind.
    """
    mapping: Any = MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    if config.model_type in QUERY_MODELS:
        mapping = MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING
    if type(config) not in mapping:
        known = sorted({kind.model_type for kind in mapping} | {*QUERY_MODELS})
        raise ValueError(
            f"{name} is a model of type {config.model_type!r}, expected a semantic segmenter: {', '.join(known)}."
        )
    return mapping[type(config)]


def load_image_processor(checkpoint: Checkpoint, model_type: str) -> Any:
    """The image processor of a segmenter, such that its maps cover images edge to edge.

    Raises:
        ValueError: it pads images.
    """
    processor: Any = AutoImageProcessor.from_pretrained(
        checkpoint.name_or_path, revision=checkpoint.branch, backend="pil", trust_remote_code=False
    )
    # The post-processing of transformers stretches the map of a cropped or padded image to the size of the whole one.
    if getattr(processor, "do_center_crop", False):
        processor.do_center_crop = False
    if model_type in PADDING_MODELS and getattr(processor, "do_pad", False):
        raise ValueError(
            f"The image processor of {checkpoint.name_or_path} pads images, as those for panoptic segmentation do: "
            "labels would be displaced. Give a checkpoint for semantic segmentation, or use --teacher eomt."
        )
    return processor


def in_float32(outputs: ModelOutput) -> ModelOutput:
    """The outputs with tensors in float32, so that upsampling does not depend on the model's precision."""
    return type(outputs)(
        **{name: value.float() if isinstance(value, torch.Tensor) else value for name, value in outputs.items()}
    )
