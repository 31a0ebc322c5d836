"""Tri-modal pre-training (TMP): teach a sparse 3D U-Net the space that a 2D open-vocabulary teacher shares with words.

    accelerate launch examples/pretrain.py --dataset nuscenes --data_dir data/nuscenes --label_set labels/ \\
        --output_dir out/tmp

Defaults are the paper's. Without --dataset it renders a small street, asks the synthetic teacher about it and trains
the tiny preset on that, in under two minutes.
"""

import argparse
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import AutoConfig, CLIPModel, CLIPTextModelWithProjection

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForPreTraining, UOVProcessor, save_checkpoint
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet
from uov_hf.synthetic import generate_street
from uov_hf.teachers import load_teacher
from uov_hf.training import arguments
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.collation import collate_tmp
from uov_hf.training.launch import start, wait_for_all
from uov_hf.training.loop import Objective, train
from uov_hf.training.publishing import push_run, write_card
from uov_hf.training.run import create_run
from uov_hf.training.samples import TMPSamples, load_labelled_frames
from uov_hf.training.steps import add_negatives, count_superpoints
from uov_hf.vocabulary import load_vocabulary


logger = get_logger("uov_hf.pretrain")

FRAMES_PER_STEP = 4

# The paper's schedule is for 24,000 frames, its voxels for a lidar of three times the points; the street is small.
STREET_DEFAULTS = {
    "preset": "tiny",
    "split": "train",
    "validation_split": "test",
    "voxel_size": [0.25, 0.0262, 0.25],
    "intensity_scaling": "unit_plus_one",
    "num_train_epochs": 10,
    "optimizer": "adamw",
    "learning_rate": 6e-3,
    "weight_decay": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 20,
    "dataloader_num_workers": 0,
}
SETTINGS_IN_THE_CARD = [
    "preset",
    "point_labels_preset",
    "negatives",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "freeze_batch_norm",
    "coordinate_system",
    "voxel_size",
    "intensity_scaling",
    "min_pairs",
    "data_fraction",
    "mixed_precision",
    "seed",
]
TERMS = {"total": "loss", "superpixel-superpoint": "image_loss", "text-superpoint": "text_loss"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_data_arguments(parser)
    arguments.add_label_set_arguments(parser)
    parser.add_argument("--min_pairs", type=int, default=1024, help="Points that augmentation leaves to each image.")
    parser.add_argument("--coordinate_system", choices=("cylindrical", "cartesian"), default="cylindrical")
    parser.add_argument(
        "--voxel_size",
        type=float,
        nargs=3,
        help="rho, phi, z in metres, radians, metres, or x, y, z in metres. Default: the paper's.",
    )
    parser.add_argument("--intensity_scaling", choices=("raw", "unit", "unit_plus_one"), default="raw")
    parser.add_argument("--preset", choices=("minkunet34", "tiny"), default="minkunet34", help="Size of the network.")
    parser.add_argument(
        "--negatives",
        choices=("scene", "batch", "global"),
        default="scene",
        help="Which segments a superpoint is pushed from: of its scene, of the micro-batch, of the optimiser step.",
    )
    arguments.add_training_arguments(parser, learning_rate=0.5, num_train_epochs=40, frames_per_step=FRAMES_PER_STEP)
    arguments.add_tracking_arguments(parser)
    arguments.add_run_arguments(parser, output_dir="out/tmp")
    return arguments.parse_or_street(parser, STREET_DEFAULTS)


def use_embedded_street(args: argparse.Namespace) -> None:
    """Render a street and let the synthetic teacher speak about it, unless an earlier run did; `args` name both."""
    street, labels = Path(args.output_dir) / "street", Path(args.output_dir) / "labels"
    logger.info(
        f"No --dataset: training the {args.preset} preset on a synthetic street in {street}. For real data give "
        "--dataset nuscenes --data_dir <nuScenes root> --label_set <from examples/generate_label_set.py>."
    )
    if not street.exists():
        partial = street.with_name("street.partial")
        shutil.rmtree(partial, ignore_errors=True)
        generate_street(partial, num_scenes=4, frames_per_scene=6, num_workers=2).rename(street)
    args.dataset, args.data_dir, args.label_set = "nuscenes", str(street), str(labels)
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=args.data_dir)
    label_set = LabelSet.create(labels, teacher, vocabulary, settings={"cameras": None})
    label_set.write(load_frames(args.dataset, "all", data_dir=args.data_dir), teacher, show_progress=True)


