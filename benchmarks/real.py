"""The recipe on real drives: label, pre-train, distil, test on annotated scans of other places, beside baselines.

    python benchmarks/real.py --output_dir out/real
    python benchmarks/real.py --cases my_cases.yaml --data_dir data --seeds 0 --output_dir out/mine
    python benchmarks/real.py --steps 250 1000 4000 --frame_strides 1 2 4 --seeds 0 --output_dir out/curve
    python benchmarks/real.py --change training.mix_sectors=false --without_pretraining --output_dir out/unmixed
    python benchmarks/real.py --cases benchmarks/real.yaml benchmarks/street.yaml --data_dir out/demo

Each case trains on frames without a 3D label, and tests on annotated ones. The file of cases has the teacher, the
datasets and all settings (benchmarks/real.yaml). Two networks see the same number of steps: one is distilled from
scratch, the other is pre-trained (TMP) for the first half. The baselines are fitted on the same labels. Prints a table
for each case, and writes results.json and views of three test scans from above. They show the data, whose terms may
not allow to publish them. A second run in the same folder repeats no training that has the same command.
"""

import argparse
import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from common import describe_machine, make_parser, table, timed
from threadpoolctl import threadpool_limits  # scikit-learn brings it

from uov_hf import UOVForSemanticSegmentation, UOVModel, UOVProcessor
from uov_hf.configuration_uov import IGNORED
from uov_hf.counts import positive_int
from uov_hf.data import Frames, load_frames
from uov_hf.evaluation.baselines import PredictLabels, fit_baselines
from uov_hf.evaluation.metrics import ConfusionMatrix
from uov_hf.evaluation.predictions import Segmenter
from uov_hf.evaluation.reports import to_results, write_results
from uov_hf.evaluation.scans import LabelledScan, LabelledScans
from uov_hf.geometry.projection import Camera
from uov_hf.labels import LabelSet, PointLabels, label_points
from uov_hf.own_car.calibration import read_calibration
from uov_hf.pictures.visualization import draw_birds_eye_view
from uov_hf.recipe.programs import Launch
from uov_hf.recipe.stage import Stage
from uov_hf.vocabulary import load_vocabulary


NUM_PICTURES = 3  # test scans of each case
AFI = ", AFI"
NEAR = 6.0  # metres from the sensor; the nearest ground that a forward camera sees is farther
REGIONS = ("all", "seen", "unseen", "near")
Options = dict[str, Any]


def make_stage(script: str, options: Options, output_dir: Path) -> Stage:
    """A stage whose folder has its result and its log."""
    return Stage(script, options, output_dir, {"output_dir": str(output_dir)})


def run_stage(stage: Stage, num_threads: int) -> float:
    """Run a stage in one process unless its folder has its result; the CPU seconds it took."""
    launch = Launch(environment={"OMP_NUM_THREADS": str(num_threads)})
    return stage.run(launch, stage.output_dir / "log.txt").cpu_seconds


def run_arm(stages: list[Stage]) -> float:
    """Run the stages of a training in one thread; the CPU seconds they took."""
    return sum(run_stage(stage, num_threads=1) for stage in stages)


