"""SIGKILL and SIGTERM to every long command, and whether it ends with the results of a run that nothing stopped.

    OMP_NUM_THREADS=1 python benchmarks/kills.py --output_dir out/reliability
    OMP_NUM_THREADS=1 python benchmarks/kills.py --fresh 6 --output_dir out/reliability

The commands are in `kill_jobs.py`, on a synthetic street of six frames. Each runs once as a whole. Then it is started,
killed, and started again by the same words until it ends, in a new folder each time, until it was killed often enough.
A kill counts if it ended the process. The moments take turns:

- a random one of the time that the whole run took;
- before a random change of a file (open to write, rename, remove, make a folder), counted by the process itself;
- when a temporary file or folder appears.

SIGKILL and SIGTERM take turns, too. They go to the first process or to all. The next start does not wait for processes
that the killed one has left. After each kill, every file with a final name must be as before the command or as after
it. When the command has ended, all files must have the bytes of the whole run (`train_log.jsonl`: the same records
without times), no temporary file may be left, and no frame may be lost or double.

The processes are forks of a server that has imported the package, because an import takes seconds. `--fresh` adds so
many kills of new interpreters, as a user starts them. A check in the folder of an earlier one adds what is missing.
"""

import argparse
import filecmp
import random
import signal
from collections import Counter
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from itertools import cycle, islice
from json import loads
from pathlib import Path

from common import make_parser, table, write_result
from kill_jobs import JOBS, Job
from kill_runs import Kill, Runs, Whole, is_temporary

from uov_hf.data.parquet import read_index
from uov_hf.training.checkpoints import STATE_FILE, check_whole
from uov_hf.training.interruption import RESUME_STATUS
from uov_hf.training.tracking import LOG_FILE, read_log
from uov_hf.written_together import only_writer


# Times, settings of the check, and the state of random generators, which a resumed run does not read.
NOT_COMPARED = ("run.json", "*.log", "stage.json", "report.md", "random_states_*", "SHA256SUMS")
MOMENTS, SIGNALS = ("random", "change", "temporary"), (signal.SIGKILL, signal.SIGTERM)
MOST_KILLS = 4  # of one run


