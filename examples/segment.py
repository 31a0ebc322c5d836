"""Segment scans of your own: a label for every point, in words of your own, and pictures to look at.

    python examples/segment.py --model_name_or_path out/demo/uov scan.bin --candidate_labels "car, road, tree" \\
        --output_dir out/scan
    python examples/segment.py --model_name_or_path out/demo/uov drive/velodyne --refine afi --output_dir out/drive

It writes `labels.npy`, `scores.npy`, `classes.json`, `birds_eye_view.png` and `viewer.html` to the output folder; of
several scans, or of the scans in a folder, to a folder each in it. Without --candidate_labels the answer is in the
classes of the checkpoint. What has no word, or one that the checkpoint cannot read, can be shown by pictures of it:

    ... --picture tuk-tuk=a.jpg,b.jpg --teacher_model_name_or_path openai/clip-vit-base-patch16
"""

import argparse
import sys

from transformers.utils import logging

from uov_hf_cli import segment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    segment.add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    for line in segment.run(args):
        print(line)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"segment.py: {error}")
