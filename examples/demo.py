"""The whole recipe on a synthetic street: render towns, label, pre-train, distil, evaluate in other towns.

    python examples/demo.py --output_dir out/demo

One camera is left out, in training and in the test towns: no camera sees a part of every scan, and only a 3D network
can label it. Two baselines are fitted on the same teacher labels: the majority class, and a classifier of single
points by intensity, height and range. The student is then distilled, and its predictions are refined by AFI. This run
measures every number that it prints. Its stages are the recipe examples/configs/demo.yaml.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.counts import positive_int
from uov_hf.data import load_frames
from uov_hf.evaluation import predictions
from uov_hf.evaluation.baselines import PredictLabels, fit_baselines
from uov_hf.evaluation.reports import results_table, to_results, write_results
from uov_hf.evaluation.scans import LabelledScan, LabelledScans
from uov_hf.evaluation.scores import score_segmenter
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.recipe.sections import SECTIONS
from uov_hf.recipe.stage import RECORD
from uov_hf.reproduction.record import Execution, RunRecorder
from uov_hf.reproduction.rerun import digest_demo_recipe
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


RECIPE = Path(__file__).with_name("configs") / "demo.yaml"
MIN_RANGE = 2.0  # metres; nearer is the ego car
IMAGE_SIZE = (320, 320)  # not as wide as nuScenes's: such cameras see the ground near the car


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("out/demo"))
    parser.add_argument("--train_scenes", type=positive_int, default=20, help="Each has a town of its own.")
    parser.add_argument("--test_scenes", type=positive_int, default=4, help="Towns that are not trained on.")
    parser.add_argument("--frames_per_scene", type=positive_int, default=4)
    parser.add_argument("--set", nargs="+", default=[], metavar="STAGE.NAME=VALUE", help="As of uov-hf train.")
    parser.add_argument("--seed", type=int, default=0, help="Of the towns and of the training.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)  # of the untrained network
    execution = Execution("cpu", 1, torch.get_num_threads(), engine="torch")
    recorder = RunRecorder(args.output_dir, "demo", sys.argv[1:], execution)
    recorder.arguments, recorder.seed, recorder.inputs = vars(args), args.seed, digest_demo_recipe()
    started = time.perf_counter()
    street, labels, pretrained, distilled = (args.output_dir / name for name in ("street", "labels", "tmp", "uov"))
    shutil.rmtree(street, ignore_errors=True)  # an earlier run's
    make_towns(args, street)
    costs = {"towns": {"seconds": round(time.perf_counter() - started, 1)}}
    costs |= run_recipe(args, street)

    print("\nFitting the baselines, and evaluating all on the test towns …", flush=True)
    model, processor = UOVModel.from_pretrained(pretrained).eval(), UOVProcessor.from_pretrained(pretrained)
    train, test = (read_scans(street, split, labels, processor.feature_extractor) for split in ("train", "test"))
    segmenters = {
        "untrained": predictor(untrained(model, LabelSet(labels)), processor),
        **fit_baselines(train, args.seed),
        "student": predictor(model, processor),
        **distilled_segmenters(distilled),
    }
    results = score(test, segmenters, model.config.num_labels)
    class_names = list(model.config.id2label.values())
    seconds = round(time.perf_counter() - started)
    write_results(
        args.output_dir / "results.json", results | {"class_names": class_names, "seconds": seconds, "stages": costs}
    )
    draw(args.output_dir, test[0], segmenters["distilled"], class_names)
    print(f"\n{results_table(results, class_names)}\n")
    recorder.write(["", "labels", "labels/points/paper", "tmp", "uov"])
    print(f"{seconds} s. A scan of a test town: {args.output_dir / 'viewer.html'}")


def make_towns(args: argparse.Namespace, street: Path) -> None:
    """A nuScenes root of towns to train in and other towns to test in."""
    print(f"Rendering {args.train_scenes} towns to train in and {args.test_scenes} to test in …", flush=True)
    generate_street(
        street,
        num_scenes=args.train_scenes + args.test_scenes,
        frames_per_scene=args.frames_per_scene,
        seed=args.seed,
        image_size=IMAGE_SIZE,
        splits={"train": args.train_scenes, "test": args.test_scenes},
        num_workers=2,
    )


def run_recipe(args: argparse.Namespace, street: Path) -> dict[str, dict[str, float]]:
    """Run all stages on two processes; what each cost, in the fields of `Cost`."""
    options = ["--from", "generate_label_set", "--seed", str(args.seed), *(["--set", *args.set] if args.set else [])]
    folders = ["--data_dir", str(street), "--output_dir", str(args.output_dir)]
    # CPU processes also where there is a GPU, so that every machine gets the same figures.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "uov_hf_cli", "train", str(RECIPE), *folders, *options]
    subprocess.run(command, env=environment, check=True)
    records = {name: args.output_dir / section.folder / RECORD for name, section in SECTIONS.items()}
    return {name: json.loads(path.read_text())["cost"] for name, path in records.items() if path.is_file()}


def read_scans(street: Path, split: str, labels: Path, feature_extractor) -> list[LabelledScan]:
    """The scans of a split with truth and teacher's labels; point labels are made first where there are none."""
    frames = load_frames("nuscenes", split, data_dir=street)
    label_points(LabelSet(labels), frames)
    scans = LabelledScans(frames, feature_extractor, PointLabels(labels), MIN_RANGE)
    return [scans[index] for index in range(len(scans))]


