"""Part of gpu.py: its results as Markdown."""

from common import table
from gpu_checks import TOLERANCES
from gpu_speed import GIB


def to_markdown(results: dict) -> str:
    machine, rows = results["machine"], results["results"]
    cards = {row["precision"]: row for row in rows if "flops_per_s" in row}
    timed = [row for row in rows if "ms" in row]
    speeds = [
        (name, f"{card['flops_per_s'] / 1e12:.3g} TFLOP/s", f"{card['bytes_per_s'] / 1e9:.3g} GB/s")
        for name, card in cards.items()
    ]
    scans = ", ".join(f"{sensor} {kind}" for sensor, kind in results["scans"].items())
    missing = [f"- {name_of(row)}: {why}" for row in rows if (why := why_without_result(row))]
    parts = [
        "\n".join(
            [
                f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}; scans: {scans}",
                *(f"{engine}: {why}" for engine, why in results["missing"].items()),
            ]
        ),
        table(["precision", "large product", "large copy"], speeds),
        table(
            ["engine", "precision", "inputs right", "features differ by", "gradients differ by", "allowed", ""],
            [check_row(row) for row in rows if row["kind"] == "check"],
        ),
        table(
            "scans,batch,voxels,what,precision,engine,ms,memory,of products,of copies,first call".split(","),
            [network_row(row, cards.get(row["precision"])) for row in timed if row["kind"] == "network"],
        ),
        table(
            "pre-training step,batch,precision,engine,fed by the loader,data at hand,memory,loss".split(","),
            [step_row(row) for row in timed if row["kind"] == "pretraining"],
        ),
        "\n".join(["Left out, refused or failed:", *(missing or ["- nothing"])]),
    ]
    return "\n\n".join(parts)


def check_row(row: dict) -> list[str]:
    names = [row["engine"], row["precision"]]
    if "passed" not in row:
        return [*names, "", "", "", "", why_without_result(row)]
    num_inputs = sum(len(row[answer]) for answer in ("passed", "refused", "failed"))
    reasons = [f"**wrong**, {case}: {why}" for case, why in row["failed"].items()]
    refusals = {}
    for case, why in row["refused"].items():
        refusals.setdefault(why, []).append(case)
    reasons += [f"refused, {', '.join(cases)}: {why}" for why, cases in refusals.items()]
    value, gradient = TOLERANCES[row["precision"]]
    errors = [f"{row['value_error']:.0e}", f"{row['gradient_error']:.0e}", f"{value:.0e}, {gradient:.0e}"]
    return [*names, f"{len(row['passed'])} of {num_inputs}", *errors, "; ".join(reasons)]


def network_row(row: dict, card: dict | None) -> list:
    """The shares are parts of the card's speed, in products and in memory."""
    what = "training" if row["training"] else "inference"
    names = [row["sensor"], row["batch_size"], row["num_voxels"], what, row["precision"], row["engine"]]
    works, seconds = ("flops", "bytes"), row["ms"] / 1000
    shares = [f"{row[work] / seconds / card[f'{work}_per_s']:.1%}" if card else "–" for work in works]
    return [*names, f"{row['ms']:.1f}", gib(row["peak"]), *shares, f"{row['first_s']:.1f} s"]


def step_row(row: dict) -> list:
    names = [row["sensor"], row["batch_size"], row["precision"], row["engine"]]
    losses = f"{row['losses'][0]:.2f} … {row['losses'][-1]:.2f}"
    return [*names, f"{row['fed_ms']:.1f} ms", f"{row['ms']:.1f} ms", gib(row["peak"]), losses]


def gib(num_bytes: int | None) -> str:
    return "–" if num_bytes is None else f"{num_bytes / GIB:.2f} GiB"


def why_without_result(row: dict) -> str | None:
    """Why a job has no result, None where it has one; a check has its reasons in its own row."""
    if "passed" in row:
        return None
    if row.get("failed"):
        return f"failed: {'; '.join(row['failed'].values())}"
    return row.get("left_out") or (f"refused: {row['refused']}" if "refused" in row else None)


def name_of(row: dict) -> str:
    parts = [row["kind"], row["engine"], row["precision"], row["sensor"], row["batch_size"]]
    what = {True: "training", False: "inference", None: None}[row["training"]]
    return ", ".join(str(part) for part in [*parts, what] if part is not None)
