"""Mutation testing: how many small changes of the code the tests find, in the rooms where a wrong number stays unseen.

    python benchmarks/mutants.py --output_dir out/reliability
    python benchmarks/mutants.py --rooms losses votes --survivors

A mutant is a copy of a file with one change: another operator, a number plus one, a removed argument, a branch that is
always taken (the operators of mutmut; benchmarks/mutating.py has what is left out). It is killed if one of the room's
tests fails. What survives is listed in `mutants.json` with the reason from benchmarks/surviving_mutants.yaml.

A room with more than 250 mutants is sampled, with seed 0. Outcomes of an earlier run into the same folder count, if
the room's files and tests have not changed since. Needs the extra `reliability` and Linux.
"""

import hashlib
import json
import multiprocessing
import random
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from common import REPOSITORY, make_parser, write_result
from mutant_tests import NOT_REACHED, MutantTests
from mutating import Mutant, find_mutants

from uov_hf.data.shard_file import write_atomically


REASONS = REPOSITORY / "benchmarks" / "surviving_mutants.yaml"
MOST_MUTANTS = 250  # of a room
KILLED, SURVIVORS = ("killed", "timed out"), ("survived", NOT_REACHED)


@dataclass(frozen=True)
class Room:
    """Files that are mutated, and the tests that should find it; both relative to the repository.

    `left_out` is the expression of pytest's `-k` for tests that need a second each: a survivor would run all of them.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    left_out: str = ""


ROOMS = {
    "losses": Room(
        ("uov_hf/losses.py",),
        ("tests/test_losses.py", "tests/test_lovasz.py", "tests/test_modeling_pretraining.py"),
    ),
    "AFI": Room(
        ("uov_hf/afi.py", "uov_hf/point_neighbors.py", "uov_hf/ground_ring.py"),
        ("tests/test_afi.py", "tests/test_afi_irregular.py"),
        left_out="2000 or 1500 or 3000",
    ),
    "metrics": Room(
        ("uov_hf/evaluation/metrics.py", "uov_hf/evaluation/panoptic.py"),
        tuple(
            f"tests/evaluation/test_{name}.py" for name in ("metrics", "panoptic_quality", "reliability", "abstention")
        ),
    ),
    "projection": Room(
        ("uov_hf/geometry/projection.py", "uov_hf/geometry/occlusion.py"),
        ("tests/geometry/test_projection.py", "tests/geometry/test_occlusion.py"),
    ),
    "voxel pyramid": Room(
        ("uov_hf/voxel_pyramid.py", "uov_hf/voxel_grid.py"),
        tuple(
            f"tests/test_{name}.py"
            for name in ("voxel_pyramid", "voxel_grid", "sparse_conv", "sparse_unet", "feature_extraction_uov")
        ),
    ),
    "sparse convolution": Room(
        ("uov_hf/sparse_conv.py",),
        ("tests/test_sparse_conv.py", "tests/test_sparse_unet.py"),
    ),
    "votes": Room(
        tuple(
            f"uov_hf/labels/{name}.py"
            for name in ("votes", "consolidation", "superpoints", "time_vote", "point_labels")
        ),
        tuple(
            f"tests/labels/test_{name}.py"
            for name in ("votes", "superpoints", "time_vote", "consolidation", "point_labels", "presets")
        ),
        left_out="real or to_the_bit",
    ),
    "label store": Room(
        tuple(f"uov_hf/labels/{name}.py" for name in ("label_set", "segments", "identity", "description")),
        tuple(f"tests/labels/test_{name}.py" for name in ("label_set", "segments", "labels_alone", "damaged_labels")),
        left_out="card_and_gallery",
    ),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=[*ROOMS], help="default: all")
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    parser.add_argument(
        "--survivors", action="store_true", help="test only the survivors of the last run again, for work on the tests"
    )
    args = parser.parse_args()
    for name in args.rooms:
        path = args.output_dir / "mutants" / f"{name.replace(' ', '_')}.json"
        # A process of its own, because pytest collects only once, and changes modules.
        process = multiprocessing.get_context("fork").Process(target=test_room, args=(name, path, args.survivors))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"{name}: no result, see above.")
    write_results(args.output_dir)


def digest_of(room: Room) -> str:
    """Of the room's files and tests."""
    paths = [REPOSITORY / name for name in (*room.files, *room.tests)]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def test_room(name: str, path: Path, survivors_only: bool) -> None:
    """Test the mutants of a room that an earlier run has not tested; each outcome is written to a file at once."""
    room, digest = ROOMS[name], digest_of(ROOMS[name])
    earlier = json.loads(path.read_text()) if path.exists() else {"digest": digest, "mutants": []}
    num_found, mutants = sample(room)
    rows = {identity(row): row for row in earlier["mutants"] if survivors_only or earlier["digest"] == digest}
    if survivors_only:
        rows = {key: row for key, row in rows.items() if row["outcome"] in KILLED}
    keys = [identity(row_of(*mutant)) for mutant in mutants]
    rows = {key: rows[key] for key in keys if key in rows}
    left = [mutant for key, mutant in zip(keys, mutants, strict=True) if key not in rows]
    # Without a digest, the next whole run tests all of them again, as the tests have changed.
    state = {"digest": None if survivors_only else digest, "found": num_found, "mutants": []}

    def keep(file: Path, mutant: Mutant, outcome: str) -> None:
        row = row_of(file, mutant) | {"outcome": outcome}
        rows[identity(row)] = row
        write_atomically(
            path, json.dumps(state | {"mutants": [*rows.values()]}, indent=1, ensure_ascii=False).encode()
        )
        if outcome != "killed":
            print(f"{name}: {outcome}: {row['file']}:{row['line']}: {row['change']}", file=sys.stderr, flush=True)

    if left:
        path.parent.mkdir(parents=True, exist_ok=True)
        run_pytest(room, MutantTests(modules_of(room), left, keep))


