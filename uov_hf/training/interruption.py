"""SIGTERM, as Slurm sends it before the time limit of a job: a run saves a checkpoint and ends."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_start_method
from multiprocessing.process import BaseProcess, parent_process
from threading import Event, Thread, current_thread, main_thread


# Of a run that was interrupted, its steps saved: start it again with `--resume_from_checkpoint latest`. EX_TEMPFAIL of
# sysexits.h; no shell, Python or launcher uses it for another end.
RESUME_STATUS = 75


@contextmanager
def sigterm_noted() -> Iterator[Event]:
    """An event that SIGTERM sets, instead of ending this process, as long as the context is open."""
    event = Event()
    if current_thread() is not main_thread():  # Python handles signals in the main thread only
        yield event
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


@contextmanager
def sigterm_blocked_in_forks() -> Iterator[None]:
    """Block SIGTERM in all threads of the processes that this thread forks as long as the context is open.

    A signal that comes to this thread meanwhile is delivered at the end. Nothing is blocked if processes do not
    start by fork, or elsewhere than on Linux.
    """
    if sys.platform != "linux" or get_start_method() != "fork":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_run(*_: object) -> None:
    """Let SIGTERM end this process, a worker of a loader, only if its run sends it.

    Slurm signals all processes of a job, and the run still needs its workers for the step that it saves. A worker that
    hangs in a read must end with its run, which would wait for it.
    """
    parent = parent_process()
    if parent is None or sys.platform != "linux":  # elsewhere no signal has its sender
        return
    # A thread of a library may have ended the block, and torch's handler would end the process there.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Not a handler: it would interrupt reads, and it would wait for the end of a call in C.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    # A signal that comes while another one is pending is lost. The run sends two: its loader's, multiprocessing's.
    while parent.is_alive() and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)  # the loader raises if a worker ends with another status
