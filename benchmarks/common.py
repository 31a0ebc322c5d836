"""What the benchmarks share: the real samples, and a line about the machine of a measurement."""

import os
import platform
from pathlib import Path

import torch


REPOSITORY = Path(__file__).resolve().parents[1]
REAL_SAMPLES = REPOSITORY.parent / "shared" / "data"


def describe_machine() -> str:
    """Processor, cores, load, threads and versions, for the head of a table."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} "
        f"threads, Python {platform.python_version()}, torch {torch.__version__}"
    )
