"""Run the Space as its README starts it."""

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from forks import free_port


SPACE = Path(__file__).parents[1] / "examples" / "space"


@contextmanager
def running_space(python: str | Path, checkpoint: Path, folder: Path, app: Path = SPACE / "app.py") -> Iterator[str]:
    """The address of a running Space with this interpreter and checkpoint; it writes `log.txt` in the folder."""
    port = free_port()
    environment = os.environ | {
        "HF_MODEL_ID": str(checkpoint),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "log.txt").open("w") as log:
        command = [str(python), "-u", str(app)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _wait(process, f"http://127.0.0.1:{port}", folder / "log.txt")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen, address: str, log: Path, seconds: int = 180) -> None:
    for _ in range(seconds):
        with suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
            break
    raise RuntimeError(f"The app does not answer:\n{log.read_text()}")
