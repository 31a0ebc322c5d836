"""Everything that is counted in an evaluation, scan by scan; nothing of it grows with the number of scans."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from uov_hf.evaluation.answers import Answer
from uov_hf.evaluation.label_statistics import RANGE_NAMES, find_range_bins
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.evaluation.panoptic import MIN_POINTS, PanopticQuality, cluster_things
from uov_hf.evaluation.reliability import CalibrationBins
from uov_hf.evaluation.segmentation import IGNORED, LabelledScan, LabelledScans, count, new_matrices
from uov_hf.vocabulary import load_vocabulary


class Scores:
    """
    Confusion by region and by range, calibration, and panoptic quality where there are true instances.

    All of it is whole numbers, in arrays called `counts`: processes add theirs up exactly, in any order.

    Args:
        scans (`LabelledScans`): What is scored.
        taxonomy (`str`): The vocabulary of their labels.
    """

    def __init__(self, scans: LabelledScans, taxonomy: str):
        self.is_thing = load_vocabulary(taxonomy).is_thing
        self.regions = new_matrices(len(self.is_thing), with_teacher=scans.point_labels is not None)
        self.ranges = {name: ConfusionMatrix(len(self.is_thing), IGNORED) for name in RANGE_NAMES}
        self.calibration = CalibrationBins()
        self.panoptic = PanopticQuality(self.is_thing, MIN_POINTS.get(taxonomy, 30), IGNORED)

    def update(self, answer: Answer, scan: LabelledScan) -> None:
        """Hold the answer for one scan against its truth."""
        count(self.regions, answer.labels, scan)
        range_bins = find_range_bins(scan.points)
        for index, matrix in enumerate(self.ranges.values()):
            matrix.update(answer.labels[range_bins == index], scan.labels[range_bins == index])
        answered = (scan.labels != IGNORED) & (answer.labels != IGNORED)
        self.calibration.update(answer.confidences[answered], (answer.labels == scan.labels)[answered])
        if scan.instances is not None:
            clusters = cluster_things(scan.points, answer.labels, self.is_thing)
            self.panoptic.update(answer.labels, clusters, scan.labels, np.asarray(scan.instances))

    def reduce(self, accelerator: Accelerator) -> None:
        """Add up what all processes have counted, in each of them."""
        for counter in (*self.regions.values(), *self.ranges.values(), self.calibration, self.panoptic):
            counts = torch.from_numpy(counter.counts).to(accelerator.device)
            counter.counts = accelerator.reduce(counts, "sum").cpu().numpy()

    def compute(self) -> dict[str, Any]:
        """The metrics of every region that has points (`all_points` always), `by_range`, `calibration`, `panoptic`;
        the last only where there are instances."""
        regions = {name: matrix for name, matrix in self.regions.items() if matrix.counts.any()}
        results = {
            "all_points": self.regions["all_points"].compute(),
            **{name: matrix.compute() for name, matrix in regions.items()},
            "by_range": {name: matrix.compute() for name, matrix in self.ranges.items() if matrix.counts.any()},
            "calibration": self.calibration.compute(),
        }
        return results | ({"panoptic": self.panoptic.compute()} if self.panoptic.counts.any() else {})
