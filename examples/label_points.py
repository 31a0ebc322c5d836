"""Project a label set onto the points of its frames, once, so that training opens no image.

    accelerate launch examples/label_points.py --label_set labels/ --dataset nuscenes --data_dir data/nuscenes \\
        --preset consolidated
    accelerate launch examples/label_points.py examples/configs/nuscenes/label_points.yaml

With the preset `paper` the last camera decides; with `consolidated` cameras, augmented images, superpoints and the
scans before and after vote (docs/explanation/point_labels.md). `--rules occlusion,cameras,superpoints` switches single
votes on. A run that was stopped continues where it was. Without --dataset it uses the synthetic street that
generate_label_set.py rendered beside the label set.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from accelerate.utils import gather_object

from uov_hf.configuration_uov import IGNORED
from uov_hf.labels import LabelSet, PointLabels, WriteReport, label_points
from uov_hf.labels.consolidation import VOTES, Consolidation, parse_rule
from uov_hf.labels.label_set import is_label_set_id
from uov_hf.labels.point_labels import point_labels_folder
from uov_hf.reproduction.record import start_record
from uov_hf.training.arguments import DataArguments, option, parse_arguments
from uov_hf.training.launch import sharing, start, wait_for_all
from uov_hf.training.samples import load_split


@dataclass(kw_only=True)
class PointLabelArguments(DataArguments):
    """Arguments of the point labels."""

    label_set: str | None = option(None, "Folder written by generate_label_set.py, or id on the Hub; needed.")
    output_dir: str | None = option(None, "With an id: the folder to download it to, which gets the point labels.")
    calibration_changed: bool = option(False, "Accept frames whose calibration was corrected since.")
    preset: Literal["paper", "consolidated"] | None = option(None, "The rule. Without it and --rules, paper.")
    rules: str | None = option(
        None, f"The votes that count, instead of a preset's, with commas between them: some of {', '.join(VOTES)}."
    )
    min_confidence: float = option(0.0, "Drop labels with less confidence; 0 to 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_set is None:
            raise ValueError("--label_set is needed: make one with examples/generate_label_set.py.")
        if is_label_set_id(self.label_set) != (self.output_dir is not None):
            raise ValueError(
                "--output_dir belongs to a --label_set on the Hub, and is needed then: the label set is downloaded "
                f"to it. Got --label_set {self.label_set} and --output_dir {self.output_dir}."
            )
        self.make_rule()  # refuses wrong names before the dataset is opened

    def make_rule(self) -> str | Consolidation:
        """The rule that the arguments name."""
        return parse_rule(self.preset, self.rules, self.min_confidence)


def main() -> None:
    args = parse_arguments(PointLabelArguments, __doc__)
    if not is_label_set_id(args.label_set):
        LabelSet(args.label_set)  # raises before a folder of this name is made
    accelerator = start(args.output_dir or args.label_set, seed=0)
    if accelerator.is_main_process:  # a download may take longer than a collective call may
        LabelSet.open(args.label_set, local_dir=args.output_dir)
    wait_for_all(accelerator)
    label_set = LabelSet.open(args.label_set, local_dir=args.output_dir)
    if args.dataset is None:
        accelerator.print("No --dataset: labelling the synthetic street beside the label set.")
        args.dataset, args.data_dir = "nuscenes", str(label_set.folder.with_name("street"))
        args.split = args.split or "all"

    frames, rule = load_split(args, args.split), args.make_rule()
    recorder = start_record(accelerator, point_labels_folder(label_set.folder, rule))
    recorder.read(args, [frames])
    report = label_points(
        label_set,
        frames,
        rule,
        calibration_changed=args.calibration_changed,
        **sharing(accelerator, args.on_error),
    )
    report = sum(gather_object([report]), WriteReport())
    if accelerator.is_main_process:
        point_labels = PointLabels(label_set.folder, rule)
        print(f"Point labels in {point_labels.folder}: {report}")
        labelled = [frame_id for frame_id in frames.frame_ids if frame_id not in report.skipped]
        print(describe(point_labels, labelled))
    recorder.write()
    accelerator.end_training()


def describe(point_labels: PointLabels, frame_ids: list[str]) -> str:
    """The share of points with a label, and their mean confidence.

    Raises:
        ValueError: No point has a label.
    """
    num_points, num_labelled, confidence = 0, 0, 0.0
    for frame_id in frame_ids:
        row = point_labels.read(frame_id, ["labels", "confidence"])
        is_labelled = row["labels"] != IGNORED
        num_points += len(is_labelled)
        num_labelled += int(is_labelled.sum())
        confidence += float(row["confidence"][is_labelled].sum(dtype=np.float64))
    if num_labelled == 0:
        raise ValueError(
            f"{point_labels.folder}: expected labels at some points, got none at {num_points:,} points. Likely "
            "causes: the calibration puts no point into an image, the teacher found nothing, or --min_confidence is "
            "too high. The gallery of `python -m uov_hf.evaluation.label_card` draws the labels over the images."
        )
    share, mean = num_labelled / num_points, confidence / num_labelled
    return (
        f"{num_labelled:,} of {num_points:,} points have a label ({share:.1%}), with a mean confidence of {mean:.2f}."
    )


if __name__ == "__main__":
    main()
