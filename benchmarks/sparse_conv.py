"""The torch engine against spconv's CPU build and against its own bare products, on scans that are all different.

    python benchmarks/sparse_conv.py

Augmentation changes the number of voxels of every scan in training, and so the number of rows of every matrix product.
Preparation of a library for one shape does not help there, so each scan here is new, too. Both engines take the scans
by turns in one run, with the same weights; ratios are taken scan by scan, and the tables have their medians. spconv
runs on one thread, the only mode in which its CPU build is right (with more, its gather races); torch's engine runs on
`--num_threads`. "Bare products" are the matrix products of the torch engine's forward pass alone, in the memory and
with the strides of the engine. The forward pass that they are compared with comes right after that of another scan, as
in a stream, and is on scans that no engine has met. Peak is the fastest large float32 product that torch reaches on as
many threads; its share is that of all products of the forward pass in the time it takes.
"""

from statistics import median

import torch
from common import describe_machine, make_parser, table, timed
from gpu_checks import disarm_spconv
from scans import SENSORS, find_scans, make_scans
from torch.utils._python_dispatch import TorchDispatchMode

from uov_hf import UOVConfig
from uov_hf.sparse_unet import SparseUNet
from uov_hf.voxel_pyramid import VoxelPyramid, sort_voxels


PRESETS = {"MinkUNet34": "minkunet34", "tiny": "tiny"}
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.baddbmm}


