"""The ladder: what each step from an untrained network to a distilled and refined one is worth, into docs/results.md.

    python benchmarks/ladder.py                       # goes on where an earlier run stopped
    python benchmarks/ladder.py --words --seeds 0     # two words that nobody was taught, asked of a text head
    python benchmarks/ladder.py --tune --seeds 100    # learning rates, and what each of them gives

For each seed there are 20 towns to train in and four others to test in, as in `make demo`, five cameras, and the
teacher `synthetic`, whose labels are carried to the points by the preset `consolidated`. All answers are scored in the
test towns, against the truth. Settings were chosen on the towns of seed 100; docs/results.md says which were searched.
"""

import argparse
from pathlib import Path

import numpy as np
from label_ablation import REPOSITORY, replace_section  # beside this file
from ladder_scores import score_held_out, score_rungs
from ladder_trainings import (
    BATCH_SIZE,
    FRAMES_PER_SCENE,
    TEST_SCENES,
    TRAIN_SCENES,
    TRAININGS,
    WORD_TRAININGS,
    train_all,
    tune,
)
from ladder_words import HELD_OUT


Results = dict[str, dict]

# Rung of the table -> its result, and the trainings whose steps it took.
RUNGS = {
    "untrained network": ("untrained", []),
    "teacher's labels, the paper's rule, where a camera sees": ("teacher_paper", []),
    "teacher's labels, consolidated, where a camera sees": ("teacher_consolidated", []),
    "pre-trained (TMP), asked by words": ("tmp", ["tmp"]),
    "distilled from scratch": ("scratch", ["scratch"]),
    "distilled from scratch, without TMP's steps": ("scratch_short", ["scratch_short"]),
    "**TMP, then distilled**": ("distilled", ["tmp", "distilled"]),
    "… + AFI, the paper's constants": ("distilled_afi_paper", ["tmp", "distilled"]),
    "… + AFI, the package's defaults": ("distilled_afi", ["tmp", "distilled"]),
    "TMP, then distilled with a text head": ("text_head", ["tmp", "text_head"]),
    "one labelled scene, random start": ("one_scene_random", ["one_scene_random"]),
    "one labelled scene, from TMP": ("one_scene_tmp", ["tmp", "one_scene_tmp"]),
    "one labelled scene, from TMP, distilled": (
        "one_scene_distilled",
        ["tmp", "distilled", "one_scene_distilled"],
    ),
}
DIFFERENCES = {
    "TMP, then distilled − distilled from scratch, equal steps in all": ("distilled", "scratch"),
    "TMP, then distilled − distilled from scratch, equal steps of distillation": ("distilled", "scratch_short"),
    "TMP, then distilled − TMP asked by words": ("distilled", "tmp"),
    "+ AFI, the paper's constants − without": ("distilled_afi_paper", "distilled"),
    "+ AFI, the package's defaults − without": ("distilled_afi", "distilled"),
    "text head − linear head": ("text_head", "distilled"),
    "one scene: from TMP − random start": ("one_scene_tmp", "one_scene_random"),
    "one scene: from TMP then distilled − random start": ("one_scene_distilled", "one_scene_random"),
    "one scene: from TMP then distilled − from TMP": ("one_scene_distilled", "one_scene_tmp"),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Of the towns and of the trainings.")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--words", action="store_true", help="Train without two words instead, then ask for them.")
    instead.add_argument("--tune", action="store_true", help="Print what each learning rate gives instead.")
    parser.add_argument("--output_dir", type=Path, default=Path("out/ladder"))
    parser.add_argument("--docs", type=Path, default=REPOSITORY / "docs", help="Where results.md is.")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folders = {seed: args.output_dir / f"seed-{seed}" for seed in args.seeds}
    if args.tune:
        print("\n".join(tune(args.output_dir, args.seeds)))
    elif args.words:
        train_all(args.output_dir, args.seeds, WORD_TRAININGS)
        publish(args, "ladder words", word_table({seed: score_held_out(folders[seed]) for seed in folders}))
    else:
        train_all(args.output_dir, args.seeds, TRAININGS)
        results = {seed: score_rungs(folders[seed], seed) for seed in folders}
        publish(args, "ladder", [*rung_table(results), "", *difference_table(results)])


