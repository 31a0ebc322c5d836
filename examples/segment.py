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
from pathlib import Path

import numpy as np
from transformers.utils import logging

from uov_hf.segmenting import embed_pictures_for, load_segmenter, read_pictures, segment_files


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path, help="Files (.bin, .npy, .pcd, .ply, .las, .laz), or folders.")
    parser.add_argument("--model_name_or_path", required=True, help="Folder or Hub id of a checkpoint.")
    parser.add_argument("--revision", help="Branch, tag or commit on the Hub.")
    parser.add_argument("--output_dir", type=Path, default=Path("out/segment"))
    parser.add_argument("--candidate_labels", help="Words with commas between them; the checkpoint's by default.")
    parser.add_argument("--picture", action="append", default=[], metavar="WORD=FILE,…", help="A class by pictures.")
    parser.add_argument("--pictures", type=Path, metavar="JSON", help='More of them: {"tuk-tuk": ["a.jpg", "b.jpg"]}.')
    parser.add_argument("--teacher_model_name_or_path", help="Who looks at the pictures; the teacher by default.")
    parser.add_argument("--intensity_max", type=float, help="Full scale of the intensity: 255 (nuScenes), 1 (KITTI).")
    parser.add_argument("--threshold", type=float, default=0.0, help="Points that are less sure get no label.")
    parser.add_argument("--refine", choices=["afi"], help="Clean the answer by approximate flat interaction.")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, …; by default the GPU if there is one.")
    parser.add_argument("--dtype", default="auto", help="Of the network: float32, bfloat16, …")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    segmenter = load_segmenter(args.model_name_or_path, args.device, args.dtype, args.revision)
    pictures = read_pictures(args.picture, args.pictures)
    embeds = embed_pictures_for(segmenter, pictures, args.teacher_model_name_or_path) if pictures else None
    answers = segment_files(
        segmenter,
        args.scans,
        args.output_dir,
        candidate_labels=args.candidate_labels,
        candidate_embeds=embeds,
        intensity_max=args.intensity_max,
        threshold=args.threshold,
        refine=args.refine,
    )
    for answer in answers:
        counts = sorted(answer.points_per_class().items(), key=lambda item: -item[1])
        found = ", ".join(f"{name} {count:,}" for name, count in counts if count)
        unnamed = int(np.sum(answer.labels == 255))
        print(f"{answer.scan}: {len(answer.points):,} points: {found or 'nothing'}; {unnamed:,} without a label")
        print(f"  to look at: {answer.folder / 'viewer.html'}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"segment.py: {error}")
