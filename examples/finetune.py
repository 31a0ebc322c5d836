"""Fine-tuning and linear probing: how much a network that saw no 3D label gains from a few, or from all of them.

    accelerate launch examples/finetune.py --model_name_or_path out/uov --dataset nuscenes --data_dir data/nuscenes \\
        --data_fraction 0.01 --output_dir out/finetuned
    accelerate launch examples/finetune.py examples/configs/nuscenes/finetune.yaml --linear_probe

The head is a new one unless --reuse_head is given. It has the dataset's classes or, with --map, those of the
checkpoint. Defaults are the paper's. Without --dataset it trains on the synthetic street that pretrain.py rendered
beside the checkpoint.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from accelerate.logging import get_logger

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.configuration_uov import IGNORED
from uov_hf.data import Frames
from uov_hf.data.frames import BROKEN
from uov_hf.feature_extraction_uov import PAPER_INTENSITY_SCALINGS
from uov_hf.reproduction.record import start_record
from uov_hf.training.arguments import STREET_DEFAULTS, SegmenterArguments, option, parse_arguments, require_checkpoint
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import ScanBatch
from uov_hf.training.launch import start
from uov_hf.training.loop import train
from uov_hf.training.objectives import SEGMENTATION
from uov_hf.training.optimization import segmenter_groups
from uov_hf.training.publishing import finish_run
from uov_hf.training.run import create_run
from uov_hf.training.samples import AnnotatedSamples, load_annotated_frames
from uov_hf.training.several_datasets import JoinedSamples
from uov_hf.vocabulary import TaxonomyMap, load_map


logger = get_logger("uov_hf.finetune")


@dataclass(kw_only=True)
class FinetuningArguments(SegmenterArguments):
    """Arguments of fine-tuning."""

    stage = "finetune"
    frames_per_step: ClassVar[int] = 16

    from_scratch: bool = option(False, "Keep the sizes and voxels of the checkpoint, and start from random weights.")
    preset: Literal["minkunet34", "tiny"] | None = option(
        None, "Use no checkpoint, but an untrained network of this size on the paper's voxels."
    )
    reuse_head: bool = option(False, "Keep a segmenter's trained head, whose classes must be the dataset's or --map.")
    map: str | None = option(
        None,
        "Keep the classes of the checkpoint and turn the labels of datasets with other classes into them: a map such "
        "as cityscapes_semantic_kitti, or a YAML file. Labels of classes that it does not have are ignored.",
    )
    linear_probe: bool = option(False, "Train the head alone: the network is frozen, BatchNorm included.")
    no_augmentation: bool = option(
        False, "Neither rotate nor mirror the scans: to test whether a few can be overfitted."
    )
    intensity_scaling: Literal["raw", "unit", "unit_plus_one"] | None = option(
        None, "Of the input feature. Without it, the checkpoint's; with --preset the paper's for the dataset."
    )
    # With the paper's 0.02, a short run from scratch would be evaluated by statistics that are still the first ones.
    batch_norm_momentum: float | None = option(
        None,
        "Of the running statistics outside the residual blocks; the paper's is 0.02. Without it, the checkpoint's.",
    )
    num_train_epochs: int = option(30, "Passes over the frames.")
    output_dir: str = option("out/finetuned", "Folder of the results.")

    def __post_init__(self) -> None:
        if self.from_scratch + self.reuse_head + (self.preset is not None) > 1:
            raise ValueError("--from_scratch, --preset and --reuse_head exclude each other: give at most one.")
        if self.map is not None and self.preset is not None:
            raise ValueError("--map keeps the classes of a checkpoint, and --preset uses none: give one of them.")
        if self.linear_probe:
            self.freeze_batch_norm = True  # the one difference between evaluation and training mode in this network
            if self.head_learning_rate is None:
                self.head_learning_rate = 0.05
        super().__post_init__()


def main() -> None:
    args = parse_arguments(FinetuningArguments, __doc__, STREET_DEFAULTS)
    require_checkpoint(args.model_name_or_path)
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)
    recorder = start_record(accelerator, args.output_dir)

    # Data
    loaded = load_annotated_frames(args.datasets, args.data_fraction)
    classes = choose_classes(args, loaded[0])
    label_maps = [classes.find_label_map(frames) for frames in loaded]
    if args.map is not None and accelerator.is_main_process:
        log_ignored_points(loaded, label_maps)
    processor = create_processor(args, loaded[0].taxonomy)

    def make_samples(datasets, augmentation=None) -> JoinedSamples[ScanBatch]:
        settings = (processor.feature_extractor, augmentation, args.seed)
        return JoinedSamples(AnnotatedSamples(one, *settings, classes.find_label_map(one)) for one in datasets)

    samples = make_samples(loaded, None if args.no_augmentation else AugmentationConfig())
    validation = None
    if any(args.validation_datasets):
        validation = make_samples(load_annotated_frames(args.validation_datasets))

    # Model, with the datasets' classes or its own
    model = create_model(args, classes.class_names)

    # Training
    recorder.read(args, samples.frames, model)
    run = create_run(accelerator, args, model, segmenter_groups(model, args.head_learning_rate), samples)
    train(run, args, SEGMENTATION, samples, validation)

    # Checkpoint
    model = accelerator.unwrap_model(run.model)
    finish_run(run, args, SEGMENTATION, model, processor, loaded, taxonomy=classes.taxonomy)
    recorder.write()


class TrainedClasses(NamedTuple):
    """The classes of the head, and the map that turns the labels of datasets with other classes into them."""

    taxonomy: str | None
    class_names: list[str]
    taxonomy_map: TaxonomyMap | None = None

    def find_label_map(self, frames: Frames) -> np.ndarray | None:
        """The class of each label of a dataset, `(256,)`; `None` if it has the classes of the head.

        Raises:
            ValueError: It has others, and no map has them.
        """
        if frames.class_names == self.class_names:
            return None
        if self.taxonomy_map is not None:
            return self.taxonomy_map.to_classes(frames.class_names, self.class_names)
        raise ValueError(
            f"The datasets of a training must have the same classes in the same order: {self.taxonomy} has "
            f"{self.class_names}, {frames.taxonomy} has {frames.class_names}. Or keep the classes of the checkpoint "
            "with --map."
        )


def choose_classes(args: FinetuningArguments, frames: Frames) -> TrainedClasses:
    """The first dataset's classes or, with `--map`, the checkpoint's."""
    if not frames.class_names:
        raise ValueError(f"{' and '.join(args.dataset)} has no class names; fine-tuning needs an annotated dataset.")
    if args.map is None:
        return TrainedClasses(frames.taxonomy, frames.class_names)
    class_names, taxonomy_map = UOVConfig.from_pretrained(args.model_name_or_path).classes, load_map(args.map)
    return TrainedClasses(taxonomy_map.taxonomy_of(class_names), class_names, taxonomy_map)


def log_ignored_points(loaded: list[Frames], label_maps: list[np.ndarray | None]) -> None:
    """Log the annotated points whose class the checkpoint does not have; this reads all labels once."""
    ignored, num_points = Counter[str](), 0
    for frames, label_map in zip(loaded, label_maps, strict=True):
        counts = count_labels(frames)
        num_points += int(counts[:IGNORED].sum())
        if label_map is not None:
            by_class = zip(frames.class_names, counts.tolist(), label_map, strict=False)
            ignored.update({name: count for name, count, row in by_class if row == IGNORED})
    shown = ", ".join(f"{name} {count:,}" for name, count in ignored.items() if count)
    logger.info(f"--map ignores {ignored.total():,} of {num_points:,} points: {shown or 'none'}.")


def count_labels(frames: Frames) -> np.ndarray:
    """The number of points with each label, `(256,)`."""
    counts, frames = np.zeros(IGNORED + 1, np.int64), frames.select_columns(["labels"])
    for index in range(len(frames)):
        try:
            labels = frames[index]["labels"]
        except BROKEN:  # the training reports it, or stops
            continue
        if labels is not None:
            counts += np.bincount(labels, minlength=len(counts))
    return counts


def create_processor(args: FinetuningArguments, taxonomy: str | None) -> UOVProcessor:
    """The checkpoint's, or one with the paper's voxels; `--intensity_scaling` overrides its own."""
    if args.preset:
        scaling = PAPER_INTENSITY_SCALINGS.get(taxonomy, "raw")
        processor = UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling=scaling))
    else:
        processor = UOVProcessor.from_pretrained(args.model_name_or_path)
    if args.intensity_scaling is not None:
        processor.feature_extractor.intensity_scaling = args.intensity_scaling
    return processor


def create_model(args: FinetuningArguments, class_names: list[str]) -> UOVForSemanticSegmentation:
    """The checkpoint's segmenter, or a new head on its network or on an untrained one."""
    if args.reuse_head:
        model = load_with_head(args, class_names)
    else:
        model = UOVForSemanticSegmentation.from_backbone(create_network(args), "linear", class_names)
    if args.linear_probe:
        if model.classifier is None:
            raise ValueError(
                f"--linear_probe: the head of {args.model_name_or_path} consists of prompts, which have no weights to "
                "train. Leave out --reuse_head for a new linear head."
            )
        model.uov.requires_grad_(False)
    return model


