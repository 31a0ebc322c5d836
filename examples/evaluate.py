"""Evaluation: a label for every point of unseen scenes -> mean IoU, a table, metrics.json.

    accelerate launch examples/evaluate.py --model_name_or_path out/tmp --dataset nuscenes --data_dir data/nuscenes
    accelerate launch examples/evaluate.py examples/configs/nuscenes/evaluate.yaml --refine afi

A pre-trained checkpoint predicts zero-shot, by its class prompts; a distilled or fine-tuned one by its head. Points
that a camera saw and those that none did are scored separately; with --label_set the teacher is scored beside the
model. Without --dataset it evaluates on the test towns of the street that examples/pretrain.py rendered. With
--corruptions all of it is evaluated again in fog, in snow, with a part of the beams, and so on.
docs/reference/metrics.md defines each number.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from tqdm import tqdm

from uov_hf import UOVForSemanticSegmentation, UOVProcessor
from uov_hf.counts import check_counts
from uov_hf.evaluation.conditions import ConditionMetrics, ConditionScores
from uov_hf.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption, check_names
from uov_hf.evaluation.label_figures import draw_confusion
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.reports import evaluation_tables, update_card, without_nan, write_results
from uov_hf.evaluation.robustness import Baseline, read_baseline, summarise
from uov_hf.evaluation.scans import LabelledScan, LabelledScans
from uov_hf.evaluation.scored_classes import ScoredClasses, choose_classes
from uov_hf.evaluation.scores import Scores
from uov_hf.evaluation.submissions import Submission
from uov_hf.geometry.projection import Camera
from uov_hf.hub.upload import hide_folders
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.own_car.calibration import read_calibration
from uov_hf.processing_uov import DEFAULT_AFI
from uov_hf.reproduction.record import start_record
from uov_hf.training.arguments import DataArguments, RunArguments, option, parse_arguments, require_checkpoint
from uov_hf.training.checkpoints import only_run_in
from uov_hf.training.launch import sharing, start, wait_for_all
from uov_hf.training.loaders import BrokenFrame, ReportBrokenFrames, only_readable
from uov_hf.training.samples import load_split
from uov_hf.vocabulary import load_map, load_vocabulary
from uov_hf.written_together import written_together


logger = get_logger("uov_hf.evaluate")

VALIDATION_SPLITS = {"v1.0-trainval": "val", "v1.0-mini": "mini_val"}


@dataclass(kw_only=True)
class EvaluationArguments(DataArguments, RunArguments):
    """Arguments of an evaluation."""

    model_name_or_path: str = option("out/tmp", "A checkpoint with its classes.")
    label_set: str | None = option(None, "Labels of these scenes: scores their teacher and the points it saw.")
    map: str | None = option(
        None,
        "Score the common classes of two taxonomies: a map such as cityscapes_semantic_kitti, or a YAML file. For a "
        "checkpoint or label set whose classes are not those of the ground truth.",
    )
    camera_view: str | None = option(
        None,
        "For scans without a camera: a calibration.yaml. Points in view of its cameras are scored as seen ones.",
    )
    min_range: float = option(0.0, "Metres around the sensor that are not scored.")
    refine: Literal["afi"] | None = option(None, "Refine the predictions by approximate flat interaction.")
    test_time_augmentation: int = option(
        1, "Average the probabilities over so many rotated and mirrored views of a scan."
    )
    predict_void: bool = option(
        False, "Let a converted head predict its void, which is wrong for every class, as in the official evaluation."
    )
    export: Literal["nuscenes", "semantickitti"] | None = option(
        None, "Write the predictions in a benchmark's layout, into submission/ of the output; no annotation is needed."
    )
    corruptions: list[str] | None = field(
        default=None,
        metadata={
            "help": f"Evaluate also under these corruptions, without a name under all: {', '.join(CORRUPTIONS)}.",
            "may_be_empty": True,
        },
    )
    corruption_baseline: str | None = option(
        None, "The metrics.json of another checkpoint under the same corruptions, for the mean corruption error."
    )
    update_card: bool = option(True, "Put the results into the README.md of the checkpoint, if that is a folder.")
    output_dir: str = option("out/eval", "Folder of the results.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset is None:
            self.use_street_of(self.model_name_or_path)
            self.split = self.split or "test"
        self.split = self.split or self.validation_split()
        check_counts(self, 1, "test_time_augmentation")
        if self.camera_view is not None and self.label_set is not None:
            raise ValueError("--camera_view and --label_set exclude each other: a label set has the seen points.")
        self.corruptions = list(CORRUPTIONS) if self.corruptions == [] else self.corruptions
        check_names(self.corruptions or [])
        if self.corruptions and self.export:
            raise ValueError("--corruptions and --export exclude each other: a benchmark takes the clean scans.")
        if self.corruption_baseline and not self.corruptions:
            raise ValueError("--corruption_baseline needs --corruptions.")

    def validation_split(self) -> str:
        """The official one, of SemanticKITTI or of the nuScenes version at hand."""
        if Path(self.dataset).stem == "semantic_kitti":
            return "val"
        versions = [self.dataset_config] if self.dataset_config else list(VALIDATION_SPLITS)
        for version in versions:
            if self.data_dir is not None and (Path(self.data_dir) / version).is_dir() and version in VALIDATION_SPLITS:
                return VALIDATION_SPLITS[version]
        raise ValueError("--split is needed: there is no default for this dataset.")

    @property
    def settings(self) -> dict[str, object]:
        """The arguments that change the numbers, where they are not the defaults."""
        names = ("frame_stride", "map", "camera_view", "min_range", "test_time_augmentation", "refine", "predict_void")
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(type(self), name)}
        return {name: hide_folders(value) for name, value in changed.items()}


def main() -> None:
    args = parse_arguments(EvaluationArguments, __doc__)
    require_checkpoint(args.model_name_or_path)
    accelerator = start(args.output_dir, args.seed, args.mixed_precision)
    with only_run_in(Path(args.output_dir), accelerator.is_main_process):
        evaluate(args, accelerator)


def evaluate(args: EvaluationArguments, accelerator: Accelerator) -> None:
    """Evaluate a checkpoint, and write the results; all ranks call this."""
    recorder = start_record(accelerator, args.output_dir)

    # Model
    model = UOVForSemanticSegmentation.from_pretrained(args.model_name_or_path).to(accelerator.device).eval()
    if args.predict_void and not model.config.has_void:
        raise ValueError("--predict_void needs a converted official head; this checkpoint has no void to predict.")
    processor = UOVProcessor.from_pretrained(args.model_name_or_path)
    segmenter = Segmenter(model, processor, args.refine, args.predict_void)
    settings = args.settings
    if args.refine and processor.afi != DEFAULT_AFI:
        settings["afi"] = json.dumps(processor.afi)

    # Data
    frames = load_split(args, args.split)
    label_set = LabelSet.open(args.label_set, only="points") if args.label_set else None
    classes = choose_classes(
        frames.taxonomy,
        model.config.classes,
        label_set.class_names if label_set else None,
        load_map(args.map) if args.map else None,
    )
    corruptions, baseline = plan_corruptions(args, classes, len(frames))
    submission = None
    if args.export:
        folder = Path(args.output_dir) / "submission"
        submission = Submission(folder, args.export, args.split, model.config.classes)
    point_labels = None
    if label_set:
        label_points(label_set, frames, **sharing(accelerator, args.on_error))  # those that are missing
        point_labels = PointLabels(label_set.folder)
    scans = LabelledScans(
        frames,
        processor.feature_extractor,
        point_labels,
        args.min_range,
        num_views=args.test_time_augmentation,
        needs_truth=args.export is None,
        cameras=read_cameras(args.camera_view) if args.camera_view else (),
    )

    # Evaluation
    recorder.read(args, [frames], model)
    scores, broken = Scores(classes, with_teacher=label_set is not None), []
    for scan in only_readable(make_loader(accelerator, args, scans), broken):
        with accelerator.autocast():
            prediction = segmenter(scan)
        scores.update(prediction, scan)
        if submission:
            submission.write_scan(scan.frame_id, scan.points, prediction.labels)
    wait_for_all(accelerator)
    scores.reduce(accelerator)
    broken = gather_object(broken)
    for message in broken:
        logger.warning(f"Not scored: {message}")
    scores.check(needs_truth=args.export is None)
    conditions = score_corruptions(accelerator, args, scans, segmenter, classes, corruptions)
    if accelerator.is_main_process:
        report(args, settings, scores, len(frames) - len(broken), broken, conditions, baseline)
        if submission:
            submission.write_description()
    recorder.write()
    accelerator.end_training()


def plan_corruptions(
    args: EvaluationArguments, classes: ScoredClasses, num_frames: int
) -> tuple[list[Corruption], Baseline | None]:
    """The corruptions of the arguments in all severities, and the baseline to compare with."""
    names, truth = args.corruptions or [], load_vocabulary(classes.taxonomy).class_names
    corruptions = [Corruption(name, severity, truth, args.seed) for name in names for severity in SEVERITIES]
    if args.corruption_baseline is None:
        return corruptions, None
    scored = (classes.class_names, args.split, num_frames, args.seed)
    return corruptions, read_baseline(args.corruption_baseline, names, *scored)


def score_corruptions(
    accelerator: Accelerator,
    args: EvaluationArguments,
    scans: LabelledScans,
    segmenter: Segmenter,
    classes: ScoredClasses,
    corruptions: list[Corruption],
) -> dict[str, dict[str, ConditionMetrics]]:
    """The metrics under each corruption, by its name and severity."""
    conditions: dict[str, dict[str, ConditionMetrics]] = {}
    for corruption in corruptions:
        condition = ConditionScores(classes)
        for scan in only_readable(make_loader(accelerator, args, scans.changed(corruption), str(corruption)), []):
            with accelerator.autocast():
                condition.update(segmenter(scan), scan)
        wait_for_all(accelerator)
        condition.reduce(accelerator)
        conditions.setdefault(corruption.name, {})[corruption.severity] = condition.compute()
    return conditions


def read_cameras(path: str) -> list[Camera]:
    """The cameras of a calibration file.

    Raises:
        ValueError: It is no calibration, or has no camera.
    """
    cameras = [mounted.camera for mounted in read_calibration(Path(path)).cameras.values()]
    if not cameras:
        raise ValueError(f"--camera_view: {path} has no `cameras`. docs/how_to/own_car.md shows a file with some.")
    return cameras


def make_loader(
    accelerator: Accelerator, args: EvaluationArguments, scans: LabelledScans, title: str | None = None
) -> Iterable[LabelledScan | BrokenFrame]:
    """This process's share of the scans, one at a time."""
    share = range(accelerator.process_index, len(scans), accelerator.num_processes)
    loader = DataLoader(
        ReportBrokenFrames(scans) if args.on_error == "skip" else scans,
        sampler=share,
        batch_size=None,
        num_workers=args.dataloader_num_workers,
    )
    return tqdm(loader, title, total=len(share), unit="scan", disable=not accelerator.is_main_process)