def main() -> None:
    args = parse_args()
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)
    if args.on_street:
        with accelerator.main_process_first():
            use_embedded_street(args)

    # Data
    label_set = LabelSet.open(args.label_set)
    feature_extractor = UOVFeatureExtractor(
        voxel_size=args.voxel_size,
        coordinate_system=args.coordinate_system,
        intensity_scaling=args.intensity_scaling,
    )
    augmentation = AugmentationConfig(min_pairs=args.min_pairs)
    samples = make_samples(
        accelerator, args, training_split(args), label_set, feature_extractor, augmentation, args.data_fraction
    )
    validation = None
    if args.validation_split is not None:
        validation = make_samples(accelerator, args, args.validation_split, label_set, feature_extractor)

    # Model, with the vocabulary that it will answer in
    model, processor = create_model(args, label_set, feature_extractor)

    # Training
    run = create_run(accelerator, args, model, model.parameters(), samples, FRAMES_PER_STEP)
    accelerator.init_trackers("uov-pretrain", {name: str(value) for name, value in vars(args).items()})
    objective = Objective(
        collate=collate_tmp,
        count=count_superpoints,
        counted="num_superpoints",
        terms=("image_loss", "text_loss"),
        complete_step=add_negatives if args.negatives == "global" else None,
    )
    train(run, args, objective, samples, validation)

    # What others load
    if accelerator.is_main_process:
        save_checkpoint(run.output_dir, accelerator.unwrap_model(run.model).uov, processor)
        write_card(run, args, label_set, "pretrain", TERMS, SETTINGS_IN_THE_CARD, training_split(args), len(samples))
        if args.push_to_hub:
            logger.info(f"Pushed to {push_run(run, args)}")
    wait_for_all(accelerator)
    accelerator.end_training()


def training_split(args: argparse.Namespace) -> str | None:
    """The split that was asked for; else of v1.0-trainval the paper's 600 scenes, of others the dataset's own."""
    version = args.dataset_config or "v1.0-trainval"
    if args.split is None and args.data_dir is not None and version == "v1.0-trainval":
        return "parametrizing" if (Path(args.data_dir) / version).is_dir() else None
    return args.split


def make_samples(
    accelerator: Accelerator,
    args,
    split: str | None,
    label_set: LabelSet,
    feature_extractor: UOVFeatureExtractor,
    augmentation: AugmentationConfig | None = None,
    data_fraction: float = 1.0,
) -> TMPSamples:
    frames, point_labels = load_labelled_frames(accelerator, args, split, label_set, data_fraction)
    return TMPSamples(frames, label_set, point_labels, feature_extractor, augmentation, args.seed)


def create_model(args, label_set: LabelSet, feature_extractor) -> tuple[UOVForPreTraining, UOVProcessor]:
    """An untrained network in the label set's text space; if that is a CLIP's, text tower and tokenizer go along."""
    config = UOVConfig.from_preset(
        args.preset, projection_dim=label_set.embed_dim, negatives=args.negatives, teacher=label_set.teacher_id
    )
    model = UOVForPreTraining(config)
    model.uov.set_classes(
        label_set.class_names, torch.from_numpy(label_set.prompt_embeds), label_set.prompt_to_class, label_set.prompts
    )
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable()
    source, revision = label_set.text_model
    try:
        if source is not None and AutoConfig.from_pretrained(source, revision=revision).model_type == "clip":
            processor = UOVProcessor.from_teacher(feature_extractor, source, revision)
            model.uov.set_text_tower(load_text_tower(source, revision), source=label_set.teacher_id)
            return model, processor
    except OSError as error:
        logger.warning(f"The teacher {source} is not at hand; the model will know the baked words only. {error}")
    return model, UOVProcessor.from_teacher(feature_extractor)


def load_text_tower(model_name_or_path: str, revision: str | None) -> CLIPTextModelWithProjection:
    clip = CLIPModel.from_pretrained(model_name_or_path, revision=revision)
    config = clip.config.text_config
    config.projection_dim = clip.config.projection_dim  # the text config's own is not always kept up
    tower = CLIPTextModelWithProjection(config)
    tower.text_model, tower.text_projection = clip.text_model, clip.text_projection
    return tower


if __name__ == "__main__":
    main()
