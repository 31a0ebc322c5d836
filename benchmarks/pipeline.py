"""Time of each stage of the pipeline, from the file of a scan to a label for each of its points.

    python benchmarks/pipeline.py                                                   a synthetic scan of 120,000 points
    python benchmarks/pipeline.py --model_name_or_path out/demo/uov --scan scan.bin

Stages are timed inside whole calls of the pipeline, on two threads, after a call to warm up: `read` (file to array),
`voxelise`, `network` (voxels to embeddings), `text` (the text tower, for words that no earlier call had), `back to
points` (similarities, probabilities, labels and scores of all points), and `rest`. Without a model it is the paper's
MinkUNet34 and the text tower of a CLIP ViT-B/16, both with random weights.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, make_parser, table
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, pipeline

from uov_hf import (
    PointCloudSegmentationPipeline,
    UOVConfig,
    UOVFeatureExtractor,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
    pipeline_uov,
)
from uov_hf.point_files import read_points
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


NUM_POINTS = 120_000
STAGES = ("read", "voxelise", "network", "text", "back to points", "rest")


class Stopwatch:
    """Adds the times of wrapped functions; the time of a stage inside another counts for the inner one only."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def wrap(self, owner: object, name: str, stage: str) -> None:
        """Let calls of `owner.name` count as `stage`."""
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[stage] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        setattr(owner, name, timed)

    def measure(self, call: Callable[[], object]) -> dict[str, float]:
        """Milliseconds of every stage of one call."""
        self.seconds.clear()
        start = time.perf_counter()
        call()
        total = time.perf_counter() - start
        self.seconds["rest"] = total - sum(self.seconds.values())
        return {stage: 1000 * self.seconds[stage] for stage in STAGES} | {"total": 1000 * total}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model_name_or_path", help="a checkpoint; by default random weights")
    parser.add_argument("--scan", type=Path, help="a file; by default a synthetic scan of 120,000 points")
    parser.add_argument("--refine", choices=["afi"], help="refine the labels, as a part of `back to points`")
    parser.add_argument("--num_threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7, help="timed calls; the median of each stage is reported")
    args = parser.parse_args()
    torch.set_num_threads(args.num_threads)
    segmenter = load(args.model_name_or_path)
    with tempfile.TemporaryDirectory() as folder:
        scan = args.scan or synthetic_scan(Path(folder))
        about, cases = describe_scan(segmenter, scan), measure(segmenter, scan, args.refine, args.repeats)
    rest = {name: stages["total"] - stages["network"] - stages["text"] for name, stages in cases.items()}
    rows = {stage: [stages[stage] for stages in cases.values()] for stage in (*STAGES, "total")}
    rows["total without network and text"] = rest.values()
    print(describe_machine(), about, "", sep="\n")
    print(table(["ms", *cases], [[stage, *(f"{cell:.0f}" for cell in cells)] for stage, cells in rows.items()]))


def load(model_name_or_path: str | None) -> PointCloudSegmentationPipeline:
    if model_name_or_path:
        return pipeline("point-cloud-segmentation", model=model_name_or_path, device="cpu")
    torch.manual_seed(0)
    vocabulary = load_vocabulary("nuscenes")
    uov = UOVModel(UOVConfig(projection_dim=512, teacher="clip")).eval()
    embeds = normalize(torch.randn(len(vocabulary.prompts), 512), dim=1)
    uov.set_classes(vocabulary.class_names, embeds, vocabulary.prompt_to_class, vocabulary.prompts)
    uov.set_text_tower(CLIPTextModelWithProjection(CLIPTextConfig(projection_dim=512)).eval(), source="clip")
    processor = UOVProcessor.from_teacher(UOVFeatureExtractor())
    processor.has_text_tower = True
    model = UOVForSemanticSegmentation.from_backbone(uov, head="text")
    return PointCloudSegmentationPipeline(model=model, processor=processor, device="cpu")


def synthetic_scan(folder: Path) -> Path:
    """A turn of the street's lidar through a town, of NUM_POINTS points, in the format of nuScenes."""
    street = generate_street(folder / "street", 1, 1, image_size=(36, 64), azimuth_steps=5500, splits={"all": 1})
    (path,) = (street / "samples" / "LIDAR_TOP").glob("*.pcd.bin")
    points = np.fromfile(path, np.float32).reshape(-1, 5)
    rows = np.sort(np.random.default_rng(0).permutation(len(points))[:NUM_POINTS])
    points[rows].tofile(folder / "synthetic.pcd.bin")
    return folder / "synthetic.pcd.bin"


def measure(
    segmenter: PointCloudSegmentationPipeline, scan: Path, refine: str | None, repeats: int
) -> dict[str, dict[str, float]]:
    """Median milliseconds of every stage: with the words in the cache and, where there is a text tower, new ones."""
    watch, uov = Stopwatch(), segmenter.model.uov
    watch.wrap(segmenter, "preprocess", "read")
    watch.wrap(segmenter.processor.feature_extractor, "voxelize", "voxelise")
    watch.wrap(segmenter.model, "get_voxel_logits", "network")
    watch.wrap(uov, "get_point_features", "network")
    watch.wrap(uov, "get_text_features", "text")
    watch.wrap(pipeline_uov, "best_of_prompts", "back to points")
    watch.wrap(segmenter, "postprocess", "back to points")
    options = {"intensity_max": 255, "refine": refine}
    classes = list(uov.config.id2label.values()) if segmenter.model.classifier is None else None
    segmenter(str(scan), classes, **options)  # warms up
    cases = {"cached words": lambda _: segmenter(str(scan), classes, **options)}
    if uov.config.has_teachers_text_tower:
        cases["16 new words"] = lambda number: segmenter(str(scan), new_words(number), **options)
    rounds = [
        {name: watch.measure(partial(call, number)) for name, call in cases.items()}
        for number in tqdm(range(repeats), unit="round", disable=None)
    ]
    stages = (*STAGES, "total")
    return {name: {stage: statistics.median(one[name][stage] for one in rounds) for stage in stages} for name in cases}


def new_words(number: int) -> list[str]:
    """Sixteen words that no earlier call had."""
    return [f"thing {number} {letter}" for letter in "abcdefghijklmnop"]


def describe_scan(segmenter: PointCloudSegmentationPipeline, scan: Path) -> str:
    batch = segmenter.processor(read_points(scan), intensity_max=255)
    parameters = sum(weight.numel() for weight in segmenter.model.parameters()) / 1e6
    return (
        f"{scan.name}: {int(batch['num_points'][0]):,} points in {len(batch['voxel_coords']):,} voxels; "
        f"{len(segmenter.model.config.id2label)} classes, {parameters:.1f} million parameters"
    )


if __name__ == "__main__":
    main()