def sample(room: Room) -> tuple[int, list[tuple[Path, Mutant]]]:
    """The number of mutants of a room, and those to test."""
    mutants = [(REPOSITORY / file, mutant) for file in room.files for mutant in find_mutants(read(file))]
    chosen = range(len(mutants))
    if len(mutants) > MOST_MUTANTS:
        chosen = sorted(random.Random(0).sample(chosen, MOST_MUTANTS))
    return len(mutants), [mutants[index] for index in chosen]


def run_pytest(room: Room, plugin: MutantTests) -> None:
    options = ["-q", "-s", "--tb=no", "-o", "addopts=", "-p", "no:cacheprovider", "-m", "not slow"]
    options += ["-k", f"not ({room.left_out})"] if room.left_out else []
    if code := pytest.main([*options, *(str(REPOSITORY / tests) for tests in room.tests)], [plugin]):
        sys.exit(int(code))


def read(file: str) -> str:
    return (REPOSITORY / file).read_text(encoding="utf-8")


def modules_of(room: Room) -> dict[Path, str]:
    return {REPOSITORY / file: file.removesuffix(".py").replace("/", ".") for file in room.files}


def row_of(file: Path, mutant: Mutant) -> dict[str, Any]:
    row = asdict(mutant)
    del row["source"]
    return {"file": file.relative_to(REPOSITORY).as_posix()} | row


def identity(row: dict[str, Any]) -> tuple:
    return row["file"], row["line"], row["column"], row["change"]


def write_results(output_dir: Path) -> None:
    """The table of all rooms that were tested, and the survivors with their reasons."""
    reasons = yaml.safe_load(REASONS.read_text(encoding="utf-8"))
    rows, survivors = [], []
    for name in ROOMS:
        path = output_dir / "mutants" / f"{name.replace(' ', '_')}.json"
        if path.exists():
            found = json.loads(path.read_text())
            rows.append(summarize(name, found))
            survivors += [row | {"room": name} for row in found["mutants"] if row["outcome"] in SURVIVORS]
    for row in survivors:
        row["reason"] = reason_of(row, reasons)
    write_result(output_dir, "mutants", total(rows, survivors), rows, survivors=survivors)


def summarize(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    outcomes = Counter(row["outcome"] for row in found["mutants"])
    tested = sum(outcomes.values()) - outcomes["not in effect"]
    killed = sum(outcomes[name] for name in KILLED)
    return {
        "room": name,
        "mutants": found["found"],
        "tested": tested,
        "killed": killed,
        "of these by time": outcomes["timed out"],
        "survived": tested - killed,
        "killed, %": round(100 * killed / tested, 1),
    }


def total(rows: list[dict[str, Any]], survivors: list[dict[str, Any]]) -> dict[str, Any]:
    tested, killed = (sum(row[name] for row in rows) for name in ("tested", "killed"))
    return {
        "mutants tested": tested,
        "killed": killed,
        "killed, %": round(100 * killed / max(tested, 1), 1),
        "lowest of a room, %": min((row["killed, %"] for row in rows), default=0),
        "survivors without a reason": sum(row["reason"] is None for row in survivors),
    }


def reason_of(row: dict[str, Any], reasons: list[dict[str, Any]]) -> str | None:
    """Why a mutant survives; an entry without `change` is about every change of its line."""
    for entry in reasons:
        if entry["file"] == row["file"] and entry["line"] == row["code"]:
            if entry.get("change", row["change"]) == row["change"]:
                return entry["reason"]
    return None


if __name__ == "__main__":
    main()
