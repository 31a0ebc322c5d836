"""Part of gpu.py: its results as Markdown."""

from gpu_checks import TOLERANCES
from gpu_speed import GIB


def to_markdown(results: dict) -> str:
    machine, rows = results["machine"], results["results"]
    of_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in ("card", "check", "network")}
    steps = [row for row in rows if row["kind"] == "pretraining"]
    cards = {row["precision"]: row for row in of_kind["card"] if "flops_per_s" in row}
    lines = [
        f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}; scans: "
        + ", ".join(f"{sensor} {kind}" for sensor, kind in results["scans"].items()),
        *(f"{engine}: {why}" for engine, why in results["missing"].items()),
        "",
        "| precision | large product | large copy |",
        "|---|---:|---:|",
        *(
            f"| {name} | {card['flops_per_s'] / 1e12:.3g} TFLOP/s | {card['bytes_per_s'] / 1e9:.3g} GB/s |"
            for name, card in cards.items()
        ),
        "",
        "| engine | precision | inputs right | features differ by | gradients differ by | allowed | |",
        "|---|---|---:|---:|---:|---|---|",
        *map(check_row, of_kind["check"]),
        "",
        "| scans | batch | voxels | what | precision | engine | ms | memory | of products | of copies | first call |",
        "|---|---:|---:|---|---|---|---:|---:|---:|---:|---:|",
        *(network_row(row, cards.get(row["precision"])) for row in of_kind["network"] if "ms" in row),
        "",
        "| pre-training step | batch | precision | engine | fed by the loader | data at hand | memory | loss |",
        "|---|---:|---|---|---:|---:|---:|---|",
        *(step_row(row) for row in steps if "ms" in row),
        "",
        "Left out, refused or failed:",
    ]
    missing = [f"- {name_of(row)}: {why}" for row in rows if (why := why_without_result(row))]
    return "\n".join(lines + (missing or ["- nothing"]))


def check_row(row: dict) -> str:
    names = f"| {row['engine']} | {row['precision']} |"
    if "passed" not in row:
        return f"{names} | | | | {why_without_result(row)} |"
    num_inputs = sum(len(row[answer]) for answer in ("passed", "refused", "failed"))
    reasons = [f"**wrong**, {case}: {why}" for case, why in row["failed"].items()]
    refusals = {}
    for case, why in row["refused"].items():
        refusals.setdefault(why, []).append(case)
    reasons += [f"refused, {', '.join(cases)}: {why}" for why, cases in refusals.items()]
    value, gradient = TOLERANCES[row["precision"]]
    errors = f"{row['value_error']:.0e} | {row['gradient_error']:.0e} | {value:.0e}, {gradient:.0e}"
    return f"{names} {len(row['passed'])} of {num_inputs} | {errors} | {'; '.join(reasons)} |"


def network_row(row: dict, card: dict | None) -> str:
    return (
        f"| {row['sensor']} | {row['batch_size']} | {row['num_voxels']} | "
        f"{'training' if row['training'] else 'inference'} | {row['precision']} | {row['engine']} | {row['ms']:.1f} | "
        f"{gib(row['peak'])} | {shares(row, card)} | {row['first_s']:.1f} s |"
    )


def shares(row: dict, card: dict | None) -> str:
    """Which part of the card's speed a round reaches, in products and in memory."""
    if card is None:
        return "– | –"
    seconds = row["ms"] / 1000
    return f"{row['flops'] / seconds / card['flops_per_s']:.1%} | {row['bytes'] / seconds / card['bytes_per_s']:.1%}"


def step_row(row: dict) -> str:
    return (
        f"| {row['sensor']} | {row['batch_size']} | {row['precision']} | {row['engine']} | {row['fed_ms']:.1f} ms | "
        f"{row['ms']:.1f} ms | {gib(row['peak'])} | {row['losses'][0]:.2f} … {row['losses'][-1]:.2f} |"
    )


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