@dataclass
class Counts:
    """What came of the kills of one command: a row of the table."""

    kills: int = 0
    SIGKILL: int = 0
    SIGTERM: int = 0
    to_all_processes: int = 0
    at_a_change_of_a_file: int = 0
    at_a_temporary_file: int = 0
    ended_with_75: int = 0
    runs_to_the_end: int = 0
    half_written_files: int = 0
    lost_or_double_frames: int = 0
    other_results: int = 0
    files_left: int = 0
    processes_left: int = 0

    def add(self, kill: Kill, status: int) -> None:
        self.kills += 1
        self.SIGKILL += kill.number == signal.SIGKILL
        self.SIGTERM += kill.number == signal.SIGTERM
        self.to_all_processes += kill.to_group
        self.at_a_change_of_a_file += kill.moment == "change"
        self.at_a_temporary_file += kill.moment == "temporary"
        self.ended_with_75 += status == RESUME_STATUS

    def next_kill(self, rng: random.Random) -> Kill:
        """Each moment with each signal, in turn."""
        turn = self.kills + self.runs_to_the_end
        return Kill(MOMENTS[turn % len(MOMENTS)], SIGNALS[turn // len(MOMENTS) % len(SIGNALS)], rng.random() < 0.5)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("out/reliability"))
    parser.add_argument("--fresh", type=int, default=0, metavar="N", help="Kills of new interpreters; default: none.")
    parser.add_argument("--only", nargs="+", help="Only these commands.")
    args = parser.parse_args()
    with only_writer(args.output_dir / "kills"):
        check(args)


def check(args: argparse.Namespace) -> None:
    """Kill every command until it was killed often enough, and write `kills.json` after each run that has ended."""
    rows = read_rows(args.output_dir / "kills.json")
    for fresh in (False, True):
        runs = Runs(args.output_dir.resolve() / ("kills_fresh" if fresh else "kills"), fresh)
        jobs = JOBS if not fresh else list(dict.fromkeys(islice(cycle(JOBS), args.fresh)))
        for job in [job for job in jobs if job.name in (args.only or job.name)]:
            name = f"{job.name}, new interpreters" if fresh else job.name
            counts = rows.setdefault(name, Counts())
            num_kills = -(-args.fresh // len(JOBS)) if fresh else job.num_kills
            whole = runs.run_whole(job)
            while counts.kills < num_kills:
                continue_to_the_end(runs, job, whole, counts, min(MOST_KILLS, num_kills - counts.kills))
                write_rows(args.output_dir, rows)
                print(name, counts, flush=True)
    print(table(["command", *titles()], [[name, *asdict(counts).values()] for name, counts in rows.items()]))


def continue_to_the_end(runs: Runs, job: Job, whole: Whole, counts: Counts, most_kills: int = MOST_KILLS) -> None:
    """Kill and restart a command until it ends, then compare what it has left with the whole run."""
    folder, rng = runs.work_of(job), random.Random(f"{job.name} {counts.runs_to_the_end}")
    runs.prepare(job, folder)
    for _ in range(most_kills):
        kill = counts.next_kill(rng)
        status = runs.kill(job, whole, folder, kill, rng)
        if status == 0:
            runs.save_hub(folder)
            break
        if status != -kill.number and not (status == RESUME_STATUS and kill.number == signal.SIGTERM):
            raise RuntimeError(f"{job.name} ended with status {status} after {kill}: see {runs.log} and {folder}.")
        counts.add(kill, status)
        found = half_written(runs, job, whole, folder)
        counts.half_written_files += len(found)
        show(folder, kill, "half-written", found)
    else:
        runs.run_to_the_end(job, folder)
    counts.runs_to_the_end += 1
    counts.processes_left += runs.end_all()
    faults = compare(job, whole.folder, folder)
    for name, found in faults.items():
        setattr(counts, name, getattr(counts, name) + len(found))
        show(folder, None, name, found)
    if any(faults.values()):  # the next run works in the same folder
        folder.rename(runs.folder / f"fault of {job.name}, {counts.runs_to_the_end}")


def half_written(runs: Runs, job: Job, whole: Whole, folder: Path) -> list[str]:
    """What a reader would find in the folder of a killed command that is neither as before it nor as after it."""
    wrong = [str(path) for path in folder.rglob(STATE_FILE) if not is_hidden(path, folder) and is_damaged(path.parent)]
    for result in job.results:
        states = [whole.folder / result]
        if result in job.inputs:
            states.append(runs.input_of(job, result))
        files = final_files(folder / result)
        wrong += [
            f"{result}/{name}"
            for name in files
            if "checkpoint-" not in name
            and Path(name).name != LOG_FILE
            and not any(is_same(folder / result / name, state / name) for state in states)
        ]
        places = {Path(name).parent for name in files if Path(name).name == job.last}
        wrong += [
            f"{result}/{place}: files of two runs"
            for place in places
            if not any(is_complete(folder / result / place, state / place) for state in states)
        ]
    return wrong


def compare(job: Job, expected: Path, folder: Path) -> dict[str, list[str]]:
    """What is wrong with the results of a command that was killed and has ended, by the field of `Counts`."""
    other, left, frames = [], [], []
    for result in job.results:
        theirs, ours = expected / result, folder / result
        names = {*final_files(theirs)} | {*final_files(ours)}
        other += [name for name in sorted(names) if not is_same(ours / name, theirs / name)]
        present = {str(path.relative_to(ours)) for path in ours.rglob("*") if is_temporary(path.name)}
        left += sorted(present - {str(path.relative_to(theirs)) for path in theirs.rglob("*")})
        before, after = Counter(frames_in(theirs)), Counter(frames_in(ours))
        frames += [*((before - after) + (after - before)).elements()]
    return {"other_results": other, "files_left": left, "lost_or_double_frames": frames}


def frames_in(folder: Path) -> list[str]:
    """The frames of each Parquet file, and the points of each step of a training."""
    shards = [path for path in folder.rglob("*.parquet") if not is_hidden(path, folder)]
    frames = [f"{path.parent.relative_to(folder)}/{name}" for path in shards for name in read_index(path)["frame_ids"]]
    logs = [path for path in folder.rglob(LOG_FILE) if not is_hidden(path, folder)]
    return frames + [f"step {one['step']}: {one['num_points']} points" for log in logs for one in read_log(log)]


def final_files(folder: Path) -> list[str]:
    """The paths in a folder, of the files that a reader finds there and that are compared."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_hidden(path, folder)
        if not any(fnmatch(path.name, pattern) for pattern in NOT_COMPARED)
    ]


def is_hidden(path: Path, folder: Path) -> bool:
    return any(map(is_temporary, path.relative_to(folder).parts))


def is_damaged(checkpoint: Path) -> bool:
    try:
        check_whole(checkpoint)
    except OSError:
        return True
    return False


def is_complete(folder: Path, state: Path) -> bool:
    return state.is_dir() and all(is_same(folder / name, state / name) for name in final_files(state))


def is_same(path: Path, other: Path) -> bool:
    """Whether both exist and have the same bytes; logs the same records without times."""
    if not (path.is_file() and other.is_file()):
        return False
    if path.name == LOG_FILE:
        logs = [[{**record, "seconds": 0} for record in read_log(one)] for one in (path, other)]
        return logs[0] == logs[1]
    return filecmp.cmp(path, other, shallow=False)


def show(folder: Path, kill: Kill | None, fault: str, found: list[str]) -> None:
    for name in found:
        print(f"  {fault}: {folder}: {name}{f' after {kill}' if kill else ''}", flush=True)


def titles() -> list[str]:
    return [field.name.replace("_", " ") for field in fields(Counts)]


def read_rows(path: Path) -> dict[str, Counts]:
    """The rows of an earlier check, by command."""
    rows = loads(path.read_text())["rows"] if path.exists() else []
    return {row["command"]: Counts(*(row[title] for title in titles())) for row in rows}


def write_rows(output_dir: Path, rows: dict[str, Counts]) -> None:
    total = {
        title: sum(asdict(counts)[field.name] for counts in rows.values())
        for title, field in zip(titles(), fields(Counts), strict=True)
    }
    content = [
        {"command": name} | dict(zip(titles(), asdict(counts).values(), strict=True)) for name, counts in rows.items()
    ]
    write_result(output_dir, "kills", total, content, "OMP_NUM_THREADS=1 python benchmarks/kills.py --fresh 6")


if __name__ == "__main__":
    main()
