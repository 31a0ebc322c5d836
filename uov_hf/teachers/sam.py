"""SAM 2 and SAM 3's tracker, prompted with points and boxes; each image is encoded once for all its prompts."""

from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model, Sam3TrackerModel

from uov_hf.teachers.checkpoints import Checkpoint


PROMPTS_AT_ONCE = 64  # points or boxes in one call, as in SAM's generator


class SegmentAnything:
    """A frozen SAM. Points and boxes are fractions of the image, 0…1: the model resizes every image to a square.

    Args:
        model_class (`type`): `Sam2Model` or `Sam3TrackerModel`.
        checkpoint (`Checkpoint`): The weights.
    """

    model: Any  # of `model_class`: the two share no interface of their own

    def __init__(self, model_class: type[Sam2Model] | type[Sam3TrackerModel], checkpoint: Checkpoint):
        self.commit = checkpoint.revision
        self.model = checkpoint.load(model_class)
        self.transform = checkpoint.load_transform()
        self.side: int = self.model.prompt_encoder.input_image_size

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, proportions not kept, as in the training of both models."""
        return self.transform(image, (self.side, self.side))

    def encode(self, images: list[Image.Image], batch_size: int) -> Iterator[list[Tensor]]:
        """Inputs of the mask decoder for each RGB image: maps `(1, channels, h, w)`, finest first."""
        for start in range(0, len(images), batch_size):
            maps = self._encode(torch.stack([self.pixels(image) for image in images[start : start + batch_size]]))
            yield from ([features[i : i + 1] for features in maps] for i in range(len(maps[0])))

    def _encode(self, pixel_values: Tensor) -> list[Tensor]:
        levels = self.model.get_image_features(pixel_values.to(self.model.device, self.model.dtype), return_dict=True)
        # SAM 3's encoder has a fourth, coarser level, which its decoder does not read. transformers 5.23 adds the
        # embedding of "no memory" to it instead of to the third, where the authors' `sam1_task_predictor.py` has it.
        maps = [
            features.permute(1, 2, 0).unflatten(2, tuple(size))
            for features, size in zip(levels.fpn_hidden_states, self.model.backbone_feature_sizes, strict=False)
        ]
        maps[-1] = maps[-1] + self.model.no_memory_embedding.view(1, -1, 1, 1)
        return maps

    def masks_at_points(self, encoded: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """Three mask logits `(3 * P, h, w)` and predicted qualities for each point (column, row) of `(P, 2)`."""
        return self._decode(encoded, input_points=(points * self.side)[None, :, None])

    def masks_in_boxes(self, encoded: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits `(N, h, w)` and predicted qualities `(N,)` in boxes `(N, 4)`: left, top, right, bottom."""
        return self._decode(encoded, input_boxes=(boxes * self.side)[None], multimask_output=False)

    def _decode(
        self, encoded: list[Tensor], multimask_output: bool = True, **prompts: Tensor
    ) -> tuple[Tensor, Tensor]:
        prompts = {name: prompt.to(self.model.device) for name, prompt in prompts.items()}
        outputs = self.model(image_embeddings=encoded, multimask_output=multimask_output, **prompts)
        return outputs.pred_masks[0].flatten(0, 1).float(), outputs.iou_scores[0].flatten().float()
