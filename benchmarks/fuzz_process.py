"""The process of benchmarks/fuzz.py in which Atheris fuzzes one reader; it may end at any time."""

import argparse
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import atheris


with atheris.instrument_imports(include=["uov_hf"]):
    from fuzz_inputs import mutate
    from fuzz_target import Fault, Target, peak_memory
    from transformers.utils.logging import disable_progress_bar

    from uov_hf.data.shard_file import write_atomically

HANG = 120  # seconds of a clock until libFuzzer ends the process: other processes may run beside it
SAVE_EVERY = 500  # inputs
RESTART_AT = 1500 << 20  # bytes of memory, half of libFuzzer's limit: the instrumented code collects some over time


@dataclass
class State:
    """What was done for a reader so far; `findings` has the message of each finding by the name of its file."""

    cpu_seconds: float = 0.0
    inputs: int = 0
    findings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "State":
        path = folder / "state.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def save(self, folder: Path) -> None:
        write_atomically(folder / "state.json", json.dumps(asdict(self), indent=2).encode())

    def record(self, folder: Path, data: bytes, fault: Fault) -> None:
        """Keep the first input of each kind and place."""
        name = f"{fault.kind}-{hashlib.sha256(fault.place.encode()).hexdigest()[:8]}"
        if name not in self.findings:
            (folder / "findings" / name).write_bytes(data)
            self.findings[name] = f"{fault.place}: {fault.message}"
            self.save(folder)


def fuzz(reader: str, folder: Path, cpu_seconds: float, samples: Path | None) -> None:
    """Fuzz a reader until its state has this time of the processor, or the memory is full; does not return."""
    files = Path(tempfile.mkdtemp(prefix="uov-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)).resolve()
    corpus = folder / "corpus"
    for own in (corpus, folder / "findings"):
        own.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["uov_hf"]):  # what readers import late
        target = Target(reader, files)
        for data in [*target.seeds(), *target.inputs_of(samples)]:
            target(data)
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    seeds, state = target.seeds(), State.load(folder)
    started_from = state.cpu_seconds - time.process_time()

    def test_one_input(data: bytes) -> None:
        if fault := target(data):
            state.record(folder, data, fault)
        state.inputs += 1
        state.cpu_seconds = started_from + time.process_time()
        is_over = state.cpu_seconds > cpu_seconds
        is_full = state.inputs % SAVE_EVERY == 0 and peak_memory() > RESTART_AT
        if is_over or state.inputs % SAVE_EVERY == 0:
            state.save(folder)
        if is_over or is_full:
            shutil.rmtree(files)
            os._exit(0)

    options = [f"-timeout={HANG}", "-rss_limit_mb=3000", "-max_len=65536", "-verbosity=1"]
    atheris.Setup(
        ["fuzz", str(corpus), f"-artifact_prefix={folder}/findings/", *options],
        test_one_input,
        custom_mutator=lambda data, max_size, seed: mutate(data, max_size, seed, atheris.Mutate, seeds),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader")
    parser.add_argument("folder", type=Path)
    parser.add_argument("cpu_seconds", type=float)
    parser.add_argument("--samples", type=Path)
    args = parser.parse_args()
    logging.disable()
    warnings.simplefilter("ignore")
    disable_progress_bar()
    fuzz(args.reader, args.folder, args.cpu_seconds, args.samples)
