"""Students of the two presets of point labels: the demo's towns and training, paired seed by seed.

Run it by `python benchmarks/label_ablation.py --students`.
"""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

from uov_hf import UOVModel, UOVProcessor
from uov_hf.data import load_frames
from uov_hf.evaluation.segmentation import LabelledScans, score_segmenter
from uov_hf.labels import PRESETS, LabelSet, PointLabels, label_points


REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "examples"))
import demo  # noqa: E402


TRAIN_SCENES, TEST_SCENES, FRAMES_PER_SCENE = 20, 4, 4
REGIONS = ("all_points", "seen_points", "unseen_points")


def compare_students(seeds: list[int], output_dir: Path, augmentations: list[str], max_train_steps: int) -> list[str]:
    """Train a student on the labels of each preset for each seed; a Markdown table of both and their difference."""
    found = {
        seed: train_students(output_dir / f"students-{seed}", seed, augmentations, max_train_steps) for seed in seeds
    }
    lines = [
        f"`python benchmarks/label_ablation.py --students --max_train_steps {max_train_steps}`: pre-trained as in "
        f"`make demo` ({TRAIN_SCENES} towns, five cameras), on the label set with augmentations; mean IoU in %, in "
        f"{TEST_SCENES} other towns.",
        "",
        f"| points | {' | '.join(f'seed {seed}: paper → consolidated' for seed in seeds)} | mean difference |",
        f"|---|{'---:|' * len(seeds)}---:|",
    ]
    for region in REGIONS:
        pairs = [[100 * found[seed][preset][region] for preset in PRESETS] for seed in seeds]
        differences = [ours - paper for paper, ours in pairs]
        deviation = np.std(differences, ddof=1) if len(seeds) > 1 else 0.0
        cells = [f"{paper:.1f} → {ours:.1f}" for paper, ours in pairs]
        name = region.replace("_", " ")
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean(differences):+.1f} ± {deviation:.1f} |")
    return lines


def train_students(folder: Path, seed: int, augmentations: list[str], max_train_steps: int) -> dict[str, dict]:
    """Mean IoU of a student of each preset, by region; what an earlier run rendered or trained is used again."""
    street, labels = folder / "street", folder / "labels"
    on_street = f"--dataset nuscenes --data_dir {street}"
    if not (street / "splits.json").exists():
        towns = Namespace(
            train_scenes=TRAIN_SCENES, test_scenes=TEST_SCENES, frames_per_scene=FRAMES_PER_SCENE, seed=seed
        )
        demo.make_towns(towns, street)
    demo.launch(
        f"generate_label_set.py --teacher synthetic {on_street} --split all --cameras {demo.CAMERAS} "
        f"--augmentations {' '.join(augmentations)} --output_dir {labels}"
    )
    results = {}
    for preset in PRESETS:
        checkpoint = folder / f"{preset}-{max_train_steps}"
        if not (checkpoint / "model.safetensors").exists():
            demo.launch(
                f"pretrain.py {on_street} --split train --label_set {labels} --point_labels_preset {preset} "
                f"--max_train_steps {max_train_steps} {demo.TRAINING} --seed {seed} --output_dir {checkpoint}"
            )
        results[preset] = score_student(street, labels, checkpoint)
    return results


def score_student(street: Path, labels: Path, checkpoint: Path) -> dict[str, float]:
    """Mean IoU in the test towns, by region."""
    model = UOVModel.from_pretrained(checkpoint).eval()
    processor = UOVProcessor.from_pretrained(checkpoint)
    frames = load_frames("nuscenes", "test", data_dir=street)
    label_points(LabelSet(labels), frames, "paper")  # whose pairs are all points that a camera sees
    scans = LabelledScans(frames, processor.feature_extractor, PointLabels(labels, "paper"), demo.MIN_RANGE)
    loader = (scans[index] for index in range(len(scans)))
    matrices = score_segmenter(demo.answers_of(model, processor), loader, model.config.num_labels)
    return {region: matrices[region].compute()["mean_iou"] for region in REGIONS}
