"""Kills and interrupts of the programs that write into the store, at drawn moments; nothing may be lost.

    python benchmarks/store_stress.py

The programs are in `store_jobs.py`: a label set (`generate`), point labels with all votes (`label`) and Parquet
(`convert`). Each is stopped again and again while it works, by SIGKILL, SIGTERM and SIGINT in turn, and started
again. The moment is drawn: a number of rows, and some milliseconds more. Then it runs to its end. The files must be
those of a run that was never stopped. The rows that were made in all are counted, those that were lost included.

- group: all processes of the run get the signal. one: a drawn one gets it, and its launcher stops the others.
- forked: the processes are forks of a server that has imported the package, because an import takes seconds.
- launched: as a user starts them, `python …` or `accelerate launch --multi_gpu --num_processes 2 …`.
- A killed conversion makes the file anew that it was at (at most 50 frames a process): its rows cost no teacher.

In the last rows a second run starts in the same folder while the first works: it must be refused.
"""

import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import psutil
from common import describe_machine, make_parser, table
from store_jobs import Job, run


LENGTHS = [41, 40, 39, 120, 40, 40, 80]  # frames of the sequences
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_JITTER = 0.03  # seconds from the drawn row to the signal
TIMEOUT = 300.0  # seconds; a run of this length hangs

Launch = Callable[[Job, int], list[psutil.Process]]

PRELOADED = ["uov_hf.data.writing", "uov_hf.labels", "uov_hf.training.launch"]
BARRIERS: list[Barrier] = []  # a fork opens its barrier by name, so that it must live on here


@dataclass(frozen=True)
class Stress:
    """
    One row of the table.

    Args:
        kind (`str`): The program, a key of `store_jobs.JOBS`.
        num_processes (`tuple[int, ...]`): Processes of the starts, in turn; the last one is that of the last start.
        num_stops (`int`): Kills and interrupts.
        victims (`str`): `"group"` or `"one"`.
        is_launched (`bool`, *optional*, defaults to `False`): Whether the program is started as a user starts it.
    """

    kind: str
    num_processes: tuple[int, ...]
    num_stops: int
    victims: str
    is_launched: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {'launched' if self.is_launched else 'forked'}, {self.victims}"


PLAN = [
    Stress("generate", (1,), 9, "group"),
    Stress("generate", (2,), 9, "group"),
    Stress("generate", (2,), 6, "one"),
    Stress("generate", (1, 2, 1), 6, "group"),
    Stress("label", (1,), 6, "group"),
    Stress("label", (2,), 6, "group"),
    Stress("label", (2,), 3, "one"),
    Stress("convert", (1,), 6, "group"),
    Stress("convert", (2,), 6, "group"),
    Stress("convert", (2,), 3, "one"),
    Stress("generate", (2,), 3, "group", is_launched=True),
    Stress("generate", (2,), 2, "one", is_launched=True),
    Stress("label", (1, 2, 1), 3, "group", is_launched=True),
]
SECOND_WRITERS = [("generate", 1, 1), ("generate", 2, 1), ("generate", 1, 2), ("label", 1, 1), ("convert", 1, 1)]


@dataclass(frozen=True)
class Outcome:
    """
    What a stress left.

    Args:
        num_rows (`int`): Rows that were made in all.
        num_stopped (`int`): Starts that were stopped before their end.
        same_bytes (`bool`): Whether the files are those of a run that was never stopped.
    """

    num_rows: int
    num_stopped: int
    same_bytes: bool


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="Of the moments and the victims.")
    parser.add_argument("--only", help="Only the rows whose names begin like this.")
    args = parser.parse_args()
    print(f"{describe_machine()}; {sum(LENGTHS)} frames in {len(LENGTHS)} sequences\n", flush=True)
    rows, total = [], 0
    with tempfile.TemporaryDirectory() as folder:
        references = make_references(Path(folder), LENGTHS)
        for number, stress in enumerate(PLAN):
            if not str(stress).startswith(args.only or ""):
                continue
            start = time.perf_counter()
            outcome = torment(stress, Path(folder) / str(number), references, LENGTHS, args.seed + number)
            total += outcome.num_stopped
            made = f"{outcome.num_rows / sum(LENGTHS):.3f}"
            processes = " → ".join(map(str, stress.num_processes))
            seconds = f"{time.perf_counter() - start:.0f}"
            same = "yes" if outcome.same_bytes else "**no**"
            rows.append([stress, processes, outcome.num_stopped, made, same, seconds])
            print(*rows[-1], sep=" | ", flush=True)
        for kind, first, second in SECOND_WRITERS:
            place = Path(folder) / f"{kind}-{first}-{second}"
            refused, same = start_twice(kind, first, second, place, references, LENGTHS)
            verdict = "refused" if refused else "**not refused**"
            rows.append(
                [f"{kind}, a second run", f"{first}, then {second}", verdict, "", "yes" if same else "**no**", ""]
            )
    print()
    print(table(["what", "processes", "stops", "rows made / frames", "same bytes", "seconds"], rows))
    print(f"\n{total} stops in all")


def make_references(folder: Path, lengths: Sequence[int]) -> dict[str, Path]:
    """The folders of runs that nothing stops, by kind of program."""
    folders = {kind: folder / "whole" / kind for kind in ("generate", "label", "convert")}
    for kind, path in folders.items():
        prepare(kind, path, folders)
        wait_for(fork(Job(kind, path, folder / "whole.log", lengths), 1))
    return folders


