"""Starts of the long commands for `kills.py`: in folders of their own, as forks or in new interpreters, and killed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import psutil
from common import REPOSITORY
from kill_jobs import Job, run, write_recipe

from uov_hf.synthetic.street import generate_street_once


sys.path.insert(0, str(REPOSITORY / "tests" / "hub"))
from loopback_hub import LoopbackHub  # noqa: E402


PRELOADED = [
    *("accelerate", "datasets", "matplotlib.pyplot", "onnxruntime", "uov_hf.data.writing", "uov_hf.labels"),
    *("uov_hf.convert.onnx_export", "uov_hf.segmenting", "uov_hf.training.publishing", "uov_hf.training.loop"),
    *("uov_hf.evaluation.predictions", "uov_hf.evaluation.label_figures", "uov_hf.evaluation.scores", "kill_jobs"),
]
TEMPORARY = (".*", "*.tmp", "*.partial")  # a reader finds no file or folder of such a name
TIMEOUT = 300.0  # seconds; a start of this length hangs
POLL = 0.001
SECONDS_OF_IMPORTS = 10.0  # of a new interpreter; a fork has none
MOST_TEMPORARY = 3  # temporary files that a kill may wait for


@dataclass(frozen=True)
class Whole:
    """The run that nothing stopped.

    Args:
        folder (`Path`): Where it ran.
        seconds (`float`): What it took.
        num_changes (`int`): How often its process opened files to write, renamed, removed and so on.
    """

    folder: Path
    seconds: float
    num_changes: int


@dataclass(frozen=True)
class Kill:
    """How a start is ended.

    Args:
        moment (`str`): `"random"`, `"change"` (before a change of a file) or `"temporary"` (such a file appears).
        number (`signal.Signals`): SIGKILL or SIGTERM.
        to_group (`bool`): Whether all processes of the command get it, or only the first one.
    """

    moment: str
    number: signal.Signals
    to_group: bool


class Runs:
    """The runs of a check.

    Args:
        folder (`Path`): Has a folder for each of them, and the street.
        fresh (`bool`): Whether each start is a new interpreter, or a fork of a server that has imported the package.
    """

    def __init__(self, folder: Path, fresh: bool = False):
        self.folder, self.fresh = folder, fresh
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "output.log"
        self.sessions: set[int] = set()
        self.hub = LoopbackHub(folder / "hub_home")
        # The server of the forks has the environment of its start.
        os.environ |= self.hub.env | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        warm_up = self.context.Process(target=os.getpid)
        warm_up.start()
        warm_up.join()
        sizes = {"num_scenes": 2, "frames_per_scene": 3, "image_size": (64, 112), "azimuth_steps": 120}
        generate_street_once(folder / "street", splits={"train": 1, "test": 1}, **sizes)

    def prepare(self, job: Job, folder: Path) -> None:
        """Make a folder with the inputs of a command, and an empty Hub."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "street").symlink_to(self.folder / "street")
        for name in job.inputs:
            shutil.copytree(self.input_of(job, name), folder / name)
        write_recipe(folder)
        self.hub.repos.clear()
        self.hub.blobs.clear()
        self.seconds_done, self.changes_done = 0.0, 0  # of the starts so far

    def input_of(self, job: Job, name: str) -> Path:
        return self.folder / "whole" / job.inputs[name] / "out"

    def save_hub(self, folder: Path) -> None:
        """Write what is visible on the Hub into the folder of a run."""
        shutil.rmtree(folder / "hub", ignore_errors=True)
        for kind, repo_id in list(self.hub.repos):
            for name, content in self.hub.files(repo_id, kind).items():
                path = folder / "hub" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def run_whole(self, job: Job) -> Whole:
        """The run that nothing stops; that of an earlier check is taken."""
        folder, work = self.folder / "whole" / job.name, self.work_of(job)
        if not folder.exists():
            self.prepare(job, work)
            started = time.monotonic()
            self.run_to_the_end(job, work)
            about = {"seconds": time.monotonic() - started, "num_changes": self._count_changes()}
            (work / "about.json").write_text(json.dumps(about))
            folder.parent.mkdir(exist_ok=True)
            work.rename(folder)
        return Whole(folder, **json.loads((folder / "about.json").read_text()))

    def work_of(self, job: Job) -> Path:
        """Where all runs of a command work, one after the other: some files have the absolute paths of others."""
        return self.folder / "work" / job.name

    def run_to_the_end(self, job: Job, folder: Path) -> None:
        self._start(job, folder)
        if status := self._wait():
            raise RuntimeError(f"{job.name} ended with status {status}; its output is in {self.log}.")
        self.save_hub(folder)

    def kill(self, job: Job, whole: Whole, folder: Path, kill: Kill, rng: random.Random) -> int:
        """Start a command, and end it at the moment of the kill unless it has ended before; returns its status."""
        # A start that continues has less to do than the whole run, and repeats some of it.
        seconds = max(whole.seconds - self.seconds_done, whole.seconds / 3) + SECONDS_OF_IMPORTS * self.fresh
        num_changes = max(whole.num_changes - self.changes_done, whole.num_changes // 3)
        # Its own process counts the changes, so that the signal comes between two of them.
        kill_at = rng.randint(1, num_changes) if kill.moment == "change" and num_changes else 0
        present, started = set(temporary_files(folder)), time.monotonic()
        self._start(job, folder, kill_at, kill)
        if not kill_at:
            if kill.moment == "temporary":
                self._wait_for_temporary(folder, present, rng.randint(1, MOST_TEMPORARY))
            else:
                self._sleep(rng.uniform(0, seconds))
            if self._status() is None:
                self._send(kill)
        status = self._wait()
        self.seconds_done += time.monotonic() - started
        self.changes_done += self._count_changes()
        self.save_hub(folder)
        return status

    def end_all(self) -> int:
        """Wait for processes that killed ones have left; returns how many had to be ended."""
        end = time.monotonic() + TIMEOUT / 10
        while any(self._left()) and time.monotonic() < end:
            time.sleep(POLL)
        left = list(self._left())
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return len(left)

    def _start(self, job: Job, folder: Path, kill_at: int = 0, kill: Kill | None = None) -> None:
        if self.fresh:
            program = [sys.executable, str(Path(__file__).with_name("kill_jobs.py")), str(folder), str(self.log)]
            self.process = subprocess.Popen([*program, *job.words.split()], start_new_session=True)
        else:
            number, to_group = (kill.number, kill.to_group) if kill else (signal.SIGKILL, False)
            arguments = (job.words.split(), folder, self.log, kill_at, number, to_group)
            self.process = self.context.Process(target=run, args=arguments)
            self.process.start()
        self.sessions.add(self.process.pid)

    def _count_changes(self) -> int:
        """Changes of files by the last start; 0 for a new interpreter, which does not count them."""
        return 0 if self.fresh else int(self.log.with_suffix(".changes").read_text() or 0)

    def _status(self) -> int | None:
        """The exit status of the process, negative for a signal; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def _wait(self) -> int:
        self._sleep(TIMEOUT)
        if (status := self._status()) is None:
            self._send(Kill("random", signal.SIGKILL, to_group=True))
            raise TimeoutError(f"A start has not ended within {TIMEOUT:.0f} s; its output is in {self.log}.")
        return status

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._status() is None and time.monotonic() < end:
            time.sleep(POLL)

    def _wait_for_temporary(self, folder: Path, present: set[str], number: int) -> None:
        while self._status() is None and number > 0:
            new = set(temporary_files(folder)) - present
            number -= len(new)
            present |= new
            time.sleep(POLL)

    def _send(self, kill: Kill) -> None:
        with suppress(ProcessLookupError):  # it has ended meanwhile, or leads no group yet
            if kill.to_group:
                os.killpg(self.process.pid, kill.number)
                return
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, kill.number)

    def _left(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) in self.sessions and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def temporary_files(folder: Path) -> Iterator[str]:
    """The paths of temporary files and folders."""
    for place, folders, files in os.walk(folder):
        yield from (os.path.join(place, name) for name in (*folders, *files) if is_temporary(name))


def is_temporary(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in TEMPORARY)
