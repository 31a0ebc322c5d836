"""Tri-modal pre-training (TMP): teach a sparse 3D U-Net the space that a 2D open-vocabulary teacher shares with words.

    accelerate launch examples/pretrain.py --dataset nuscenes --data_dir data/nuscenes --label_set labels/ \\
        --output_dir out/tmp
    accelerate launch examples/pretrain.py examples/configs/nuscenes/pretrain.yaml --seed 1

Defaults are the paper's. Without --dataset it renders a small street, labels it by the synthetic teacher and trains
the tiny preset on it, in under two minutes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from accelerate.logging import get_logger

from uov_hf import UOVFeatureExtractor, UOVForPreTraining, UOVProcessor
from uov_hf.labels import LabelSet
from uov_hf.reproduction.record import start_record
from uov_hf.synthetic import generate_street_once
from uov_hf.teachers import load_teacher
from uov_hf.training.arguments import (
    AugmentationArguments,
    LabelSetArguments,
    NetworkArguments,
    TrainingArguments,
    option,
    parse_arguments,
)
from uov_hf.training.collation import TMPBatch
from uov_hf.training.launch import start
from uov_hf.training.loop import train
from uov_hf.training.networks import give_words, make_config
from uov_hf.training.objectives import tri_modal_objective
from uov_hf.training.publishing import finish_run
from uov_hf.training.run import create_run
from uov_hf.training.samples import TMPSamples, load_labelled_frames, load_split
from uov_hf.training.several_datasets import JoinedSamples, open_label_sets
from uov_hf.vocabulary import load_vocabulary


logger = get_logger("uov_hf.pretrain")

# The paper's schedule is for 24,000 frames, its voxels for a lidar of three times the points; the street is small.
STREET_DEFAULTS = {
    "preset": "tiny",
    "split": ["train"],
    "validation_split": ["test"],
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


@dataclass(kw_only=True)
class PretrainingArguments(LabelSetArguments, NetworkArguments, AugmentationArguments, TrainingArguments):
    """Arguments of pre-training."""

    stage = "pretrain"
    frames_per_step: ClassVar[int] = 4

    preset: Literal["minkunet34", "tiny"] = option("minkunet34", "Size of the network.")
    negatives: Literal["scene", "batch", "global"] = option(
        "scene", "Segments a superpoint is pushed from: of its scene, the micro-batch, the optimiser step."
    )
    min_pairs: int = option(1024, "Points that augmentation leaves to each image.")
    learning_rate: float = option(0.5, "Of the network.")
    num_train_epochs: int = option(40, "Passes over the frames.")
    output_dir: str = option("out/tmp", "Folder of the results.")

    def default_split(self, data_dir: str | None, dataset_config: str | None) -> str | None:
        """Of v1.0-trainval the paper pre-trains on 600 of the 700 training scenes."""
        version = dataset_config or "v1.0-trainval"
        is_trainval = data_dir is not None and version == "v1.0-trainval" and (Path(data_dir) / version).is_dir()
        return "parametrizing" if is_trainval else None


def main() -> None:
    args = parse_arguments(PretrainingArguments, __doc__, STREET_DEFAULTS)
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)
    recorder = start_record(accelerator, args.output_dir)
    if args.dataset is None:
        with accelerator.main_process_first():
            use_embedded_street(args)

    # Data
    label_sets = open_label_sets(args.label_set, same_space=True)
    label_set = label_sets[0]  # all have its vocabulary
    label_set.check_has_embeds()  # before point labels are made, which may take hours
    feature_extractor = UOVFeatureExtractor(**args.voxel_settings())

    def make_samples(datasets, augmentation=None, data_fraction=1.0) -> JoinedSamples[TMPBatch]:
        loaded = load_labelled_frames(accelerator, args, datasets, label_sets, data_fraction)
        return JoinedSamples(
            TMPSamples(one.frames, one.label_set, one.point_labels, feature_extractor, augmentation, args.seed)
            for one in loaded
        )

    samples = make_samples(args.datasets, args.augmentation(min_pairs=args.min_pairs), args.data_fraction)
    validation = make_samples(args.validation_datasets) if any(args.validation_datasets) else None

    # Model, with the label sets' vocabulary
    model, processor = create_model(args, label_set, feature_extractor)

    # Training
    recorder.read(args, samples.frames, model)
    run = create_run(accelerator, args, model, model.parameters(), samples)
    objective = tri_modal_objective(args.negatives)
    train(run, args, objective, samples, validation)

    # Checkpoint
    finish_run(run, args, objective, accelerator.unwrap_model(run.model).uov, processor, label_sets)
    recorder.write()


def use_embedded_street(args: PretrainingArguments) -> None:
    """Render a street and label it by the synthetic teacher, unless an earlier run did; `args` then name both."""
    street, labels = Path(args.output_dir) / "street", Path(args.output_dir) / "labels"
    logger.info(
        f"No --dataset: training the {args.preset} preset on a synthetic street in {street}. For real data give "
        "--dataset nuscenes --data_dir <nuScenes root> --label_set <from examples/generate_label_set.py>."
    )
    generate_street_once(street, num_scenes=4, frames_per_scene=6, num_workers=2)
    args.dataset, args.data_dir, args.label_set = ["nuscenes"], [str(street)], [str(labels)]
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(street))
    label_set = LabelSet.create(labels, teacher, vocabulary, settings={"cameras": None})
    label_set.write(load_split(args.datasets[0], "all"), teacher, show_progress=True)


def create_model(
    args: PretrainingArguments, label_set: LabelSet, feature_extractor: UOVFeatureExtractor
) -> tuple[UOVForPreTraining, UOVProcessor]:
    """An untrained network in the label set's text space, and its processor."""
    model = UOVForPreTraining(make_config(args.preset, label_set, negatives=args.negatives))
    return model, give_words(model.uov, label_set, feature_extractor)


if __name__ == "__main__":
    main()