def prepare(kind: str, folder: Path, references: dict[str, Path]) -> None:
    """Make what a program finds: point labels need a label set."""
    if kind == "label":
        shutil.copytree(references["generate"], folder)
    else:
        folder.mkdir(parents=True)


def torment(stress: Stress, folder: Path, references: dict[str, Path], lengths: Sequence[int], seed: int) -> Outcome:
    """Stop a program again and again, then let it finish."""
    job = Job(stress.kind, folder / "out", folder / "log", lengths)
    folder.mkdir()
    prepare(stress.kind, job.folder, references)
    launch = launch_program if stress.is_launched else fork
    rng, num_stopped = np.random.default_rng(seed), 0
    signals, processes = itertools.cycle(SIGNALS), itertools.cycle(stress.num_processes)
    for moment in np.sort(rng.integers(0, sum(lengths), stress.num_stops)):
        run_of_this_start = launch(job, next(processes))
        reached = wait_for_rows(job.log, moment, run_of_this_start)
        time.sleep(rng.uniform(0, LONGEST_JITTER))
        num_stopped += int(stop(run_of_this_start, next(signals), stress.victims, rng) and reached)
    wait_for(launch(job, stress.num_processes[-1]))
    same = hashes(job.folder) == hashes(references[stress.kind])
    return Outcome(num_rows(job.log), num_stopped, same)


def start_twice(
    kind: str, first: int, second: int, folder: Path, references: dict[str, Path], lengths: Sequence[int]
) -> tuple[bool, bool]:
    """Whether a second run in the same folder is refused, and whether the first writes all its files."""
    job = Job(kind, folder / "out", folder / "log", lengths)
    folder.mkdir()
    prepare(kind, job.folder, references)
    working = fork(job, first)
    wait_for_rows(job.log, sum(lengths) // 4, working)
    late = fork(Job(kind, job.folder, folder / "log of the second", lengths), second)
    refusal = job.folder.with_suffix(".refused")
    wait_until(lambda: refusal.exists() or not any_is_alive(late))
    stop(late, signal.SIGTERM, "group", np.random.default_rng(0))  # as a launcher stops those that wait
    wait_for(working)
    refused = refusal.exists() and num_rows(folder / "log of the second") == 0
    return refused, hashes(job.folder) == hashes(references[kind])


def fork(job: Job, num_processes: int) -> list[psutil.Process]:
    """Start a program in forks of a server that has imported the package."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    num_started = 1 if job.kind == "convert" else num_processes  # that one starts its own
    BARRIERS.append(context.Barrier(num_started))
    shared = num_processes, BARRIERS[-1].wait
    forks = [context.Process(target=run, args=(job, index, *shared)) for index in range(num_started)]
    for process in forks:
        process.start()
    processes = [psutil.Process(process.pid) for process in forks]
    # Before that, a fork of the server ignores SIGINT.
    wait_until(lambda: have_started(job, processes) or not any_is_alive(processes))
    return processes


def have_started(job: Job, processes: list[psutil.Process]) -> bool:
    file = job.folder.with_suffix(".started")
    return file.exists() and {str(process.pid) for process in processes} <= {*file.read_text().split()}


def launch_program(job: Job, num_processes: int) -> list[psutil.Process]:
    """Start a program as a user does. The first process is the launcher's, if there is one."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(num_processes)]
    program = [str(Path(__file__).with_name("store_jobs.py")), job.kind, str(job.folder), str(job.log)]
    words = [*(launcher if num_processes > 1 else []), *program, *map(str, job.lengths)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with open(job.folder.with_suffix(".output"), "a") as output:
        started = subprocess.Popen([sys.executable, *words], env=environment, stdout=output, stderr=output)
    return [psutil.Process(started.pid)]


def stop(processes: list[psutil.Process], number: signal.Signals, victims: str, rng: np.random.Generator) -> bool:
    """Send the signal to all processes of a run or to one; returns whether the run had not ended."""
    family = [*processes, *(child for process in processes for child in children_of(process))]
    alive = [process for process in family if is_alive(process)]
    # A launcher is not the one victim: it stops the others.
    workers = [process for process in alive if not is_launcher(process)]
    chosen = alive if victims == "group" or not workers else [workers[rng.integers(len(workers))]]
    for process in chosen:
        send(process, number)
    if len(processes) > 1:  # without a launcher they are stopped here
        wait_until(lambda: not all(map(is_alive, processes)))
        for process in processes:
            send(process, signal.SIGTERM)
    wait_for(family)
    return bool(alive)


def is_launcher(process: psutil.Process) -> bool:
    try:
        return any("accelerate" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def any_is_alive(processes: list[psutil.Process]) -> bool:
    return any(map(is_alive, processes))


def wait_for(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any_is_alive(processes))


def wait_for_rows(log: Path, number: int, processes: list[psutil.Process]) -> bool:
    """Wait until the log has so many rows; returns whether the run reached them."""
    wait_until(lambda: num_rows(log) >= number or not any_is_alive(processes))
    return num_rows(log) >= number


def wait_until(is_over: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_over():
        if time.monotonic() > end:
            raise TimeoutError(f"A run has not ended within {TIMEOUT:.0f} s.")
        time.sleep(0.002)


def num_rows(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hash_of(path) for path in files_in(folder)}


def files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
