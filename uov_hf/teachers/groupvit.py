"""GroupViT as a teacher: it groups patches into a few segments without words, and prompts label the groups."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import GroupViTModel

from uov_hf.teachers.clip_space import OwnSpaceTeacher, TextSpace
from uov_hf.teachers.images import WindowOutputs
from uov_hf.teachers.pooling import segments_of_labels, upsampled_max
from uov_hf.teachers.protocol import ImageSegments, TeacherFrame, open_images


class GroupViTSpace(TextSpace):
    """Any GroupViT: the projections of its group tokens lie near words."""

    model_class = GroupViTModel

    def groups(self, pixel_values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each image, embeddings `(G, embed_dim)` of its groups and their shares `(G, h, w)` of each patch."""
        vision = self.model.vision_model
        h, w = (side // self.patch_size for side in pixel_values.shape[2:])
        pixel_values = pixel_values.to(self.model.device, self.model.dtype)
        hidden = vision.embeddings(pixel_values, interpolate_pos_encoding=True)
        encoded = vision.encoder(hidden, output_attentions=True, return_dict=True)
        tokens = vision.layernorm(encoded.last_hidden_state)  # (batch, G, hidden_size)
        embeds = self.model.visual_projection(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        shares = encoded.attentions[0].float()  # (batch, groups of the first stage, h * w)
        for attention in encoded.attentions[1:]:
            shares = attention.float() @ shares  # (batch, groups of the next stage, h * w)
        return list(zip(normalize(embeds.float(), dim=-1), shares.unflatten(2, (h, w)), strict=True))


class GroupViTTeacher(OwnSpaceTeacher):
    """Any GroupViT of the Hub (Xu et al., "GroupViT: Semantic Segmentation Emerges from Text Supervision", CVPR 2022).

    Its groups are the segments, at most 8 in an image or window. A segment's embedding is the projection of its group
    token, which training put near the sentence of the image. Its label is its best prompt, its score the softmax
    probability of that prompt.

    `DenseConfig` has the settings. With a `window`, each window has its own groups, and where windows overlap a pixel
    goes to the group with the largest share of it. Groups below `min_score` are dropped: their pixels have no segment.
    """

    name = "groupvit"
    example = "nvidia/groupvit-gcc-yfcc"
    space_class = GroupViTSpace
    space: GroupViTSpace

    @torch.inference_mode()
    def segment(self, frame: TeacherFrame) -> list[ImageSegments]:
        images = open_images(frame)
        outputs = self.space.run(self.space.groups, images)
        return [self._segments(image.size, of_image) for image, of_image in zip(images, outputs, strict=True)]

    def _segments(self, image_size: tuple[int, int], of_image: WindowOutputs[tuple[Tensor, Tensor]]) -> ImageSegments:
        embeds = torch.cat([embeds_of_window for embeds_of_window, _ in of_image.outputs])  # (num_groups, embed_dim)
        num_windows = len(of_image.windows)
        shares = embeds.new_zeros(num_windows, len(embeds) // num_windows, *of_image.grid)
        for all_shares, window, (_, shares_of_window) in zip(shares, of_image.windows, of_image.outputs, strict=True):
            all_shares[window.of] = shares_of_window
        _, best = upsampled_max(shares.flatten(0, 1), image_size)  # (height, width)
        labels, scores = self.space.classify(embeds, self.prompt_embeds)  # (num_groups,)
        segmentation, kept = segments_of_labels(best, keep=(scores >= self.config.min_score)[best])
        return ImageSegments.from_tensors(segmentation, labels[kept], scores[kept], embeds[kept])
