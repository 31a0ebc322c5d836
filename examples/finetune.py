"""Fine-tuning and linear probing: how much a network that saw no 3D label gains from a few, or from all of them.

    accelerate launch examples/finetune.py --model_name_or_path out/uov --dataset nuscenes --data_dir data/nuscenes \\
        --data_fraction 0.01 --output_dir out/finetuned

The head is a new one unless --reuse_head says otherwise. Defaults are the paper's. Without --dataset it goes on with
the synthetic street that pretrain.py rendered beside the checkpoint.
"""

import argparse

import torch
from accelerate.logging import get_logger

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.feature_extraction_uov import INTENSITY_SCALINGS, PAPER_INTENSITY_SCALINGS
from uov_hf.modeling_uov_segmentation import count_labelled_voxels
from uov_hf.training import arguments
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import collate_scans
from uov_hf.training.launch import start, wait_for_all
from uov_hf.training.loop import Objective, train
from uov_hf.training.publishing import push_run, write_card
from uov_hf.training.run import create_run
from uov_hf.training.samples import AnnotatedSamples, load_split
from uov_hf.training.segmenters import LOSSES, STREET_DEFAULTS, TERMS


logger = get_logger("uov_hf.finetune")

FRAMES_PER_STEP = 16
HEAD_LEARNING_RATE, PROBE_LEARNING_RATE = 2.0, 0.05

SETTINGS_IN_THE_CARD = [
    "model_name_or_path",
    "preset",
    "from_scratch",
    "reuse_head",
    "linear_probe",
    "no_augmentation",
    "intensity_scaling",
    "optimizer",
    "learning_rate",
    "head_learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "freeze_batch_norm",
    "batch_norm_momentum",
    "data_fraction",
    "mixed_precision",
    "seed",
]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model_name_or_path", default="out/tmp", help="What pretrain.py, distill.py or this script wrote."
    )
    start_from = parser.add_mutually_exclusive_group()
    start_from.add_argument(
        "--from_scratch",
        action="store_true",
        help="Forget the checkpoint's weights, and keep its sizes and voxels: what they are worth.",
    )
    start_from.add_argument(
        "--preset",
        choices=("minkunet34", "tiny"),
        help="Take no checkpoint, but an untrained network of this size on the paper's voxels.",
    )
    start_from.add_argument(
        "--reuse_head",
        action="store_true",
        help="Keep a segmenter's trained head, whose classes must be the dataset's. Default: a new linear one.",
    )
    parser.add_argument(
        "--linear_probe", action="store_true", help="Train the head alone: the network is frozen, BatchNorm and all."
    )
    parser.add_argument(
        "--no_augmentation",
        action="store_true",
        help="Show the scans as they are, neither turned nor mirrored: to see whether a few can be learnt by heart.",
    )
    parser.add_argument(
        "--intensity_scaling",
        choices=INTENSITY_SCALINGS,
        help="What the network is fed with. Default: the checkpoint's; with --preset the paper's for the dataset.",
    )
    arguments.add_data_arguments(parser)
    arguments.add_training_arguments(parser, learning_rate=0.02, num_train_epochs=30, frames_per_step=FRAMES_PER_STEP)
    parser.add_argument(
        "--head_learning_rate",
        type=float,
        help=f"Of a linear head. Default: {HEAD_LEARNING_RATE}, and {PROBE_LEARNING_RATE} in a linear probe.",
    )
    # With the paper's 0.02, a short run from scratch would be evaluated by statistics that are still the first ones.
    parser.add_argument(
        "--batch_norm_momentum",
        type=float,
        help="Of the running statistics outside the residual blocks; 0.02 in the paper. Default: the checkpoint's.",
    )
    arguments.add_tracking_arguments(parser)
    arguments.add_run_arguments(parser, output_dir="out/finetuned")
    args = arguments.parse_or_street(parser, STREET_DEFAULTS)
    if args.on_street:
        arguments.use_street_of_checkpoint(args, parser)
    if args.preset:
        args.model_name_or_path = None
    if args.head_learning_rate is None:
        args.head_learning_rate = PROBE_LEARNING_RATE if args.linear_probe else HEAD_LEARNING_RATE
    args.freeze_batch_norm |= args.linear_probe  # all that tells evaluation mode from training mode in this network
    return args


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)

    # Data
    frames = load_split(args, args.split, args.data_fraction)
    processor = create_processor(args, frames.taxonomy)
    augmentation = None if args.no_augmentation else AugmentationConfig()
    samples = AnnotatedSamples(frames, processor.feature_extractor, augmentation, args.seed)
    validation = None
    if args.validation_split is not None:
        validation = AnnotatedSamples(load_split(args, args.validation_split), processor.feature_extractor)

    # Model, with a head that names the dataset's classes
    model = create_model(args, frames.class_names)

    # Training
    run = create_run(accelerator, args, model, parameter_groups(args, model), samples, FRAMES_PER_STEP)
    accelerator.init_trackers("uov-finetune", {name: str(value) for name, value in vars(args).items()})
    objective = Objective(collate_scans, count_labelled_voxels, "num_labelled_voxels", LOSSES)
    train(run, args, objective, samples, validation)

    # What others load
    if accelerator.is_main_process:
        save_checkpoint(run.output_dir, accelerator.unwrap_model(run.model), processor)
        write_card(run, args, frames, "finetune", TERMS, SETTINGS_IN_THE_CARD, args.split, len(samples))
        if args.push_to_hub:
            logger.info(f"Pushed to {push_run(run, args)}")
    wait_for_all(accelerator)
    accelerator.end_training()