def load_with_head(args: FinetuningArguments, class_names: list[str]) -> UOVForSemanticSegmentation:
    """The checkpoint with its head.

    Raises:
        ValueError: It has no head, or one for other classes.
    """
    config = UOVConfig.from_pretrained(args.model_name_or_path, **config_changes(args))
    if UOVForSemanticSegmentation.__name__ not in (config.architectures or []):
        raise ValueError(f"--reuse_head: {args.model_name_or_path} has no head. Leave out the switch for a new one.")
    classes_of_head = list(config.id2label.values())
    if classes_of_head != list(class_names):
        raise ValueError(
            f"--reuse_head: the head of {args.model_name_or_path} has the classes {classes_of_head}, the dataset has "
            f"{list(class_names)}. Leave out the switch for a new head, or keep its classes with --map."
        )
    return UOVForSemanticSegmentation.from_pretrained(args.model_name_or_path, config=config, dtype=torch.float32)


def create_network(args: FinetuningArguments) -> UOVModel:
    """The checkpoint's network, or an untrained one without words: of the checkpoint's sizes, or of a preset."""
    changes = config_changes(args)
    if args.preset:
        return UOVModel(UOVConfig.from_preset(args.preset, **changes))
    if args.from_scratch:
        words = {"prompts": [], "id2label": {}, "text_config": None}
        return UOVModel(UOVConfig.from_pretrained(args.model_name_or_path, **changes, **words))
    return UOVModel.from_pretrained(args.model_name_or_path, dtype=torch.float32, **changes)


def config_changes(args: FinetuningArguments) -> dict[str, float]:
    return {} if args.batch_norm_momentum is None else {"batch_norm_momentum": args.batch_norm_momentum}


if __name__ == "__main__":
    main()