def untrained(model: UOVModel, label_set: LabelSet) -> UOVModel:
    """The same network and vocabulary, with the weights it had before any training."""
    fresh = UOVModel(model.config).eval()
    prompt_embeds = torch.from_numpy(label_set.prompt_embeds)
    fresh.set_classes(label_set.class_names, prompt_embeds, label_set.prompt_to_class, label_set.prompts)
    return fresh


def predictor(model: torch.nn.Module, processor: UOVProcessor, refine: str | None = None) -> PredictLabels:
    """The predictions of a model, refined if `refine` is `"afi"`."""
    predict = predictions.Segmenter(model, processor, refine)
    return lambda scan: predict(scan).labels


def distilled_segmenters(checkpoint: Path) -> dict[str, PredictLabels]:
    """The distilled network, with and without AFI."""
    model = UOVForSemanticSegmentation.from_pretrained(checkpoint).eval()
    processor = UOVProcessor.from_pretrained(checkpoint)
    return {"distilled": predictor(model, processor), "distilled_afi": predictor(model, processor, "afi")}


def score(scans: list[LabelledScan], segmenters: dict[str, PredictLabels], num_labels: int) -> dict[str, dict]:
    """Metrics of every segmenter, on all points and on those that a camera sees and that none does."""
    found = {name: score_segmenter(segmenter, scans, num_labels) for name, segmenter in segmenters.items()}
    teacher = score_segmenter(lambda scan: scan.teacher_labels, scans, num_labels)
    matrices = {"untrained": found.pop("untrained")["all_points"], "teacher_seen_points": teacher["seen_points"]}
    for name, region in itertools.product(found, scans[0].regions):
        everywhere = name.startswith("distilled") and region == "all_points"
        matrices[name if everywhere else f"{name}_{region}"] = found[name][region]
    return to_results(matrices)


def draw(output_dir: Path, scan: LabelledScan, segmenter: PredictLabels, class_names: list[str]) -> None:
    """One scan as a file, and its predicted labels in an interactive viewer and seen from above."""
    colors, segmentation = load_vocabulary("nuscenes").colors, segmenter(scan)
    title = "The distilled student in a town that it was not trained on"
    scan.points.tofile(output_dir / "scan.bin")
    write_viewer(
        output_dir / "viewer.html",
        scan.points,
        segmentation,
        class_names,
        colors,
        intensity=scan.points[:, 3],
        ground_truth=scan.labels,
        title=title,
    )
    draw_birds_eye_view(scan.points, segmentation, class_names, colors, title=title).save(output_dir / "scan.png")


if __name__ == "__main__":
    main()
