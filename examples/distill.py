"""Distillation: train the pre-trained network, with a head, as a segmenter on the teacher's labels of the points.

    accelerate launch examples/distill.py --model_name_or_path out/tmp --dataset nuscenes --data_dir data/nuscenes \\
        --label_set labels/ --output_dir out/uov
    accelerate launch examples/distill.py examples/configs/nuscenes/distill.yaml --seed 1
    accelerate launch examples/distill.py --preset minkunet34 --dataset nuscenes --data_dir data/nuscenes \\
        --label_set labels/ --output_dir out/uov

Defaults are the paper's. With --preset it needs no checkpoint, only a label set, which may lack embeddings. Without
--dataset it trains on the synthetic street that pretrain.py rendered beside the checkpoint.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.counts import check_counts
from uov_hf.labels import LabelSet
from uov_hf.reproduction.record import start_record
from uov_hf.training.arguments import (
    STREET_DEFAULTS,
    AugmentationArguments,
    LabelSetArguments,
    NetworkArguments,
    SegmenterArguments,
    option,
    parse_arguments,
    require_checkpoint,
)
from uov_hf.training.class_balance import class_weights
from uov_hf.training.collation import ScanBatch
from uov_hf.training.launch import start
from uov_hf.training.loop import train
from uov_hf.training.networks import give_words, make_config
from uov_hf.training.objectives import DISTILLATION
from uov_hf.training.optimization import segmenter_groups
from uov_hf.training.publishing import finish_run
from uov_hf.training.run import create_run
from uov_hf.training.samples import DistillationSamples, load_labelled_frames
from uov_hf.training.self_training import SelfTraining, average_weights
from uov_hf.training.several_datasets import JoinedSamples, open_label_sets


@dataclass(kw_only=True)
class DistillationArguments(LabelSetArguments, NetworkArguments, AugmentationArguments, SegmenterArguments):
    """Arguments of distillation."""

    stage = "distill"
    frames_per_step: ClassVar[int] = 16

    from_scratch: bool = option(
        False, "Keep the sizes, voxels and words of the checkpoint, and start from random weights."
    )
    preset: Literal["minkunet34", "tiny"] | None = option(
        None,
        "Use no checkpoint, but an untrained network of this size; a text head has the label set's words.",
    )
    head: Literal["linear", "text"] = option(
        "linear", "A new linear classifier, as in the paper, or the prompts: the vocabulary then stays open."
    )
    class_balance: float = option(
        0.0,
        "Weight each class in the cross-entropy by its share of the labels to the power of minus this number, from 0 "
        "to 1. The paper has 0.",
    )
    confidence_weighting: bool = option(False, "Weight labels in the cross-entropy by the teacher's confidence.")
    self_training_epochs: int = option(
        0,
        "Epochs at the end of the run in which an average of the network's weights labels the points that "
        "have no label. The paper has none.",
    )
    self_training_confidence: float = option(0.9, "Smallest probability of such a label, from 0 to 1.")
    ema_decay: float = option(0.99, "Decay of the average per step.")
    num_train_epochs: int = option(5, "Passes over the frames.")
    output_dir: str = option("out/uov", "Folder of the results.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, 0, "self_training_epochs")
        if not 0 <= self.class_balance <= 1:
            raise ValueError(f"--class_balance must be from 0 to 1, got {self.class_balance}.")
        if self.preset is None and (given := self.voxel_settings()):
            raise ValueError(
                f"Only an untrained network takes --{', --'.join(given)}: give --preset. A checkpoint has its own."
            )


def main() -> None:
    args = parse_arguments(DistillationArguments, __doc__, STREET_DEFAULTS)
    require_checkpoint(args.model_name_or_path)
    accelerator = start(args.output_dir, args.seed, args.mixed_precision, args.report_to)
    recorder = start_record(accelerator, args.output_dir)

    # Data
    label_sets = open_label_sets(args.label_set, only="points")
    uov, processor = create_network(args, label_sets[0])

    loaded = load_labelled_frames(accelerator, args, args.datasets, label_sets, args.data_fraction)
    weights = None
    if args.class_balance:
        weights = class_weights(loaded, len(label_sets[0].class_names), args.class_balance)

    def make_samples(datasets, augmentation=None) -> JoinedSamples[ScanBatch]:
        settings = (processor.feature_extractor, augmentation, args.seed, args.confidence_weighting, weights)
        return JoinedSamples(DistillationSamples(one.frames, one.point_labels, *settings) for one in datasets)

    samples = make_samples(loaded, args.augmentation())
    validation = None
    if any(args.validation_datasets):
        validation = make_samples(load_labelled_frames(accelerator, args, args.validation_datasets, label_sets))

    # Model, with the label sets' classes
    model = UOVForSemanticSegmentation.from_backbone(uov, args.head, label_sets[0].class_names)
    average = average_weights(model, args.ema_decay) if args.self_training_epochs else None

    # Training
    recorder.read(args, samples.frames, model)
    run = create_run(accelerator, args, model, segmenter_groups(model, args.head_learning_rate), samples)
    objective, self_training = DISTILLATION, None
    if average is not None:
        settings = (args.self_training_epochs, args.self_training_confidence, args.confidence_weighting, weights)
        self_training = SelfTraining(run, average, *settings)
        objective = replace(objective, complete_batch=self_training.complete, after_step=self_training.update)
    train(run, args, objective, samples, validation)
    if self_training is not None:
        self_training.check()

    # Checkpoint
    finish_run(run, args, objective, accelerator.unwrap_model(run.model), processor, label_sets)
    recorder.write()


def create_network(args: DistillationArguments, label_set: LabelSet) -> tuple[UOVModel, UOVProcessor]:
    """The checkpoint's network, or an untrained one: of the checkpoint's sizes and words, or of a preset."""
    if args.preset is not None:
        feature_extractor = UOVFeatureExtractor(**args.voxel_settings())
        if args.head == "linear":  # no words, and no CLIP to load for them
            return UOVModel(UOVConfig.from_preset(args.preset)), UOVProcessor.from_teacher(feature_extractor)
        uov = UOVModel(make_config(args.preset, label_set))
        return uov, give_words(uov, label_set, feature_extractor)
    uov = UOVModel.from_pretrained(args.model_name_or_path, dtype=torch.float32)
    if args.from_scratch:
        pretrained, uov = uov, UOVModel(uov.config)
        uov.prompt_embeds, uov.prompt_to_class = pretrained.prompt_embeds, pretrained.prompt_to_class
        uov.text_tower = pretrained.text_tower
    return uov, UOVProcessor.from_pretrained(args.model_name_or_path)


if __name__ == "__main__":
    main()
