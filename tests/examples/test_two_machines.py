"""Two machines, here two launchers on one: they train what two processes of one machine train, killed or not."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from runs import losses, without_times

from uov_hf.training.tracking import LOG_FILE, read_log


REPOSITORY = Path(__file__).parents[2]
NUM_STEPS = 8

SIGNAL_ALL = "import sys, psutil; [one.terminate() for one in psutil.Process(int(sys.argv[1])).children(True)]"
FAKE_COMMANDS = {
    "scontrol": '[ "$1" = requeue ] && touch "$JOB/requeued"; echo 127.0.0.1; echo 127.0.0.2',
    "srun": 'echo $$ > "$JOB/srun"; shift; SLURM_NODEID=0 "$@" & SLURM_NODEID=1 "$@" & wait %1 && wait %2',
    # Slurm signals all processes of the steps: launchers, their processes, and the workers of these.
    "scancel": f'python -c "{SIGNAL_ALL}" "$(cat "$JOB/srun")"',
}

pytestmark = pytest.mark.slow


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job on two nodes with one process each, on CPU."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in FAKE_COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    scripts = Path(sys.executable).parent  # accelerate's
    job = {"SLURM_NNODES": 2, "SLURM_GPUS_ON_NODE": 1, "SLURM_JOB_NODELIST": "two", "SLURM_JOB_ID": os.getpid()}
    return os.environ | {
        "PATH": f"{commands}:{scripts}:{os.environ['PATH']}",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "JOB": str(tmp_path),
        **{name: str(value) for name, value in job.items()},
    }


def submit(slurm: dict, script: str, *arguments) -> subprocess.Popen:
    command = ["bash", "examples/slurm/launch.sbatch", f"examples/{script}", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill(job: subprocess.Popen) -> None:
    """The job with all that it started; the launchers give their processes sessions of their own."""
    for process in [*psutil.Process(job.pid).children(recursive=True), job]:
        process.kill()
    job.wait()


def test_two_nodes_with_two_workers_each_killed_and_resumed_train_what_one_node_trains(
    settings_of, run_script, slurm, tmp_path
):
    settings = [*settings_of["pretrain"], "--dataloader_num_workers", 2, "--checkpointing_steps", 2]
    run_script(*settings, "--output_dir", tmp_path / "one", num_processes=2, timeout=900)

    settings += ["--output_dir", tmp_path / "two", "--resume_from_checkpoint", "latest"]
    job, killed_after = submit(slurm, *settings), random.randint(1, NUM_STEPS - 1)
    while len(read_log(tmp_path / "two" / LOG_FILE)) < killed_after and job.poll() is None:
        time.sleep(0.01)
    kill(job)
    assert not (tmp_path / "two" / "model.safetensors").exists()

    job = submit(slurm, *settings)
    output, _ = job.communicate(timeout=900)
    assert job.returncode == 0, output
    assert losses(tmp_path / "two").equal(losses(tmp_path / "one")), f"killed after step {killed_after}"
    assert without_times(tmp_path / "two") == without_times(tmp_path / "one")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_a_job_before_its_time_limit_saves_requeues_itself_and_ends_as_without_it(
    settings_of, run_script, slurm, tmp_path
):
    settings = [*settings_of["pretrain"], "--dataloader_num_workers", 2, "--checkpointing_steps", 100]
    run_script(*settings, "--output_dir", tmp_path / "one", num_processes=2, timeout=900)
    settings += ["--output_dir", tmp_path / "two", "--resume_from_checkpoint", "latest"]
    job = submit(slurm, *settings)
    while len(read_log(tmp_path / "two" / LOG_FILE)) < 2 and job.poll() is None:
        time.sleep(0.01)
    job.terminate()
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 75 and (tmp_path / "requeued").exists(), output
    assert "SIGTERM: the run ends with status 75 after step" in output
    output, _ = submit(slurm, *settings).communicate(timeout=900)
    assert "Resumed from" in output
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1], output
