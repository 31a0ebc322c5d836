"""Convert an official UOV/AFOV or SLidR checkpoint.

python -m uov_hf.convert AFOV_pretrain_san.pt --output_dir afov-tmp-san --label_set labels/
"""

import argparse
import sys
from pathlib import Path

from uov_hf.convert import convert_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m uov_hf.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="The official .pt, or a Lightning .ckpt.")
    parser.add_argument("--output_dir", type=Path, required=True, help="The new checkpoint.")
    parser.add_argument("--label_set", type=Path, help="Of the same teacher: its words are baked in.")
    args = parser.parse_args()
    try:
        done = convert_checkpoint(args.checkpoint, args.output_dir, args.label_set)
    except (ValueError, OSError) as error:
        print(f"uov_hf.convert: {error}", file=sys.stderr)
        return 1
    print(
        f"{done.folder}: {done.architecture}, {done.num_tensors} tensors; the head gives {done.outputs}. Largest "
        f"difference from MinkowskiEngine's rules: {done.difference:.0e} of the largest value."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
