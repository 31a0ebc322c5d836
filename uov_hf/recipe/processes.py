"""A program in a process of its own: its output in a log and in the terminal, its cost, and its end."""

import errno
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil


# The processes of a recipe have the folder of the run in this variable, so that a later run finds those that are left.
RUN_VARIABLE = "UOV_HF_RECIPE"
GRACE = 30  # seconds in which a training finishes its step and saves a checkpoint


@dataclass(frozen=True)
class Cost:
    """What a program took.

    Args:
        seconds (`float`): From start to end.
        cpu_seconds (`float`): Of all its processes together.
        gigabytes (`float`): Memory of its largest process.
    """

    seconds: float
    cpu_seconds: float
    gigabytes: float


def run_program(command: list[str], environment: Mapping[str, str], log: Path, show: bool) -> Cost:
    """Run a program to its end, and append its output to a log.

    Args:
        command (`list[str]`): The program and its arguments.
        environment (`Mapping[str, str]`): Variables besides those of this process.
        log (`Path`): The file; its folder is made.
        show (`bool`): Whether the output appears on stderr, too. In a terminal it includes bars.

    Raises:
        subprocess.CalledProcessError: The program ended with another status than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    source, sink = _open_terminal() if show and sys.stderr.isatty() else os.pipe()
    with open(source, "rb", buffering=0) as output, log.open("ab", buffering=0) as file:
        try:
            process = subprocess.Popen(command, env=os.environ | dict(environment), stdout=sink, stderr=sink)
        finally:
            os.close(sink)  # the program alone has the other end, so that its end is that of the output
        try:
            _copy_output(output, file, show)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # such as Ctrl-C or SIGTERM
            _end_tree(process.pid)
            process.wait()
            os.set_blocking(source, False)
            _copy_output(output, file, show)  # its last lines: which step is saved
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Cost(
        round(time.perf_counter() - started, 1),
        round(usage.ru_utime + usage.ru_stime, 1),
        round(kilobytes / 2**20, 2),
    )


def _open_terminal() -> tuple[int, int]:
    """A terminal of the size of ours: programs draw their bars in a terminal only."""
    source, sink = pty.openpty()
    with suppress(termios.error):
        termios.tcsetwinsize(sink, termios.tcgetwinsize(sys.stderr))
    return source, sink


def _copy_output(output: BinaryIO, log: BinaryIO, show: bool) -> None:
    """Copy an output to the log line by line, of a bar only its last state; `show` copies it to stderr as it comes."""
    rest = b""
    while chunk := _read(output):
        if show:
            sys.stderr.write(chunk.decode(errors="replace"))
            sys.stderr.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        log.write(b"".join(_last_state(line) + b"\n" for line in lines))
        rest = _last_state(rest[:-1]) + rest[-1:]  # a bar may draw itself for days before its line ends
    if rest:
        log.write(_last_state(rest) + b"\n")


def _last_state(line: bytes) -> bytes:
    """The text after the last return of the carriage; a terminal puts one at the end, too."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _read(output: BinaryIO) -> bytes:
    try:
        return output.read(65536) or b""
    except OSError as error:
        if error.errno == errno.EIO:  # how the output of a terminal ends on Linux
            return b""
        raise


def _end_tree(pid: int) -> None:
    """End a process and all that it has started, which a launcher would leave running: by SIGTERM, then by SIGKILL."""
    tree = list[psutil.Process]()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        tree = [*process.children(recursive=True), process]
    try:
        _signal(tree, signal.SIGTERM)
        end = time.monotonic() + GRACE
        while any(map(_is_alive, tree)) and time.monotonic() < end:
            time.sleep(0.05)
    finally:  # also after a second Ctrl-C
        _signal(tree, signal.SIGKILL)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE  # it stays one where nothing collects orphans
    return False


def kill_leftovers(folder: Path) -> list[int]:
    """Kill the processes of a run in this folder that was killed without them.

    Returns:
        `list[int]`: Their ids.
    """
    left = list(_processes_of(folder))
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left)
    return [process.pid for process in left]


def _processes_of(folder: Path) -> Iterator[psutil.Process]:
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # ended meanwhile, or of another user
            if process.pid not in own and process.environ().get(RUN_VARIABLE) == str(folder.resolve()):
                yield process
