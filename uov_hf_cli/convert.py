"""Convert an official UOV/AFOV or SLidR checkpoint.

examples:
  uov-hf convert AFOV_pretrain_san.pt --output_dir afov-tmp-san --label_set labels/
"""

import argparse
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="the official .pt, or a Lightning .ckpt")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the new checkpoint")
    parser.add_argument(
        "--label_set", type=Path, help="label set of the same teacher; the checkpoint gets its prompts"
    )


def run(args: argparse.Namespace) -> Iterable[str]:
    from uov_hf.convert import convert_checkpoint

    done = convert_checkpoint(args.checkpoint, args.output_dir, args.label_set)
    yield (
        f"{done.folder}: {done.architecture}, {done.num_tensors} tensors; output of the head: {done.outputs}. Largest "
        f"difference from MinkowskiEngine's rules: {done.difference:.0e} of the largest value."
    )