class Case:
    """One case of the file: its label sets, its trainings for every seed, its baselines and scores."""

    def __init__(self, settings: Options, shared: Options, seeds: list[int], folder: Path):
        self.name, self.vocabulary = settings["name"], load_vocabulary(settings["vocabulary"])
        self.settings, self.shared, self.seeds = settings, shared, seeds
        self.steps, self.stride = settings["steps"], settings.get("frame_stride", 1)
        self.folder = folder / self.name.replace(" ", "_").lower()
        self.run_folder = self.folder / f"{self.steps}_steps_stride_{self.stride}"
        self.train_labels = [self.folder / f"labels_{index}" for index in range(len(settings["train"]))]
        self.test_labels = self.folder / "labels_test" if settings["test_has_images"] else None

    def make_labels(self) -> None:
        """The teacher's labels of the images to train on and, if there are any, of the test images."""
        datasets = [*zip(self.settings["train"], self.train_labels, strict=True)]
        if self.test_labels is not None:
            datasets.append((self.settings["test"], self.test_labels))
        for dataset, folder in datasets:
            options = {**self.shared["teacher"], "vocabulary": self.settings["vocabulary"], **dataset}
            run_stage(make_stage("generate_label_set", options, folder), num_threads=os.cpu_count() or 1)
            label_points(LabelSet(folder), open_frames(dataset))

    def arms(self, seed: int) -> dict[str, list[Stage]]:
        """The trainings of a seed, each a list of stages; the last has the segmenter."""
        train = self.settings["train"]
        data = {name: [dataset[name] for dataset in train] for name in train[0]}
        data |= {"label_set": [str(folder) for folder in self.train_labels], "frame_stride": self.stride}
        common = {**data, **self.shared["training"]}
        network, distillation = self.shared["network"], {**common, **self.shared["distillation"]}
        folder = self.run_folder / f"seed_{seed}"
        scratch = make_stage("distill", network | distillation | self._length(seed, self.steps), folder / "scratch")
        if not self.settings["with_pretraining"]:
            return {"scratch": [scratch]}
        half = self._length(seed, self.steps // 2)
        pretrain = make_stage("pretrain", network | common | self.shared["pretraining"] | half, folder / "tmp")
        start = {"model_name_or_path": str(pretrain.output_dir)}
        return {
            "scratch": [scratch],
            "tmp": [pretrain, make_stage("distill", start | distillation | half, folder / "distilled")],
        }

    def _length(self, seed: int, steps: int) -> Options:
        return {"max_train_steps": steps, "seed": seed}

    def score(self) -> dict[str, Any]:
        """The scores of the baselines, of the teacher and of each training, by method and seed."""
        first = self.arms(self.seeds[0])["scratch"][0].output_dir
        extractor = UOVProcessor.from_pretrained(first).feature_extractor
        train = [
            scan
            for dataset, folder in zip(self.settings["train"], self.train_labels, strict=True)
            for scan in read_scans(open_frames(dataset, self.stride), extractor, folder, needs_truth=False)
        ]
        test_frames = open_frames(self.settings["test"])
        test = with_regions(read_scans(test_frames, extractor, self.test_labels, cameras=self._test_cameras()))
        found: dict[str, list[dict[str, Any]]] = {}
        if self.test_labels is not None:
            teacher = self._results(lambda scan: scan.teacher_labels, test, train)
            found["teacher"] = [{"seen": teacher["seen"], "agreement": 1.0}]  # it labels no other points
        for seed in self.seeds:
            for name, predict in {**fit_baselines(train, seed), **self._students(seed)}.items():
                # AFI takes a second a scan, and is not trained: its agreement with the teacher is left out.
                scans = [] if name.endswith(AFI) else train
                found.setdefault(name, []).append(self._results(predict, test, scans))
        self._draw(test)
        about = {"name": self.name, "steps": self.steps, "frames": len(train), "seeds": self.seeds}
        return {**about, "class_names": self.vocabulary.class_names, "scores": found}

    def _students(self, seed: int) -> dict[str, PredictLabels]:
        arms = self.arms(seed)
        students = segmenters("distilled from scratch", arms["scratch"][-1].output_dir)
        if "tmp" in arms:
            pretrained, distilled = (stage.output_dir for stage in arms["tmp"])
            zero_shot = Segmenter(
                UOVModel.from_pretrained(pretrained).eval(), UOVProcessor.from_pretrained(pretrained)
            )
            students |= {"TMP, by words": lambda scan: zero_shot(scan).labels}
            students |= segmenters("TMP, then distilled", distilled)
        return students

    def _test_cameras(self) -> list[Camera]:
        """Of scans without images: the points in view of `test_camera` are seen."""
        if self.settings["test_has_images"]:
            return []
        calibration = read_calibration(Path(self.settings["test_camera"]))
        return [mount.camera for mount in calibration.cameras.values()]

    def _results(self, predict: PredictLabels, test: list[LabelledScan], train: list[LabelledScan]) -> dict[str, Any]:
        matrices = {region: ConfusionMatrix(len(self.vocabulary.class_names), IGNORED) for region in REGIONS}
        for scan in test:
            labels = predict(scan)
            for region, inside in scan.regions.items():
                matrices[region].update(labels[inside], scan.labels[inside])
        return {**to_results(matrices), "agreement": agreement(predict, train)}

    def _draw(self, test: list[LabelledScan]) -> None:
        """Views from above of truth and prediction of the first seed."""
        predict = self._students(self.seeds[0])["distilled from scratch"]
        for scan in test[:NUM_PICTURES]:
            for kind, labels in {"truth": scan.labels, "prediction": predict(scan)}.items():
                path = self.run_folder / f"{scan.frame_id.replace('/', '_')}_{kind}.png"
                names, colors = self.vocabulary.class_names, self.vocabulary.colors
                draw_birds_eye_view(scan.points, labels, names, colors, title=f"{kind}, {scan.frame_id}").save(path)


def open_frames(dataset: Options, frame_stride: int = 1) -> Frames:
    """The frames that the options of a script name."""
    names = ("dataset", "split", "data_dir", "dataset_config")
    return load_frames(**{name: dataset[name] for name in names if name in dataset}, frame_stride=frame_stride)


def read_scans(
    frames: Frames, extractor, labels: Path | None, needs_truth: bool = True, cameras: Sequence[Camera] = ()
) -> list[LabelledScan]:
    """All scans, with the teacher's labels if there are any."""
    point_labels = None if labels is None else PointLabels(labels)
    scans = LabelledScans(frames, extractor, point_labels, needs_truth=needs_truth, cameras=cameras)
    return [scans[index] for index in range(len(scans))]


def with_regions(scans: list[LabelledScan]) -> list[LabelledScan]:
    """The scans with the regions that are scored."""
    found = []
    for scan in scans:
        seen, near = scan.regions["seen_points"], np.hypot(scan.points[:, 0], scan.points[:, 1]) < NEAR
        regions = {"all": np.ones_like(seen), "seen": seen, "unseen": ~seen, "near": near}
        found.append(replace(scan, regions=regions))
    return found


def segmenters(name: str, checkpoint: Path) -> dict[str, PredictLabels]:
    """A segmenter, plain and refined by AFI."""
    model = UOVForSemanticSegmentation.from_pretrained(checkpoint).eval()
    processor = UOVProcessor.from_pretrained(checkpoint)
    plain, refined = Segmenter(model, processor), Segmenter(model, processor, "afi")
    return {name: lambda scan: plain(scan).labels, name + AFI: lambda scan: refined(scan).labels}


def agreement(predict: PredictLabels, train: Iterable[LabelledScan]) -> float | None:
    """Share of the points with a label of the teacher that get the same label; None without any."""
    same = total = 0
    for scan in train:
        labelled = scan.teacher_labels != IGNORED
        same += int((predict(scan)[labelled] == scan.teacher_labels[labelled]).sum())
        total += int(labelled.sum())
    return same / total if total else None


def parse_args() -> argparse.Namespace:
    parser = make_parser(__doc__, with_data_dir=True)
    settings = [Path(__file__).with_suffix(".yaml")]
    parser.add_argument(
        "--cases", type=Path, nargs="+", default=settings, help="files; a section of a later one replaces an earlier's"
    )
    parser.add_argument("--only", nargs="+", help="cases to run, by name; without it all")
    parser.add_argument("--without_pretraining", action="store_true", help="distil from scratch only")
    parser.add_argument(
        "--change", nargs="+", default=[], metavar="SECTION.NAME=VALUE", help="settings instead of those of the file"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=positive_int, nargs="+", help="of each network, instead of those of the cases")
    parser.add_argument("--frame_strides", type=positive_int, nargs="+", default=[1], help="train on every n-th frame")
    parser.add_argument(
        "--jobs", type=positive_int, default=os.cpu_count(), help="trainings at a time, one thread each"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("out/real"))
    args = parser.parse_args()
    args.output_dir = args.output_dir.resolve()
    return args


def read_cases(args: argparse.Namespace) -> list[Case]:
    """The cases of the file, with `{data_dir}` replaced."""
    content: Options = {}
    for path in args.cases:
        text = path.read_text(encoding="utf-8").replace("{data_dir}", str(args.data_dir.resolve()))
        content |= yaml.safe_load(text)
    every = content.pop("cases")
    for change in args.change:
        setting, _, value = change.partition("=")
        section, _, name = setting.partition(".")
        if section not in content or not name or not value:
            sections = ", ".join(content)
            raise SystemExit(f"--change: expected SECTION.NAME=VALUE with a section of {sections}, got {change!r}.")
        content[section][name] = yaml.safe_load(value)
    names = [settings["name"] for settings in every]
    if unknown := set(args.only or names) - set(names):
        raise SystemExit(f"--only: {path} has no case {', '.join(sorted(unknown))}. It has {', '.join(names)}.")
    for settings in every:
        if len({frozenset(dataset) for dataset in settings["train"]}) > 1:
            raise SystemExit(f"{path}: the train datasets of {settings['name']!r} must have the same options.")
    without_pretraining = {"with_pretraining": False} if args.without_pretraining else {}
    return [
        Case(
            settings | without_pretraining | {"steps": steps, "frame_stride": stride},
            content,
            args.seeds,
            args.output_dir,
        )
        for settings in every
        if args.only is None or settings["name"] in args.only
        for steps, stride in itertools.product(args.steps or [settings["steps"]], args.frame_strides)
    ]


def main() -> None:
    args = parse_args()
    print(describe_machine(), flush=True)
    cases = read_cases(args)
    for case in cases:
        case.make_labels()
    arms = [stages for case in cases for seed in case.seeds for stages in case.arms(seed).values()]
    with ThreadPoolExecutor(args.jobs) as pool:
        seconds, costs = timed(
            lambda: list(pool.map(lambda stages: sum(run_stage(stage, 1) for stage in stages), arms))
        )
    print(f"{len(arms)} trainings in {seconds / 60:.0f} minutes; CPU seconds of each: {costs}", flush=True)
    with threadpool_limits(1):  # two OpenMP threads beside other processes took a hundred times as long
        results = [case.score() for case in cases]
    write_results(args.output_dir / "results.json", {"cases": results})
    for result in results:
        print(f"\n{report(result)}")


def report(result: dict[str, Any]) -> str:
    """The scores of a case as Markdown: accuracy and mean IoU in %, mean ± deviation over the seeds."""
    header = [f"{result['name']}, {result['frames']} frames, {result['steps']} steps"]
    header += [f"{region}, {kind}" for region in REGIONS for kind in ("accuracy", "mIoU")] + ["agreement"]
    rows = []
    for name, runs in result["scores"].items():
        cells = [
            spread([run[region][key] for run in runs if region in run])
            for region in REGIONS
            for key in ("overall_accuracy", "mean_iou")
        ]
        rows.append([name.replace("_", " "), *cells, spread([run["agreement"] for run in runs])])
    return table(header, rows)


def spread(values: list[float]) -> str:
    """Mean and deviation in %."""
    shares = [100 * value for value in values if value is not None]
    if not shares:
        return "–"
    return f"{np.mean(shares):.1f}" + (f" ± {np.std(shares, ddof=1):.1f}" if len(shares) > 1 else "")


if __name__ == "__main__":
    main()
