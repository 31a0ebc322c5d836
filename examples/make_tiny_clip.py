"""Save a tiny random CLIP, to try all stages from images to a checkpoint without a download.

    python examples/make_tiny_clip.py --output_dir out/tiny_clip
    accelerate launch examples/generate_label_set.py --teacher clip --teacher_model_name_or_path out/tiny_clip ...

It is untrained. Its segments follow the colours and edges of the images all the same, because random features do.
"""

import argparse
import string

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def save_tiny_clip(output_dir: str, projection_dim: int = 64, seed: int = 0) -> None:
    """A CLIP of three narrow layers with a tokenizer of single characters, at `output_dir`."""
    characters = [character for character in string.printable if not character.isspace() and not character.isupper()]
    tokens = [*characters, *(f"{character}</w>" for character in characters), BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    special = {"bos_token_id": vocabulary[BOS], "eos_token_id": vocabulary[EOS], "pad_token_id": vocabulary[EOS]}
    config = CLIPConfig(
        text_config={**tower, **special, "vocab_size": len(vocabulary), "max_position_embeddings": 77},
        vision_config={**tower, "image_size": 64, "patch_size": 16},
        projection_dim=projection_dim,
    )
    torch.manual_seed(seed)
    CLIPModel(config).save_pretrained(output_dir)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(output_dir)
    CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        output_dir
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="out/tiny_clip")
    parser.add_argument("--projection_dim", type=int, default=64, help="Dimension of the space of images and words.")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    save_tiny_clip(args.output_dir, args.projection_dim, args.seed)
    print(f"Saved a tiny random CLIP to {args.output_dir}")


if __name__ == "__main__":
    main()
