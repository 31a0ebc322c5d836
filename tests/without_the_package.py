"""Run a script in a process that cannot import the package, as on a machine where it is not installed."""

import os
import subprocess
import sys
from pathlib import Path


BLOCK_THE_PACKAGE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "uov_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def run_script(script: str, folder: Path, *arguments: Path, **environment: str) -> None:
    """Run `script` in `folder`, with a cache of its own; fail with what it wrote to stderr."""
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "PYTHONPATH": "", **environment}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