def create_processor(args: argparse.Namespace, taxonomy: str | None) -> UOVProcessor:
    """The checkpoint's, or one with the paper's voxels; the intensity is scaled as one says, or as it was."""
    if args.preset:
        scaling = PAPER_INTENSITY_SCALINGS.get(taxonomy, "raw")
        processor = UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling=scaling))
    else:
        processor = UOVProcessor.from_pretrained(args.model_name_or_path)
    if args.intensity_scaling is not None:
        processor.feature_extractor.intensity_scaling = args.intensity_scaling
    return processor


def create_model(args: argparse.Namespace, class_names: list[str]) -> UOVForSemanticSegmentation:
    """A segmenter in these classes: the checkpoint's own, or its network, or an untrained one, with a new head."""
    if not class_names:
        raise ValueError(f"{args.dataset} says of no class what it is called: fine-tuning needs an annotated dataset.")
    if args.reuse_head:
        model = load_segmenter(args, class_names)
    else:
        model = UOVForSemanticSegmentation.from_backbone(create_network(args), "linear", class_names)
    if args.linear_probe:
        if model.classifier is None:
            raise ValueError(
                f"--linear_probe: the head of {args.model_name_or_path} are words, which do not learn. Leave out "
                "--reuse_head for a new linear head."
            )
        model.uov.requires_grad_(False)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return model


def load_segmenter(args: argparse.Namespace, class_names: list[str]) -> UOVForSemanticSegmentation:
    """The checkpoint with its head, if it has one for these classes."""
    config = UOVConfig.from_pretrained(args.model_name_or_path, **config_changes(args))
    if UOVForSemanticSegmentation.__name__ not in (config.architectures or []):
        raise ValueError(
            f"--reuse_head: {args.model_name_or_path} has no head. Leave the switch out, and it gets a new one."
        )
    known = list(config.id2label.values())
    if known != list(class_names):
        raise ValueError(
            f"--reuse_head: {args.model_name_or_path} names the classes {known}, the dataset has {list(class_names)}. "
            "Leave the switch out, and it gets a new head."
        )
    return UOVForSemanticSegmentation.from_pretrained(args.model_name_or_path, config=config, dtype=torch.float32)


def create_network(args: argparse.Namespace) -> UOVModel:
    """The checkpoint's network, or an untrained one without words: of the checkpoint's sizes, or of a preset."""
    changes = config_changes(args)
    if args.preset:
        return UOVModel(UOVConfig.from_preset(args.preset, **changes))
    if args.from_scratch:
        words = {"prompts": [], "id2label": {}, "text_config": None}
        return UOVModel(UOVConfig.from_pretrained(args.model_name_or_path, **changes, **words))
    return UOVModel.from_pretrained(args.model_name_or_path, dtype=torch.float32, **changes)


def config_changes(args: argparse.Namespace) -> dict[str, float]:
    return {} if args.batch_norm_momentum is None else {"batch_norm_momentum": args.batch_norm_momentum}


def parameter_groups(args: argparse.Namespace, model: UOVForSemanticSegmentation) -> list[dict]:
    """The network, unless it is only probed, and a linear head, which learns faster."""
    groups = [] if args.linear_probe else [{"params": model.uov.parameters()}]
    if model.classifier is not None:
        groups.append({"params": model.classifier.parameters(), "lr": args.head_learning_rate})
    return groups


if __name__ == "__main__":
    main()
