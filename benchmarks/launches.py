"""Launches, waits of the host and copies of the network and AFI on an accelerator, counted on the fake GPU.

    python benchmarks/launches.py

It needs no GPU (`tests/fake_gpu.py`) and measures no time. The network is MinkUNet34 on the plain torch engine, with
the paper's voxels; labels, segments and prompts are random. tests/test_launches.py has budgets for the same paths.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from common import REPOSITORY, make_parser, table
from scans import SENSORS, find_scans, make_scans, vary
from torch.nn.functional import normalize

from uov_hf import UOVConfig, UOVForPreTraining, UOVForSemanticSegmentation, UOVModel
from uov_hf.afi import DENSE, AFIConfig, approximate_flat_interaction, labels_to_scores
from uov_hf.point_files import read_points


sys.path.insert(0, str(REPOSITORY / "tests"))
from fake_gpu import FakeGPU, to_gpu  # noqa: E402


NUM_CLASSES, NUM_SEGMENTS, NUM_PROMPTS, NUM_PAIRS = 16, 100, 175, 20_000
PRODUCTS_AND_GATHERS = ("bmm", "mm", "addmm", "index_select")


def main():
    args = make_parser(__doc__, with_data_dir=True).parse_args()
    sensor = SENSORS["nuScenes"]
    paths = find_scans(sensor, args.data_dir)
    scan = read_points(paths[0])[:, :4] if paths else next(make_scans(sensor, args.data_dir, 1))
    print(f"{'real' if paths else 'computed'} scan of nuScenes, {len(scan)} points\n")
    rows = []
    for name, size, traffic in [*count_network(sensor.extractor(), scan), *count_afi(scan)]:
        counts = [traffic.launches.total(), traffic.syncs.total(), traffic.copies.total()]
        products = sum(times for (kind, _), times in traffic.launches.items() if kind in PRODUCTS_AND_GATHERS)
        rows.append([name, size, *counts, products])
    print(table(["", "voxels", "launches", "waits", "copies", "products and gathers"], rows))


def count_network(extract, scan) -> Iterator[tuple[str, int, FakeGPU]]:
    """Each pass of the network: its name, the number of voxels, and its traffic."""
    torch.manual_seed(0)
    voxels = dict(extract([scan], intensity_max=255.0))
    num_points, num_voxels = len(scan), len(voxels["voxel_coords"])
    segmenter = UOVForSemanticSegmentation.from_backbone(
        UOVModel(UOVConfig()), "linear", [f"class {index}" for index in range(NUM_CLASSES)]
    )
    yield "inference", num_voxels, infer(segmenter, voxels)
    many = dict(extract([vary(scan, np.random.default_rng(seed)) for seed in range(16)], intensity_max=255.0))
    yield "inference of 16 scans", len(many["voxel_coords"]), infer(segmenter, many)
    labels = torch.randint(NUM_CLASSES, (num_points,))
    for name, traffic in train("distillation", segmenter, voxels | {"labels": labels}):
        yield name, num_voxels, traffic
    model = UOVForPreTraining(UOVConfig())
    for name, traffic in train("pre-training", model, voxels | label_set(num_points, model.config.projection_dim)):
        yield name, num_voxels, traffic


def infer(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> FakeGPU:
    model, batch = to_gpu(model.eval()), to_gpu(batch)
    with FakeGPU() as traffic, torch.no_grad():
        model(**batch)
    return traffic


def train(stage: str, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Iterator[tuple[str, FakeGPU]]:
    model, batch = to_gpu(model.train()), to_gpu(batch)
    with FakeGPU() as forward:
        loss = model(**batch).loss
    with FakeGPU() as backward:
        loss.backward()
    yield f"{stage}, forward", forward
    yield f"{stage}, backward", backward


def label_set(num_points: int, projection_dim: int) -> dict[str, torch.Tensor]:
    """The inputs from a label set for one scan."""
    embeds = normalize(torch.randn(NUM_SEGMENTS + NUM_PROMPTS, projection_dim), dim=1)
    return {
        "pair_to_point": torch.randint(num_points, (NUM_PAIRS,)),
        "superpoint_ids": torch.randint(NUM_SEGMENTS, (NUM_PAIRS,)),
        "segment_embeds": embeds[:NUM_SEGMENTS],
        "segment_labels": torch.randint(NUM_PROMPTS, (NUM_SEGMENTS,)),
        "prompt_embeds": embeds[NUM_SEGMENTS:],
        "prompt_groups": torch.arange(NUM_PROMPTS) // 6,
        "scene_ids": torch.zeros(NUM_SEGMENTS, dtype=torch.long),
    }


def count_afi(scan) -> Iterator[tuple[str, str, FakeGPU]]:
    """Approximate flat interaction on random labels: the paper's constants and the processor's default."""
    points = torch.from_numpy(scan[:, :3].copy())
    scores = labels_to_scores(torch.randint(NUM_CLASSES, (len(scan),)), NUM_CLASSES)
    for name, config in {"AFI, the paper's constants": AFIConfig(), "AFI, the default": DENSE}.items():
        on_gpu = to_gpu([points, scores])
        with FakeGPU() as traffic:
            approximate_flat_interaction(*on_gpu, config)
        yield name, "", traffic


if __name__ == "__main__":
    main()
