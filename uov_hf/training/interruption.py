"""SIGTERM, as Slurm sends it before the time limit of a job: a run saves a checkpoint and ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread


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


def ignore_sigterm(*_: object) -> None:
    """Let this process, a worker of a loader, live until its run has ended: Slurm signals all processes of a job."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
