"""The `Accelerator` of a run, and the check that the launch started all of its processes."""

import atexit
import logging
import os
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread

from accelerate import Accelerator, DataLoaderConfiguration, InitProcessGroupKwargs
from accelerate.utils import ProjectConfiguration, set_seed
from torch import distributed

from uov_hf.data.shards import Sharing
from uov_hf.data.write_report import OnError


# A process that waits longer for the others in training ends the run: one of them is stuck.
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
# Labels and uploads may keep a process busy for longer (`wait_for_all`). But one that shows no sign of life for this
# time is stopped, or its machine is gone.
LONGEST_SILENCE = COLLECTIVE_TIMEOUT
HEARTBEAT = timedelta(minutes=1)  # between two signs of life


def start(output_dir: str, seed: int, mixed_precision: str | None = None, report_to: str = "none") -> Accelerator:
    """An `Accelerator` for this process, with logging, seed and output folder in place."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uov_hf").setLevel(logging.INFO)
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        log_with=None if report_to == "none" else report_to,
        project_config=ProjectConfiguration(project_dir=output_dir, logging_dir=str(Path(output_dir) / "logs")),
        # Otherwise accelerate would cut every tensor of a ragged batch to the length of the first one.
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT)],
    )
    check_num_processes(accelerator.num_processes)
    if accelerator.num_processes > 1:
        show_life(accelerator.process_index)
    set_seed(seed)
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    return accelerator


def sharing(accelerator: Accelerator, on_error: OnError) -> Sharing:
    """The share of this process in the frames of a label set or of point labels."""
    return {
        "on_error": on_error,
        "process_index": accelerator.process_index,
        "num_processes": accelerator.num_processes,
        "show_progress": accelerator.is_main_process,
        "wait": partial(wait_for_all, accelerator),
    }


def show_life(rank: int) -> None:
    """Count at the store of the launch, once a minute, that this process runs; until it ends."""
    end = Event()

    def count() -> None:
        with suppress(RuntimeError):  # the store has ended with the launch
            store, *_ = next(distributed.rendezvous("env://"))
            while not end.is_set():
                store.add(_life_of(rank), 1)
                end.wait(HEARTBEAT.total_seconds())

    def stop() -> None:
        end.set()
        thread.join(timeout=5)

    thread = Thread(target=count, daemon=True)
    thread.start()
    atexit.register(stop)  # a thread within the store's C++ code when Python ends would abort the process


def wait_for_all(accelerator: Accelerator) -> None:
    """Wait until all processes have called this, as long as all of them live; all of them call it equally often.

    They wait at the store of the launch, not in a collective call. A collective call has the time-out of training, and
    on GPUs it keeps the device busy.

    Raises:
        RuntimeError: A process has shown no sign of life (`show_life`) for 30 minutes.
    """
    if accelerator.num_processes == 1:
        return
    store, rank, num_processes = next(distributed.rendezvous("env://"))
    _wait(store, _count(store, "arrived", num_processes), num_processes)
    all_have_left = _count(store, "left", num_processes)
    if rank == 0:  # The store may live in this process, which must not end before the others have read it.
        _wait(store, all_have_left, num_processes)


def _wait(store: distributed.Store, key: str, num_processes: int) -> None:
    counts, since = [-1] * num_processes, [0.0] * num_processes
    while True:
        try:
            return store.wait([key], HEARTBEAT)
        except distributed.DistStoreError:  # not yet
            now = time.monotonic()
        for rank in range(num_processes):
            if (count := store.add(_life_of(rank), 0)) != counts[rank]:
                counts[rank], since[rank] = count, now
            elif now - since[rank] > LONGEST_SILENCE.total_seconds():
                raise RuntimeError(
                    f"Process {rank} of {num_processes} has shown no sign of life for {LONGEST_SILENCE}: it is "
                    "stopped, or its machine is gone. End the launch, and start it again with "
                    "--resume_from_checkpoint latest."
                )


def _life_of(rank: int) -> str:
    return f"uov_hf/life/{rank}"


def _count(store: distributed.Store, event: str, num_processes: int) -> str:
    """Count this process, and return the key that the store has when all processes have been counted."""
    count = store.add(f"uov_hf/{event}", 1)
    turn = -(-count // num_processes)  # no process starts the next turn before all have finished this one
    key = f"uov_hf/{event}/{turn}"
    if count == turn * num_processes:
        store.set(key, "")
    return key


def check_num_processes(num_processes: int) -> None:
    """Refuse a launch that was to start several processes and silently started one.

    Raises:
        RuntimeError: `accelerate launch --cpu --num_processes 2` (it starts one, with MASTER_PORT, no WORLD_SIZE),
            or `torchrun` on CPU without ACCELERATE_USE_CPU (it starts several, none connected to the others).
    """
    world_size = os.environ.get("WORLD_SIZE")
    if world_size is not None and int(world_size) == num_processes:
        return
    if world_size is None and not ("MASTER_PORT" in os.environ and num_processes == 1):
        return
    raise RuntimeError(
        f"The launch is for {world_size or 'several'} processes, but this run has {num_processes}. On CPU, start two "
        "processes by: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 examples/..."
    )
