"""The ground beside the car: predictions within 6 m of the sensor, from all rings of a lidar and from every third.

    python benchmarks/real.py --only "KITTI to SemanticKITTI" --output_dir out/real
    python benchmarks/near_ground.py out/real/kitti_to_semantickitti/750_steps_stride_1/seed_*/scratch

Without labels nearer than 6 m, a network has not seen how dense its voxels are there. Prints for each checkpoint, ring
choice and class the share of the near points that is right, and the class that is predicted most often.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from common import describe_machine, make_parser, table
from real import NEAR, open_frames, read_scans

from uov_hf import UOVForSemanticSegmentation, UOVProcessor
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.vocabulary import load_vocabulary


THINNED = 7.0  # metres from the sensor within which rings are left out
RING_STEP = 0.5  # degrees between the lower rings of a 64-beam lidar
CLASSES = ("road", "sidewalk", "terrain")


def every_third_ring(points: np.ndarray) -> np.ndarray:
    """Which points `(num_points,)` stay: within `THINNED`, those of every third ring."""
    ranges = np.hypot(points[:, 0], points[:, 1])
    ring = np.floor(np.degrees(np.arctan2(points[:, 2], ranges)) / RING_STEP).astype(int)
    return (ranges > THINNED) | (ring % 3 == 0)


def select(scan: LabelledScan, kept: np.ndarray, processor: UOVProcessor) -> LabelledScan:
    """A part of a scan, with voxels of its own."""
    voxels = dict(processor.feature_extractor(scan.points[kept], intensity_max=1.0))
    return replace(scan, points=scan.points[kept], labels=scan.labels[kept], voxels=voxels)


def main() -> None:
    parser = make_parser(__doc__, with_data_dir=True)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    args = parser.parse_args()
    print(describe_machine(), flush=True)
    names = load_vocabulary("semantic_kitti").class_names
    test = {"dataset": "semantic_kitti", "data_dir": str(args.data_dir / "semantickitti/dataset"), "split": "all"}
    rows = []
    for path in args.checkpoints:
        processor = UOVProcessor.from_pretrained(path)
        segmenter = Segmenter(UOVForSemanticSegmentation.from_pretrained(path).eval(), processor)
        scan, *_ = read_scans(open_frames(test), processor.feature_extractor, None)
        for rings, kept in {"all": np.ones(len(scan.points), bool), "a third": every_third_ring(scan.points)}.items():
            part = select(scan, kept, processor)
            predicted, near = segmenter(part).labels, np.hypot(part.points[:, 0], part.points[:, 1]) < NEAR
            for name in CLASSES:
                here = near & (part.labels == names.index(name))
                counts = np.bincount(predicted[here], minlength=len(names))[: len(names)]
                right, most = counts[names.index(name)] / here.sum(), counts.max() / here.sum()
                rows.append(
                    [
                        *(path.parent.name, rings, name, f"{here.sum():,}", f"{100 * right:.0f} %"),
                        *(names[int(counts.argmax())], f"{100 * most:.0f} %"),
                        f"{np.median(part.points[here, 3]):.2f}",
                    ]
                )
    print(table(["seed", "rings", "class", "points", "right", "most often", "share", "intensity"], rows))


if __name__ == "__main__":
    main()