def report(
    args: EvaluationArguments,
    settings: dict[str, object],
    scores: Scores,
    num_frames: int,
    broken: list[str],
    conditions: dict[str, dict[str, ConditionMetrics]],
    baseline: Baseline | None,
) -> None:
    """metrics.json, table.md, confusion_matrix.png, and the model card; none of them where nothing is scored."""
    if not scores.num_scored:
        logger.info("No point has ground truth: nothing is scored, and metrics.json is not written.")
        return
    results, output_dir = scores.compute(), Path(args.output_dir)
    if conditions:
        results["robustness"] = summarise(scores.overall.compute(), conditions, args.seed, baseline)
    results = without_nan(results)
    class_names, taxonomy_map = scores.classes.class_names, scores.classes.taxonomy_map
    metrics = {
        **results,
        "class_names": class_names,
        "map": taxonomy_map.describe() if taxonomy_map else None,
        "model_name_or_path": args.model_name_or_path,
        "dataset": args.dataset,
        "split": args.split,
        "num_frames": num_frames,
        "broken_frames": broken,
        "settings": settings,
    }
    tables = evaluation_tables(results, class_names, taxonomy_map)
    figure = draw_confusion(scores.regions["all_points"].counts, class_names)
    figure.axes[0].set_xlabel("prediction")
    with written_together(output_dir, "metrics.json") as temporary:
        write_results(temporary / "metrics.json", metrics)
        (temporary / "table.md").write_text(tables + "\n")
        figure.savefig(temporary / "confusion_matrix.png", dpi=120)
    print(tables)
    if args.label_set and "teacher_seen_points" not in results:
        logger.warning(
            f"The teacher is not scored: {args.label_set} has no label at any scored point. "
            "`python -m uov_hf.evaluation.label_card <label set>` shows the share of labelled points."
        )
    card = Path(args.model_name_or_path) / "README.md"
    if args.update_card and card.is_file():
        update_card(card.parent, results, tables, describe_dataset(args), settings)


def describe_dataset(args: EvaluationArguments) -> dict[str, str | None]:
    """The dataset in the card: an id or short name as it is; of a path the last part, as the card may be published."""
    name = Path(args.dataset).stem if Path(args.dataset).exists() else args.dataset
    return {
        "name": "the synthetic street of uov-hf" if args.is_street else name,
        "type": "uov-hf-synthetic-street" if args.is_street else name,
        "config": args.dataset_config,
        "split": args.split,
    }


if __name__ == "__main__":
    main()
