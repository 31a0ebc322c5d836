"""Tiny random models of the real architectures, each saved to a folder with its processor and tokenizer.

They know nothing, and nothing is downloaded. Each function takes the folder and returns it.
"""

import runpy
import string
from functools import cache
from pathlib import Path

import torch
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTokenizer,
    GroupViTConfig,
    GroupViTModel,
    PreTrainedModel,
    Tipsv2Config,
    Tipsv2Model,
    Tipsv2Tokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil


EXAMPLES = Path(__file__).parents[2] / "examples"
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
CHARACTERS = [character for character in string.printable if not character.isspace() and not character.isupper()]


def save_tiny_clip(folder: Path) -> str:
    _clip_example()["save_tiny_clip"](str(folder), projection_dim=32)
    return str(folder)


def save_tiny_tipsv2(folder: Path) -> str:
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<unk>", "▁", *CHARACTERS])}
    config = Tipsv2Config(
        text_config={**TOWER, "vocab_size": len(vocabulary)},
        vision_config={**TOWER, "mlp_ratio": 2, "image_size": 56, "patch_size": 14},
    )
    Tipsv2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    # Its own image processor needs torchvision: this is the file that it writes.
    processor = {"size": {"height": 56, "width": 56}, "resample": 2, "do_normalize": False, "rescale_factor": 1 / 255}
    ViTImageProcessorPil(**processor).save_pretrained(folder)
    return _save(Tipsv2Model(config), folder)


def save_tiny_groupvit(folder: Path) -> str:
    text, vision = clip_text_config(), {**TOWER, "image_size": 64, "patch_size": 16}
    groups = {"depths": [1, 1, 1], "num_group_tokens": [6, 4, 0], "num_output_groups": [6, 4, 0]}
    config = GroupViTConfig(
        text_config=text, vision_config=vision | groups, projection_dim=16, projection_intermediate_dim=32
    )
    CLIPImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False).save_pretrained(folder)
    return _save(GroupViTModel(config), save_tokenizer(folder))


def save_tiny_clipseg(folder: Path) -> str:
    config = CLIPSegConfig(
        text_config=clip_text_config(),
        vision_config={**TOWER, "image_size": 64, "patch_size": 16},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return _save(CLIPSegForImageSegmentation(config), save_tokenizer(folder))


def clip_text_config() -> dict:
    """A tiny text tower for the tokenizer of `save_tokenizer`."""
    vocabulary = clip_tokenizer().get_vocab()
    ends = {"bos_token_id": "<|startoftext|>", "eos_token_id": "<|endoftext|>", "pad_token_id": "<|endoftext|>"}
    special = {name: vocabulary[token] for name, token in ends.items()}
    return {**TOWER, **special, "vocab_size": len(vocabulary), "max_position_embeddings": 77}


def save_tokenizer(folder: Path) -> Path:
    clip_tokenizer().save_pretrained(folder)
    return folder


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's, of single characters."""
    tokens = [*CHARACTERS, *(f"{character}</w>" for character in CHARACTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[])


@cache
def _clip_example() -> dict:
    return runpy.run_path(str(EXAMPLES / "make_tiny_clip.py"))


def _save(model: PreTrainedModel, folder: Path) -> str:
    """With every weight drawn anew, wide enough that patches and words differ: many start as zeros or nearly so."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel() if parameter.ndim < 3 or "conv" in name or "patch" in name else 4
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    model.save_pretrained(folder)
    return str(folder)
