"""GroupViT as a teacher: it groups patches into a few segments without words, and prompts label the groups."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import GroupViTModel

from uov_hf.teachers.checkpoints import dtype_name
from uov_hf.teachers.clip_space import DenseConfig
from uov_hf.teachers.config import check_sides
from uov_hf.teachers.images import WindowOutputs, run_on_windows
from uov_hf.teachers.pooling import segments_of_labels, upsampled_max
from uov_hf.teachers.prompts import TEMPLATES, embed_prompts
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images


class GroupViTTeacher(Teacher):
    """Any GroupViT of the Hub (Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision", CVPR 2022).

    Its groups are the segments, at most 8 in an image or window. A segment's embedding is the projection of its group
    token, which training put near the sentence of the image. Its label is its best prompt, its score the softmax
    probability of that prompt.

    `DenseConfig` has the settings. With a `window`, each window has its own groups, and where windows overlap a pixel
    goes to the group with the largest share of it. Groups below `min_score` are dropped: their pixels have no segment.
    """

    name = "groupvit"
    example = "nvidia/groupvit-gcc-yfcc"
    config_class = DenseConfig
    config: DenseConfig
    model: Any  # a GroupViTModel, whose config is annotated as possibly without a vision part

    def load(self) -> None:
        checkpoint = self.checkpoint()
        self.model = checkpoint.load(GroupViTModel)
        self.tokenizer = checkpoint.load_tokenizer()
        self.transform = checkpoint.load_transform()
        self.patch_size: int = self.model.config.vision_config.patch_size
        check_sides(self.patch_size, short_side=self.config.short_side, window=self.config.window)
        self.prompt_embeds = self._embed_prompts(self.prompts)  # (num_prompts, embed_dim)

    @property
    def embed_dim(self) -> int:
        return self.model.config.projection_dim

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"dtype": dtype_name(self.dtype)}

    def encode_prompts(self, prompts: list[str]) -> np.ndarray:
        return self._embed_prompts(prompts).cpu().numpy()

    def _embed_prompts(self, prompts: list[str]) -> Tensor:
        return embed_prompts(self.model, self.tokenizer, prompts, TEMPLATES[self.config.templates])

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        images, config = open_images(frame), self.config
        pixel_values = [self.transform.in_patches(image, config.short_side, self.patch_size) for image in images]
        outputs = run_on_windows(self._groups, pixel_values, self.patch_size, config.window, config.batch_size)
        return [self._segments(image.size, of_image) for image, of_image in zip(images, outputs, strict=True)]

    def _groups(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each image, embeddings `(G, embed_dim)` of its groups and their shares `(G, h, w)` of each patch."""
        vision = self.model.vision_model
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        hidden = vision.embeddings(pixel_values.to(self.device, self.dtype), interpolate_pos_encoding=True)
        encoded = vision.encoder(hidden, output_attentions=True, return_dict=True)
        tokens = vision.layernorm(encoded.last_hidden_state)  # (batch, G, hidden_size)
        embeds = self.model.visual_projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        shares = encoded.attentions[0].float()  # (batch, groups of the first stage, h * w)
        for attention in encoded.attentions[1:]:
            shares = attention.float() @ shares  # (batch, groups of the next stage, h * w)
        return list(zip(normalize(embeds.float(), dim=-1), shares.unflatten(2, (h, w)), strict=True))

    def _segments(self, image_size: tuple[int, int], of_image: WindowOutputs[tuple[Tensor, Tensor]]) -> ImageSegments:
        embeds = torch.cat([embeds_of_window for embeds_of_window, _ in of_image.outputs])  # (num_groups, embed_dim)
        num_windows = len(of_image.windows)
        shares = embeds.new_zeros(num_windows, len(embeds) // num_windows, *of_image.grid)
        for all_shares, window, (_, shares_of_window) in zip(shares, of_image.windows, of_image.outputs, strict=True):
            all_shares[window.of] = shares_of_window
        _, best = upsampled_max(shares.flatten(0, 1), image_size)  # (height, width)
        logits = self.model.logit_scale.float().exp() * embeds @ self.prompt_embeds.T
        scores, labels = logits.softmax(dim=-1).max(dim=-1)  # (num_groups,)
        segmentation, kept = segments_of_labels(best, keep=(scores >= self.config.min_score)[best])
        return ImageSegments.from_tensors(segmentation, labels[kept], scores[kept], embeds[kept])
