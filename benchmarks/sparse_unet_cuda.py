"""The network on a GPU: spconv against the torch engine against float64, and a step of pre-training in fp32 and fp16.

    pip install uov-hf[cuda]
    python benchmarks/sparse_unet_cuda.py --output out/sparse_unet_cuda.json

Run on a machine with CUDA and spconv-cu126; it refuses elsewhere. TF32 is off, so both engines compute in float32;
the run fails where one is further than 1e-4 from float64. Scans are voxelised as the paper does.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from sparse_conv import REPOSITORY, SCANS, find_scan, forward, train
from torch.nn.functional import normalize

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForPreTraining
from uov_hf.sparse_unet import SparseUNet


ENGINES = ("spconv", "torch")
TOLERANCE = 1e-4  # of the largest feature
NUM_SUPERPOINTS, PAIRS_PER_SUPERPOINT, NUM_PROMPTS = 150, 100, 175


def main():
    args = parse_args()
    refuse_without_cuda()
    torch.backends.cuda.matmul.allow_tf32 = False
    results = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "scans": {}}
    for name, (pattern, settings) in SCANS.items():
        path = find_scan(args.data_dir, pattern)
        batch = UOVFeatureExtractor(**settings)(path, intensity_max=1.0).to("cuda")
        results["scans"][name] = {
            "num_voxels": len(batch["voxel_coords"]),
            "network": compare_engines(batch, args.repeats),
            "pretraining": {
                f"{engine} {precision}": time_pretraining(batch, engine, precision, args.repeats)
                for engine in ENGINES
                for precision in ("fp32", "fp16")
            },
        }
    print(to_markdown(results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2))
    refuse_wrong_numbers(results)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=Path, default=REPOSITORY.parent / "shared" / "data", help="the real scans")
    parser.add_argument("--repeats", type=int, default=20, help="timed rounds, after three to warm up")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    return parser.parse_args()


def refuse_without_cuda():
    if not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a GPU: `torch.cuda.is_available()` is False on this machine.")
    try:
        import spconv.pytorch  # noqa: F401
    except ImportError:
        raise SystemExit("This benchmark needs spconv for CUDA: `pip install uov-hf[cuda]`.") from None


def compare_engines(batch, repeats: int) -> dict:
    """Distance from float64 and milliseconds of both engines, from the same weights."""
    torch.manual_seed(0)
    network = SparseUNet(UOVConfig(sparse_backend="torch")).to(batch["voxel_coords"].device)
    inputs = batch["voxel_coords"], batch["voxel_features"]
    exact = forward(network.double(), inputs[0], inputs[1].double())
    network.float()
    results = {}
    for engine in ENGINES:
        network.config.sparse_backend = engine
        difference = (forward(network, *inputs).double() - exact).abs().max() / exact.abs().max()
        results[engine] = {
            "difference": difference.item(),
            "forward_ms": milliseconds(lambda: forward(network, *inputs), repeats),
            "training_ms": milliseconds(lambda: train(network, *inputs), repeats),
        }
        torch.manual_seed(0)  # training moved the running statistics
        network.load_state_dict(SparseUNet(network.config).state_dict())
    return results


def time_pretraining(batch, engine: str, precision: str, repeats: int) -> dict:
    """A whole optimiser step of tri-modal pre-training on one scan, with random superpoints."""
    device = batch["voxel_coords"].device
    torch.manual_seed(0)
    model = UOVForPreTraining(UOVConfig(sparse_backend=engine)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    inputs = {**batch, **random_superpoints(len(batch["point_to_voxel"]), model.config.projection_dim, device)}
    losses = []

    def step():
        with torch.autocast(device.type, dtype=torch.float16, enabled=precision == "fp16"):
            loss = model(**inputs).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())

    took = milliseconds(step, repeats)
    return {"step_ms": took, "first_loss": losses[0], "last_loss": losses[-1]}


def random_superpoints(num_points: int, embed_dim: int, device: torch.device) -> dict:
    """What a label set adds to a scan: pairs of points and segments, and prompts, with unit embeddings."""
    num_pairs = NUM_SUPERPOINTS * PAIRS_PER_SUPERPOINT
    return {
        "pair_to_point": torch.randint(num_points, (num_pairs,), device=device),
        "superpoint_ids": torch.arange(num_pairs, device=device) % NUM_SUPERPOINTS,
        "scene_ids": torch.zeros(NUM_SUPERPOINTS, dtype=torch.long, device=device),
        "segment_embeds": normalize(torch.randn(NUM_SUPERPOINTS, embed_dim, device=device), dim=1),
        "segment_labels": torch.randint(NUM_PROMPTS, (NUM_SUPERPOINTS,), device=device),
        "prompt_embeds": normalize(torch.randn(NUM_PROMPTS, embed_dim, device=device), dim=1),
        "prompt_groups": torch.arange(NUM_PROMPTS, device=device) // 6,
    }


def milliseconds(function, repeats: int) -> float:
    times = []
    for _ in range(repeats + 3):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def to_markdown(results: dict) -> str:
    lines = [
        f"{results['gpu']}, torch {results['torch']}, TF32 off",
        "",
        "| scan | engine | forward | forward + backward | from float64 | step fp32 | step fp16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, scan in results["scans"].items():
        for engine in ENGINES:
            network, steps = scan["network"][engine], scan["pretraining"]
            lines.append(
                f"| {name}, {scan['num_voxels']} voxels | {engine} | {network['forward_ms']:.1f} ms | "
                f"{network['training_ms']:.1f} ms | {network['difference']:.0e} | "
                f"{steps[f'{engine} fp32']['step_ms']:.1f} ms | {steps[f'{engine} fp16']['step_ms']:.1f} ms |"
            )
    return "\n".join(lines)


def refuse_wrong_numbers(results: dict):
    for name, scan in results["scans"].items():
        for engine, network in scan["network"].items():
            if not network["difference"] <= TOLERANCE:
                raise SystemExit(f"{engine} is {network['difference']:.1e} from float64 on the {name} scan.")
        for label, run in scan["pretraining"].items():
            if not run["last_loss"] < run["first_loss"]:
                raise SystemExit(f"The loss of {label} on the {name} scan does not fall: {run}.")


if __name__ == "__main__":
    main()
