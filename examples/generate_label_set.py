"""Let a 2D open-vocabulary teacher segment the images of a dataset, and store the result as a label set.

    accelerate launch examples/generate_label_set.py --dataset nuscenes --data_dir data/nuscenes \\
        --teacher clip --teacher_model_name_or_path openai/clip-vit-large-patch14-336 --output_dir labels/
    accelerate launch examples/generate_label_set.py examples/configs/nuscenes/generate_label_set.yaml

The processes share the frames and write them one by one: a run that was stopped continues with the frame it was at.
After the first frames it reports the expected time and size, and stops if the disk has no room. Without --dataset it
renders a small synthetic street beside the label set, whose teacher is `synthetic`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate.utils import gather_object

from uov_hf.labels import LabelSet, WriteReport, identify_dataset
from uov_hf.reproduction.record import start_record
from uov_hf.synthetic import generate_street_once
from uov_hf.teachers import TEACHERS, find_teacher, load_teacher
from uov_hf.training.arguments import DataArguments, option, parse_arguments
from uov_hf.training.launch import sharing, start
from uov_hf.training.samples import load_split
from uov_hf.vocabulary import load_vocabulary
from uov_hf_cli.label_images import parse_setting


@dataclass(kw_only=True)
class LabelSetGenerationArguments(DataArguments):
    """Arguments of the teacher stage."""

    teacher: str = option(
        "synthetic", f"One of {', '.join(TEACHERS)}, an installed plugin, or your own: path/to/file.py:ClassName."
    )
    trust_teacher_code: bool = option(False, "Run the Python file that --teacher names.")
    teacher_model_name_or_path: str | None = option(None, "Hub id or folder of the teacher's weights.")
    teacher_revision: str | None = option(None, "Branch, tag or commit of the teacher on the Hub.")
    teacher_settings: list[str] = field(
        default_factory=list,
        metadata={"help": "The teacher's own arguments, such as short_side=640.", "metavar": "NAME=VALUE"},
    )
    dtype: Literal["float32", "float16", "bfloat16"] = option("float32", "Of the teacher.")
    cameras: str | None = option(None, "Only these, such as CAM_FRONT,CAM_BACK. Without it, all.")
    augmentations: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Segment augmented images, too, for the vote of label_points.py: flip scale=0.75 …",
            "metavar": "NAME",
        },
    )
    vocabulary: str | None = option(None, "Prompts and their classes. Without it, those of the dataset's classes.")
    calibration_changed: bool = option(False, "Add frames although the calibration was corrected since.")
    output_dir: str = option("labels", "Folder of the label set.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.teacher_class = find_teacher(self.teacher, trust_code=self.trust_teacher_code)
        for text in self.teacher_settings:
            if "=" not in text:
                raise ValueError(f"--teacher_settings: expected NAME=VALUE, got {text!r}.")


def main() -> None:
    args = parse_arguments(LabelSetGenerationArguments, __doc__)
    accelerator = start(args.output_dir, seed=0)
    recorder = start_record(accelerator, args.output_dir)
    if args.dataset is None:
        accelerator.print("No --dataset: labelling a synthetic street. For real data give --dataset and --data_dir.")
        street = Path(args.output_dir).with_name("street")
        with accelerator.main_process_first():
            generate_street_once(street)
        args.dataset, args.data_dir, args.split = "nuscenes", str(street), args.split or "all"

    # Data
    frames = load_split(args, args.split)
    recorder.read(args, [frames])
    vocabulary = load_vocabulary(args.vocabulary or frames.taxonomy)

    # Teacher
    settings = dict(map(parse_setting, args.teacher_settings))
    source = (args.teacher_model_name_or_path, args.teacher_revision)
    vocabulary = args.teacher_class.fit_vocabulary(vocabulary, *source, **settings)
    teacher = load_teacher(
        args.teacher_class,
        args.teacher_model_name_or_path,
        prompts=vocabulary.prompts,
        revision=args.teacher_revision,
        data_dir=args.data_dir,
        device=accelerator.device,
        dtype=getattr(torch, args.dtype),
        **settings,
    )

    # Label set
    cameras = args.cameras.split(",") if args.cameras else None
    with accelerator.main_process_first():
        written_settings = {"cameras": cameras, "augmentations": args.augmentations}
        is_new = not (Path(args.output_dir) / "label_set.json").is_file()
        dataset = identify_dataset(frames, Path(args.dataset).stem, args.dataset_config) if is_new else None
        label_set = LabelSet.create(args.output_dir, teacher, vocabulary, written_settings, dataset)
    report = label_set.write(frames, teacher, cameras, args.calibration_changed, **sharing(accelerator, args.on_error))
    report = sum(gather_object([report]), WriteReport())
    accelerator.print(f"Label set {args.output_dir}: {report}")
    if not label_set.embed_dim:
        accelerator.print(
            "It has labels without embeddings: distill.py --preset trains with it, pretrain.py does not "
            "(docs/how_to/existing_labels.md)."
        )
    if not has_segments(label_set):
        raise ValueError(
            f"{args.output_dir}: expected segments in some images, got none in {len(label_set.frame_ids)} frames. "
            "Likely causes: the frames have no images, or the teacher's threshold is too high for these prompts. "
            "`uov-hf label-images` draws what a teacher predicts."
        )
    recorder.write()
    accelerator.end_training()


def has_segments(label_set: LabelSet) -> bool:
    """Whether any image has a segment; usually the first frame ends the search."""
    return any(len(label_set.read(name, ["segment_labels"])["segment_labels"]) for name in label_set.frame_ids)


if __name__ == "__main__":
    main()