def main():
    parser = make_parser(__doc__, with_data_dir=True)
    parser.add_argument("--num_scans", type=int, default=8, help="of each sensor, after one to warm up")
    parser.add_argument("--networks", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--num_threads", type=int, default=2, help="of the torch engine")
    args = parser.parse_args()
    disarm_spconv("cpu")
    groups = {}
    for sensor_name, sensor in SENSORS.items():
        kind = "real" if find_scans(sensor, args.data_dir) else "synthetic"
        clouds = make_scans(sensor, args.data_dir, 2 * args.num_scans + 2)
        scans = [sensor.extractor()(cloud, intensity_max=255.0) for cloud in clouds]
        voxels = [(scan["voxel_coords"], scan["voxel_features"]) for scan in scans]
        for network_name in args.networks:
            torch.manual_seed(0)
            network = SparseUNet(UOVConfig.from_preset(PRESETS[network_name]))
            rows = [compare_engines(network, *scan, args.num_threads) for scan in voxels[::2]]
            parts = [compare_with_products(network, *scan) for scan in voxels[1::2]]
            # The first ones warm up.
            groups[network_name, f"{sensor_name} ({kind})"] = [
                row | part for row, part in zip(rows[1:], parts[1:], strict=True)
            ]
    print(describe_machine(), to_markdown(groups, args.num_threads), sep="\n\n")


def compare_engines(network: SparseUNet, coords: torch.Tensor, features: torch.Tensor, num_threads: int) -> dict:
    """Seconds of both engines on one scan, forwards and with backward, the torch engine last."""
    row, outputs = {"num_voxels": len(coords)}, {}
    for mode, run in MODES.items():
        for engine, threads in {"spconv": 1, "torch": num_threads}.items():
            torch.set_num_threads(threads)
            network.config.sparse_backend = engine
            row[f"{engine} {mode}"], outputs[engine, mode] = timed(lambda run=run: run(network, coords, features))
            row[f"{engine} peak"] = measure_peak()
    row["difference"] = (outputs["torch", "forward"] - outputs["spconv", "forward"]).abs().max().item()
    return row | {"flops": record_products(lambda: forward(network, coords, features)).count_flops()}


def compare_with_products(network: SparseUNet, coords: torch.Tensor, features: torch.Tensor) -> dict:
    """Seconds of the torch engine's forward pass on a scan that it has not met, and of two parts of it."""
    row = {"forward": timed(lambda: forward(network, coords, features))[0]}
    products = record_products(lambda: forward(network, coords, features))
    row["products"] = min(timed(products.run)[0] for _ in range(3))
    return row | {"kernel maps": timed(lambda: build_maps(coords, len(network.encoder)))[0]}


def forward(network, coords, features):
    with torch.no_grad():
        return network.eval()(coords, features)


def train(network, coords, features):
    """Forward and backward; what the optimiser does is the same for both engines and left out."""
    network.train()(coords, features).square().mean().backward()
    network.zero_grad()


MODES = {"forward": forward, "training": train}


def build_maps(coords, num_stages):
    """All that the torch engine computes from coordinates alone."""
    pyramid = VoxelPyramid(sort_voxels(coords, num_stages + 1)[0])
    for level in range(num_stages + 1):
        pyramid.submanifold(level, 3)


class ProductRecorder(TorchDispatchMode):
    """Matrix products of what runs under it, each with its own operands and result."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in PRODUCTS:
            self.calls.append((function.overloadpacket, args, result))
        return result

    @torch.no_grad()
    def run(self):
        """The products again, into the memory of their first results."""
        for product, operands, result in self.calls:
            product(*operands, out=result)

    def count_flops(self) -> int:
        """Multiplications and additions."""
        return sum(2 * operands[-1].shape[-2] * result.numel() for _, operands, result in self.calls)


def record_products(function) -> ProductRecorder:
    with ProductRecorder() as recorder:
        function()
    return recorder


def measure_peak(size: int = 1536) -> float:
    """Operations per second of a large product, with the threads that are set."""
    left, right, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    torch.mm(left, right, out=out)
    return 2 * size**3 / min(timed(lambda: torch.mm(left, right, out=out))[0] for _ in range(3))


def to_markdown(groups: dict[tuple[str, str], list[dict]], num_threads: int) -> str:
    """Two tables of the rows of each network and kind of scans."""
    first = "network,scans,voxels,GFLOP,engine,threads,forward,forward + backward,peak,of peak"
    second = [*first.split(",")[:2], *(f"{name}, spconv / torch" for name in ("forward", "forward + backward"))]
    second += ["forward / bare products", "kernel maps", "largest difference"]
    engines = [row for names, rows in groups.items() for row in engine_rows(names, rows, num_threads)]
    ratios = [ratio_row(names, rows) for names, rows in groups.items()]
    return (
        f"{table(first.split(','), engines)}\n\n{table(second, ratios)}\n\n"
        "Medians over different scans; in brackets the least and the greatest."
    )


def engine_rows(names: tuple[str, str], rows: list[dict], num_threads: int):
    """A line of the first table for each engine."""
    voxels = sorted(row["num_voxels"] for row in rows)
    gflop = median(row["flops"] for row in rows) / 1e9
    for engine, threads in {"spconv": 1, "torch": num_threads}.items():
        peak = max(row[f"{engine} peak"] for row in rows)
        share = median(row["flops"] / row[f"{engine} forward"] for row in rows) / peak
        times = [f"{1000 * median(row[f'{engine} {mode}'] for row in rows):.0f} ms" for mode in MODES]
        work = [f"{voxels[0]}…{voxels[-1]}", f"{gflop:.1f}", engine, threads]
        yield [*names, *work, *times, f"{peak / 1e9:.0f} GFLOP/s", f"{share:.0%}"]


def ratio_row(names: tuple[str, str], rows: list[dict]) -> list[str]:
    """A line of the second table."""
    pairs = [*((f"spconv {mode}", f"torch {mode}") for mode in MODES), ("forward", "products")]
    ratios = [sorted(row[first] / row[second] for row in rows) for first, second in pairs]
    cells = [f"{median(values):.2f}× ({values[0]:.2f}…{values[-1]:.2f})" for values in ratios]
    maps = median(row["kernel maps"] / row["forward"] for row in rows)
    return [*names, *cells, f"{maps:.1%} of the forward", f"{max(row['difference'] for row in rows):.0e}"]


if __name__ == "__main__":
    main()
