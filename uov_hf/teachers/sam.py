"""SAM 2, and SAM 3's tracker, at given points and boxes: an image is encoded once, however many there are."""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from transformers import Sam2Model, Sam3TrackerModel

from uov_hf.teachers.images import PixelTransform
from uov_hf.teachers.weights import commit_of, load_frozen


PROMPTS_AT_ONCE = 64  # what callers hand over at once, as SAM's generator does


class SegmentAnything:
    """
    A frozen SAM. Points and boxes are given in parts of the picture, 0…1: the model sees every picture as a square.

    Args:
        model_class (`type`):
            `Sam2Model` or `Sam3TrackerModel`.
        model_name_or_path, revision, device, dtype:
            See `Teacher`; `commit` is what `revision` stood for when the model was loaded.
    """

    def __init__(
        self,
        model_class: type[Sam2Model] | type[Sam3TrackerModel],
        model_name_or_path: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.commit = commit_of(model_name_or_path, revision)
        self.model = load_frozen(model_class, model_name_or_path, self.commit, device, dtype)
        self.transform = PixelTransform.from_pretrained(model_name_or_path, self.commit)
        self.side = self.model.prompt_encoder.input_image_size

    def pixels(self, image: Image.Image) -> Tensor:
        """`(3, side, side)`, proportions not kept, as both models were trained"""
        return self.transform(image, (self.side, self.side))

    def encode(self, images: list[Image.Image], batch_size: int) -> Iterator[list[Tensor]]:
        """For each RGB image what the mask decoder reads: maps `(1, channels, h, w)`, finest first."""
        for start in range(0, len(images), batch_size):
            maps = self._encode(torch.stack([self.pixels(image) for image in images[start : start + batch_size]]))
            yield from ([features[i : i + 1] for features in maps] for i in range(len(maps[0])))

    def _encode(self, pixel_values: Tensor) -> list[Tensor]:
        levels = self.model.get_image_features(pixel_values.to(self.model.device, self.model.dtype), return_dict=True)
        # SAM 3's encoder has a fourth, coarser level that its decoder does not read. transformers 5.23 adds the
        # embedding of "no memory" to it instead of to the third, where the authors' `sam1_task_predictor.py` has it.
        maps = [
            features.permute(1, 2, 0).unflatten(2, tuple(size))
            for features, size in zip(levels.fpn_hidden_states, self.model.backbone_feature_sizes, strict=False)
        ]
        maps[-1] = maps[-1] + self.model.no_memory_embedding.view(1, -1, 1, 1)
        return maps

    def masks_at_points(self, encoded: list[Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits `(3 * P, h, w)`, three of each, and predicted qualities at points `(P, 2)`: column, row."""
        return self._decode(encoded, input_points=(points * self.side)[None, :, None])

    def masks_in_boxes(self, encoded: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits `(N, h, w)` and predicted qualities `(N,)` in boxes `(N, 4)`: left, top, right, bottom."""
        return self._decode(encoded, input_boxes=(boxes * self.side)[None], multimask_output=False)

    def _decode(self, encoded: list[Tensor], multimask_output: bool = True, **prompts: Tensor):
        prompts = {name: prompt.to(self.model.device) for name, prompt in prompts.items()}
        outputs = self.model(image_embeddings=encoded, multimask_output=multimask_output, **prompts)
        return outputs.pred_masks[0].flatten(0, 1).float(), outputs.iou_scores[0].flatten().float()
