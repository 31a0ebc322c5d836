"""Tiny random models of the real architectures, and the teachers made of them. Nothing is downloaded.

Each `save_…` function saves a model to a folder, with its processor and tokenizer, and returns the folder.
"""

import io
import runpy
import string
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_segmenters import DETECTOR, SWIN, save_random, save_tiny_eomt, save_tiny_mask2former
from torch.nn.functional import interpolate
from transformers import (
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroupViTConfig,
    GroupViTModel,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Sam2Config,
    Sam2Model,
    Sam3Config,
    Sam3Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Tipsv2Config,
    Tipsv2Model,
    Tipsv2Tokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from uov_hf.teachers import ImageSegments, Teacher, load_teacher


EXAMPLES = Path(__file__).parents[2] / "examples"
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
CHARACTERS = [character for character in string.printable if not character.isspace() and not character.isupper()]
SAM_DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def save_tiny_clip(folder: Path) -> str:
    runpy.run_path(str(EXAMPLES / "make_tiny_clip.py"))["save_tiny_clip"](str(folder), projection_dim=32)
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
    return save_random(Tipsv2Model(config), folder, wide_tokens=True)


def save_tiny_groupvit(folder: Path) -> str:
    text, vision = clip_text_config(), {**TOWER, "image_size": 64, "patch_size": 16}
    groups = {"depths": [1, 1, 1], "num_group_tokens": [6, 4, 0], "num_output_groups": [6, 4, 0]}
    config = GroupViTConfig(
        text_config=text, vision_config=vision | groups, projection_dim=16, projection_intermediate_dim=32
    )
    CLIPImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False).save_pretrained(folder)
    return save_random(GroupViTModel(config), save_tokenizer(folder), wide_tokens=True)


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
    save_square_processor(folder, 64)
    return save_random(CLIPSegForImageSegmentation(config), save_tokenizer(folder), wide_tokens=True)


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


def save_tiny_sam2(folder: Path) -> str:
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 2, 2],
        "global_attention_blocks": [3],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
    save_square_processor(folder, 64)
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=SAM_DECODER)
    return save_random(Sam2Model(config), folder)


def save_tiny_sam3_tracker(folder: Path) -> str:
    prompts = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    save_square_processor(folder, 56)
    config = Sam3TrackerConfig(
        vision_config=sam3_vision_config(), prompt_encoder_config=prompts, mask_decoder_config=SAM_DECODER
    )
    return save_random(Sam3TrackerModel(config), folder)


