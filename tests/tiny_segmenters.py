"""Tiny random closed-set segmenters of the real architectures, with the labels of Cityscapes."""

from pathlib import Path

import torch
from transformers import (
    ConvNextConfig,
    EomtConfig,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MobileViTConfig,
    MobileViTForSemanticSegmentation,
    PreTrainedConfig,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil


DETECTOR = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 6}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
CITYSCAPES = [
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
]  # fmt: skip


def labelled(labels: list[str]) -> dict[str, dict]:
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def build(kind: type[PreTrainedModel], config: PreTrainedConfig) -> PreTrainedModel:
    """The same model in every run; `save_random` draws matrices anew, but not vectors."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(config)


def save_tiny_segformer(folder: Path, labels: list[str] = CITYSCAPES) -> str:
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=24,
        **labelled(labels),
    )  # fmt: skip
    SegformerImageProcessorPil(size={"height": 64, "width": 96}).save_pretrained(folder)
    return save_random(build(SegformerForSemanticSegmentation, config), folder)


def save_tiny_upernet(folder: Path) -> str:
    backbone = ConvNextConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=24, auxiliary_channels=8, auxiliary_in_channels=16, pool_scales=[1, 2],
        auxiliary_loss_weight=0.4, **labelled(CITYSCAPES),
    )  # fmt: skip
    SegformerImageProcessorPil(size={"height": 64, "width": 96}).save_pretrained(folder)
    return save_random(build(UperNetForSemanticSegmentation, config), folder)


def save_tiny_mobilevit(folder: Path) -> str:
    """Its image processor crops images to their middle."""
    config = MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_attention_heads=2,
        aspp_out_channels=8, atrous_rates=[1, 2, 3], **labelled(CITYSCAPES),
    )  # fmt: skip
    crop = {"height": 64, "width": 64}
    MobileViTImageProcessorPil(size={"shortest_edge": 72}, crop_size=crop).save_pretrained(folder)
    return save_random(build(MobileViTForSemanticSegmentation, config), folder)


def save_tiny_mask2former(folder: Path) -> str:
    config = Mask2FormerConfig(
        backbone_config=SWIN | {"out_features": ["stage1", "stage2", "stage3", "stage4"], "image_size": 64},
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16, dim_feedforward=16,
        num_attention_heads=2, **labelled(CITYSCAPES), **DETECTOR,
    )  # fmt: skip
    Mask2FormerImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)
    return save_random(build(Mask2FormerForUniversalSegmentation, config), folder)


def save_tiny_eomt(folder: Path, cut_into_squares: bool = False) -> str:
    """Those for semantic segmentation cut an image into squares; the others pad it."""
    config = EomtConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=16, num_blocks=1,
        num_queries=6, **labelled(CITYSCAPES),
    )  # fmt: skip
    model = build(EomtForUniversalSegmentation, config)
    model.attn_mask_probs.zero_()  # as training leaves it: queries are not masked
    size = {"shortest_edge": 64, "longest_edge": None if cut_into_squares else 64}
    EomtImageProcessorPil(size=size, do_split_image=cut_into_squares).save_pretrained(folder)
    return save_random(model, folder)


def save_tiny_cutting_eomt(folder: Path) -> str:
    return save_tiny_eomt(folder, cut_into_squares=True)


def save_random(model: PreTrainedModel, folder: Path, wide_tokens: bool = False) -> str:
    """With every matrix drawn anew, so that predictions differ: many start as zeros or nearly so."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                is_token = wide_tokens and parameter.ndim == 3 and "conv" not in name and "patch" not in name
                fan_in = 4 if is_token else parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    model.save_pretrained(folder)
    return str(folder)


SEGMENTERS = {
    "segformer": save_tiny_segformer,
    "upernet": save_tiny_upernet,
    "mask2former": save_tiny_mask2former,
    "eomt": save_tiny_cutting_eomt,
}