def publish(args: argparse.Namespace, section: str, table: list[str]) -> None:
    print("\n".join(["", *table]), flush=True)
    replace_section(args.docs / "results.md", section, "\n".join(table))


def rung_table(results: dict[int, Results]) -> list[str]:
    """Mean IoU of every rung, seed by seed, and the steps that it took."""
    lines = [
        f"`python benchmarks/ladder.py`: {TRAIN_SCENES} towns to train in, {TEST_SCENES} others to test in, "
        f"{FRAMES_PER_SCENE} scans of each; steps of {BATCH_SIZE} scans; mean IoU in %; mean ± standard deviation "
        "over the seeds.",
        "",
        *header("", "steps", *(f"seed {seed}" for seed in results), "mean ± deviation", "points no camera sees"),
    ]
    for rung, (name, trainings) in RUNGS.items():
        steps = " + ".join(str(TRAININGS[training].steps) for training in trainings) or "–"
        regions = "seen_points" if name.startswith("teacher") else "all_points", "unseen_points"
        everywhere, unseen = ([mean_iou(found[name], region) for found in results.values()] for region in regions)
        lines.append(row(rung, steps, *everywhere, spread(everywhere), spread(unseen)))
    return lines


def difference_table(results: dict[int, Results]) -> list[str]:
    """What a step gains in the same towns, seed by seed."""
    lines = header("mean IoU, in points", *(f"seed {seed}" for seed in results), "mean ± deviation")
    for title, (ours, theirs) in DIFFERENCES.items():
        gains = [mean_iou(found[ours]) - mean_iou(found[theirs]) for found in results.values()]
        lines.append(row(title, *(f"{gain:+.1f}" for gain in gains), f"**{spread(gains, '+')}**"))
    return lines


def word_table(held_out: dict[int, Results]) -> list[str]:
    """What the words that were held out give, and what holding them out costs the others."""
    columns = (*(f"seed {seed}" for seed in held_out), "mean ± deviation")
    command = f"`python benchmarks/ladder.py --words --seeds {' '.join(map(str, held_out))}`"
    lines = [command, "", *header("text head, IoU in %", *columns)]
    rows = {}
    for word in HELD_OUT:
        title = word.replace("_", " ")
        rows[f"**{title}, held out**"] = [found["held_out"]["iou"][word] for found in held_out.values()]
        rows[f"{title}, its share of the points"] = [found["prevalence"][word] for found in held_out.values()]
        rows[f"{title}, learnt like the others"] = [found["learnt"]["iou"][word] for found in held_out.values()]
    for name, title in {"held_out": "where two are held out", "learnt": "where all are learnt"}.items():
        rows[f"mean of the 14 other classes, {title}"] = [found[name]["others"] for found in held_out.values()]
    for title, shares in rows.items():
        percent = [100 * share for share in shares]
        lines.append(row(title, *percent, spread(percent)))
    return lines


def mean_iou(found: dict, region: str = "all_points") -> float:
    """In %; NaN where a rung has no answer in the region."""
    return 100 * found[region]["mean_iou"] if region in found else float("nan")


def header(*cells: str) -> list[str]:
    return [row(*cells), "|---|" + "---:|" * (len(cells) - 1)]


def row(*cells: str | float) -> str:
    return "| " + " | ".join(cell if isinstance(cell, str) else f"{cell:.1f}" for cell in cells) + " |"


def spread(values: list[float], sign: str = "") -> str:
    """Mean ± standard deviation over the seeds."""
    if np.isnan(values).any():
        return "–"
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.1f}{deviation}"


if __name__ == "__main__":
    main()