def save_tiny_sam3(folder: Path) -> str:
    layers = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = clip_text_config() | {"max_position_embeddings": 32, "projection_dim": 16, "model_type": "clip_text_model"}
    config = Sam3Config(
        vision_config=sam3_vision_config(),
        text_config=text,
        geometry_encoder_config=layers,
        detr_encoder_config=layers,
        detr_decoder_config=layers | {"num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    save_square_processor(folder, 56)
    return save_random(Sam3Model(config), save_tokenizer(folder))


def sam3_vision_config() -> dict:
    """A grid of 4 × 4 patches, and the four levels that SAM 3's neck makes of it."""
    backbone = {
        **TOWER,
        "model_type": "sam3_vit_model",
        "image_size": 56,
        "patch_size": 14,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [2],
    }
    sizes = [[16, 16], [8, 8], [4, 4]]
    return {"backbone_config": backbone, "fpn_hidden_size": 32, "backbone_feature_sizes": sizes}


def save_tiny_owlv2(folder: Path) -> str:
    config = Owlv2Config(
        text_config=clip_text_config() | {"max_position_embeddings": 16},
        vision_config={**TOWER, "image_size": 64, "patch_size": 16},
        projection_dim=TOWER["hidden_size"],
    )
    Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return save_random(Owlv2ForObjectDetection(config), save_tokenizer(folder))


def save_tiny_grounding_dino(folder: Path) -> str:
    config = GroundingDinoConfig(
        backbone_config=SWIN | {"out_indices": [2, 3, 4], "image_size": 64},
        text_config={**TOWER, "model_type": "bert", "num_hidden_layers": 1, "vocab_size": 1100},
        d_model=64,  # two channels in each of its 32 groups: a group of one value cannot be normalised
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=48,
        **DETECTOR,
    )
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return save_random(GroundingDinoForObjectDetection(config), folder)


def bert_tokenizer() -> BertTokenizer:
    """BERT's, of single characters; what Grounding DINO takes for the ends of phrases has the ids that it expects."""
    tokens = {f"[unused{index}]": index for index in range(1100)}
    special = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
    others = [character for character in CHARACTERS if character not in ".?"]
    letters = {token: 200 + index for index, token in enumerate([*others, *(f"##{c}" for c in others)])}
    taken = {**special, **letters}
    unused = {token: index for token, index in tokens.items() if index not in taken.values()}
    return BertTokenizer(vocab=dict(sorted({**unused, **taken}.items(), key=lambda entry: entry[1])))


def save_square_processor(folder: Path, side: int) -> None:
    """What the processors of SAM 2 and 3 write, which need torchvision."""
    ViTImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)


PROMPTS = ["car", "A person on a bicycle.", "road", "sky", "tree", "rolling hills (< 20 cm tall)"]
SIDE_64 = {"short_side": 64, "templates": "photo"}
GRID = {"points_per_side": 2, "min_quality": 0, "min_stability": 0, "max_overlap": 1, "min_visible": 0.1}
FURTHER_MODELS = {"embed": save_tiny_clip, "sam": save_tiny_sam2}
EMBED = {"embed_short_side": 64, "templates": "photo"}

# teacher -> its model, its further models, and settings that let predictions of random weights through
TINY_TEACHERS = {
    "clip": (save_tiny_clip, [], SIDE_64),
    "tipsv2": (save_tiny_tipsv2, [], SIDE_64),
    "groupvit": (save_tiny_groupvit, [], SIDE_64),
    "clipseg": (save_tiny_clipseg, ["embed"], SIDE_64 | EMBED),
    "sam2": (save_tiny_sam2, ["embed"], GRID | EMBED),
    "sam3_points": (save_tiny_sam3_tracker, ["embed"], GRID | EMBED),
    "mask2former": (save_tiny_mask2former, ["embed"], {"min_objectness": 0, "min_visible": 0.1} | EMBED),
    "eomt": (save_tiny_eomt, ["embed"], {"min_objectness": 0, "min_visible": 0.1} | EMBED),
    "sam3": (save_tiny_sam3, ["embed"], {"min_score": 0.2, "phrases_at_once": 4, "min_visible": 0.1} | EMBED),
    "owlv2": (save_tiny_owlv2, ["sam"], {"min_score": 0, "max_overlap": 0.9, "min_visible": 0.1}),
    "grounding_dino": (
        save_tiny_grounding_dino,
        ["embed", "sam"],
        {"min_score": 0, "max_overlap": 0.9, "min_visible": 0.1} | EMBED,
    ),
}


def load_tiny_teacher(name: str, folder: Path, prompts: list[str] = PROMPTS, **changes) -> Teacher:
    """A teacher with tiny models, which are saved to `folder` on first use."""
    save_model, further, settings = TINY_TEACHERS[name]
    sources = {f"{role}_model_name_or_path": saved(FURTHER_MODELS[role], folder) for role in further}
    arguments = {"model_name_or_path": saved(save_model, folder)} | settings | sources
    return load_teacher(name, prompts=prompts, **arguments | changes)


def saved(save_model, folder: Path) -> str:
    """The folder of a tiny model inside `folder`, saved on first use."""
    path = folder / save_model.__name__
    if not path.exists():
        path.mkdir(parents=True)
        save_model(path)
    return str(path)


def draw_images(*sizes: tuple[int, int]) -> list[Image.Image]:
    """Images (height, width) of coloured stripes and noise."""
    generator = np.random.default_rng(0)
    images = []
    for height, width in sizes:
        pixels = generator.integers(0, 256, (height, width, 3)) // 8
        pixels[:, : width // 3, 0] += 200
        pixels[height // 2 :, :, 1] += 150
        images.append(Image.fromarray(pixels.astype(np.uint8)))
    return images


def frame_of(*images: Image.Image) -> dict:
    """A frame with a camera for each image."""
    encoded = []
    for image in images:
        content = io.BytesIO()
        image.save(content, "PNG")
        encoded.append({"bytes": content.getvalue(), "path": None})
    return {"frame_id": "7", "camera_names": [f"CAM_{i}" for i in range(len(images))], "images": encoded}


def labels_of_pixels(segments: ImageSegments) -> np.ndarray:
    """The label of each pixel, -1 = none."""
    return np.append(segments.labels, -1)[segments.segmentation - 1]


def upsampled(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps `(channels, h, w)` at `size` (height, width)."""
    return interpolate(values[None], size=size, mode="bilinear")[0]


def overlap_of(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return width * height / max(sum(areas) - width * height, 1e-9)
