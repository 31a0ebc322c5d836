"""Distillation: the pre-trained network becomes a segmenter, by the labels that a teacher gave to the points.

    accelerate launch examples/distill.py --model_name_or_path out/tmp --dataset nuscenes --data_dir data/nuscenes \\
        --label_set labels/ --output_dir out/uov

Defaults are the paper's. Without --dataset it goes on with the synthetic street that pretrain.py rendered beside the
checkpoint.
"""

import argparse
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.labels import LabelSet
from uov_hf.modeling_uov_segmentation import count_labelled_voxels
from uov_hf.training import arguments
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import collate_scans
from uov_hf.training.launch import start, wait_for_all
from uov_hf.training.loop import Objective, train
from uov_hf.training.publishing import push_run, write_card
from uov_hf.training.run import create_run
from uov_hf.training.samples import DistillationSamples, load_labelled_frames
from uov_hf.training.segmenters import LOSSES, STREET_DEFAULTS, TERMS
from uov_hf.training.self_training import SelfTraining, average_weights


logger = get_logger("uov_hf.distill")

FRAMES_PER_STEP = 16

SETTINGS_IN_THE_CARD = [
    "model_name_or_path",
    "from_scratch",
    "head",
    "point_labels_preset",
    "confidence_weighting",
    "self_training_epochs",
    "self_training_confidence",
    "optimizer",
    "learning_rate",
    "head_learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "freeze_batch_norm",
    "data_fraction",
    "mixed_precision",
    "seed",
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="out/tmp", help="What pretrain.py wrote.")
    parser.add_argument(
        "--from_scratch",
        action="store_true",
        help="Forget the checkpoint's weights, and keep its sizes, voxels and words: what pre-training is worth.",
    )
    parser.add_argument(
        "--head",
        choices=("linear", "text"),
        default="linear",
        help="A new linear classifier, as in the paper, or the baked words: the vocabulary then stays open.",
    )
    arguments.add_data_arguments(parser)
    arguments.add_label_set_arguments(parser)
    parser.add_argument(
        "--confidence_weighting",
        action="store_true",
        help="Weight labels in the cross-entropy by how sure the teacher was; the paper does not.",
    )
    arguments.add_training_arguments(parser, learning_rate=0.02, num_train_epochs=5, frames_per_step=FRAMES_PER_STEP)
    parser.add_argument("--head_learning_rate", type=float, default=2.0, help="Of the linear head.")
    add_self_training_arguments(parser)
    arguments.add_tracking_arguments(parser)
    arguments.add_run_arguments(parser, output_dir="out/uov")
    args = arguments.parse_or_street(parser, STREET_DEFAULTS)
    if args.on_street:
        arguments.use_street_of_checkpoint(args, parser)
    return args


def add_self_training_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("self-training")
    group.add_argument(
        "--self_training_epochs",
        type=int,
        default=0,
        help="Epochs at the end of the run in which an average of the network's weights labels the points that the "
        "teacher left without a label. Default: none, as in the paper.",
    )
    group.add_argument(
        "--self_training_confidence", type=float, default=0.9, help="How sure the average must be, from 0 to 1."
    )
    group.add_argument("--ema_decay", type=float, default=0.99, help="What the average keeps of itself at each step.")


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)

    # Data
    label_set = LabelSet.open(args.label_set)
    processor = UOVProcessor.from_pretrained(args.model_name_or_path)
    samples = make_samples(
        accelerator, args, args.split, label_set, processor, AugmentationConfig(), args.data_fraction
    )
    validation = None
    if args.validation_split is not None:
        validation = make_samples(accelerator, args, args.validation_split, label_set, processor)

    # Model, with a head that names the label set's classes
    model = create_model(args, label_set.class_names)
    average = average_weights(model, args.ema_decay) if args.self_training_epochs else None

    # Training
    run = create_run(accelerator, args, model, parameter_groups(args, model), samples, FRAMES_PER_STEP)
    accelerator.init_trackers("uov-distill", {name: str(value) for name, value in vars(args).items()})
    objective = Objective(collate_scans, count_labelled_voxels, "num_labelled_voxels", LOSSES)
    if average is not None:
        self_training = SelfTraining(run, average, args.self_training_epochs, args.self_training_confidence)
        objective = replace(objective, complete_batch=self_training.complete, after_step=self_training.update)
    train(run, args, objective, samples, validation)

    # What others load
    if accelerator.is_main_process:
        save_checkpoint(run.output_dir, accelerator.unwrap_model(run.model), processor)
        write_card(run, args, label_set, "distill", TERMS, SETTINGS_IN_THE_CARD, args.split, len(samples))
        if args.push_to_hub:
            logger.info(f"Pushed to {push_run(run, args)}")
    wait_for_all(accelerator)
    accelerator.end_training()


def make_samples(
    accelerator: Accelerator,
    args,
    split: str | None,
    label_set: LabelSet,
    processor: UOVProcessor,
    augmentation: AugmentationConfig | None = None,
    data_fraction: float = 1.0,
) -> DistillationSamples:
    frames, point_labels = load_labelled_frames(accelerator, args, split, label_set, data_fraction)
    return DistillationSamples(
        frames, point_labels, processor.feature_extractor, augmentation, args.seed, args.confidence_weighting
    )


def create_model(args, class_names: list[str]) -> UOVForSemanticSegmentation:
    """A new head on the pre-trained network, or on an untrained one of the same sizes and words."""
    uov = UOVModel.from_pretrained(args.model_name_or_path, dtype=torch.float32)
    if args.from_scratch:
        pretrained, uov = uov, UOVModel(uov.config)
        uov.prompt_embeds, uov.prompt_to_class = pretrained.prompt_embeds, pretrained.prompt_to_class
        uov.text_tower = pretrained.text_tower
    model = UOVForSemanticSegmentation.from_backbone(uov, args.head, class_names)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return model


def parameter_groups(args, model: UOVForSemanticSegmentation) -> list[dict]:
    """A new linear head learns faster than the network below it; the words of a text head do not learn at all."""
    groups = [{"params": model.uov.parameters()}]
    if model.classifier is not None:
        groups.append({"params": model.classifier.parameters(), "lr": args.head_learning_rate})
    return groups


if __name__ == "__main__":
    main()
