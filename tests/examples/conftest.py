"""Scripts as users start them, and one pre-trained checkpoint that several tests look at."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import forks
import psutil
import pytest

from uov_hf.training.arguments import parse_arguments
from uov_hf.training.interruption import RESUME_STATUS
from uov_hf.training.tracking import LOG_FILE, read_log


EXAMPLES = Path(__file__).parents[2] / "examples"
LAUNCH = ["launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def start(log: str, script: str, *arguments, rank: int | None = None, port: int = 0, num_threads: int = 1):
    """A script in a process of its own: alone, or as one of two. It prints into a file."""
    environment = {"ACCELERATE_USE_CPU": "true"} if rank is None else forks.environment_of(rank, port)
    arguments = (str(EXAMPLES / script), [*map(str, arguments)], log, environment, num_threads)
    process = forks.start_server().Process(target=forks.run_script, args=arguments)
    process.start()
    return process


def run(
    log: Path, *arguments, num_processes: int = 1, num_threads: int = 1, timeout: float = 900, fails: bool = False
) -> str:
    log.unlink(missing_ok=True)
    ranks, port = (None,) if num_processes == 1 else range(num_processes), forks.free_port()
    processes = [start(str(log), *arguments, rank=rank, port=port, num_threads=num_threads) for rank in ranks]
    for process in processes:
        process.join(timeout)
        process.kill()
    statuses, output = [process.exitcode for process in processes], log.read_text()
    assert any(statuses) == fails, output
    return output


def launch(script: str, *arguments) -> None:
    """The same on two processes, as `accelerate launch` starts them."""
    command = [str(Path(sys.executable).with_name("accelerate")), *LAUNCH, str(EXAMPLES / script)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *map(str, arguments)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def log(tmp_path_factory) -> Path:
    """Where the scripts of this session print."""
    return tmp_path_factory.mktemp("logs") / "output.txt"


@pytest.fixture(scope="session")
def start_of_distillation(street_labels, tmp_path_factory) -> Path:
    """A checkpoint as pretrain.py leaves it, but untrained."""
    import torch

    from uov_hf import UOVConfig, UOVFeatureExtractor, UOVModel, UOVProcessor, save_checkpoint
    from uov_hf.labels import LabelSet

    torch.manual_seed(0)
    label_set, folder = LabelSet(street_labels), tmp_path_factory.mktemp("start")
    uov = UOVModel(UOVConfig.from_preset("tiny", projection_dim=label_set.embed_dim, teacher=label_set.teacher_id))
    prompt_embeds = torch.from_numpy(label_set.prompt_embeds)
    uov.set_classes(label_set.class_names, prompt_embeds, label_set.prompt_to_class, label_set.prompts)
    save_checkpoint(folder, uov, UOVProcessor.from_teacher(UOVFeatureExtractor()))
    return folder


@pytest.fixture(scope="session")
def settings_of(tiny_street, street_labels, start_of_distillation) -> dict[str, list]:
    """By stage, the arguments of a short run: 8 steps of two micro-batches, where two processes share them."""
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--dataloader_num_workers", 0]
    settings = [*data, "--per_device_train_batch_size", 1, "--freeze_batch_norm", "--learning_rate", 0.02]
    pretraining = ["--preset", "tiny", "--min_pairs", 20, "--negatives", "global", "--num_train_epochs", 4]
    self_training = ["--self_training_epochs", 2, "--self_training_confidence", 0.1, "--ema_decay", 0.5]
    distillation = ["--confidence_weighting", "--num_train_epochs", 4, "--head_learning_rate", 0.2, *self_training]
    finetuning = ["--preset", "tiny", "--data_fraction", 0.5, "--num_train_epochs", 8, "--head_learning_rate", 0.2]
    start_from = ["--model_name_or_path", start_of_distillation]
    return {
        "pretrain": ["pretrain.py", *settings, "--label_set", street_labels, *pretraining],
        "distill": ["distill.py", *settings, "--label_set", street_labels, *start_from, *distillation],
        "finetune": ["finetune.py", *settings, *finetuning],
    }


@pytest.fixture(scope="session")
def on_one_process() -> list:
    """Arguments beside these for one process that accumulates two micro-batches, validates and saves."""
    return "--gradient_accumulation_steps 2 --validation_split test --eval_steps 4 --checkpointing_steps 2".split()


@pytest.fixture(scope="session")
def finished(settings_of, on_one_process, run_script, tmp_path_factory) -> Callable[[str], Path]:
    """`finished("pretrain")` -> the folder of such a run, which is made once."""

    @cache
    def run_stage(stage: str) -> Path:
        folder = tmp_path_factory.mktemp(stage) / "out"
        run_script(*settings_of[stage], *on_one_process, "--output_dir", folder)
        return folder

    return run_stage


@pytest.fixture(scope="session")
def pretrained(finished) -> Path:
    return finished("pretrain")


@pytest.fixture(scope="session")
def run_script(log) -> Callable[..., str]:
    """`run_script("pretrain.py", "--seed", 1, num_processes=2)` -> its output; with `fails=True` it must fail."""
    return partial(run, log)


@pytest.fixture(scope="session")
def launch_script() -> Callable[..., None]:
    """`launch_script("pretrain.py", "--seed", 1)`: on two processes, by the launcher of accelerate."""
    return launch


def start_and_signal(log: Path, signal_number: int, num_steps: int, folder: Path, *arguments) -> int:
    """The exit code of a script that gets a signal, as all its processes, at a step or a little later."""
    process = start(str(log), *arguments)
    while len(read_log(folder / LOG_FILE)) < num_steps and process.is_alive():
        time.sleep(0.01)
    for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        one.send_signal(signal_number)
    process.join()
    assert not (folder / "model.safetensors").exists()
    return process.exitcode


@pytest.fixture
def kill_script(log) -> Callable[..., None]:
    """`kill_script(3, folder, "pretrain.py", …)`: run a script, and kill it at step 3 or a little later."""

    def kill(*arguments) -> None:
        assert start_and_signal(log, signal.SIGKILL, *arguments) == -signal.SIGKILL, log.read_text()

    return kill


@pytest.fixture
def stop_script(log) -> Callable[..., str]:
    """The same with SIGTERM; returns the output."""

    def stop(*arguments) -> str:
        log.unlink(missing_ok=True)
        assert start_and_signal(log, signal.SIGTERM, *arguments) == RESUME_STATUS, log.read_text()
        return log.read_text()

    return stop


@pytest.fixture
def script(monkeypatch) -> Callable[[str], SimpleNamespace]:
    """`script("finetune.py")` -> its names, and `parse(*arguments)` for its command line."""

    def load(name: str) -> SimpleNamespace:
        names = runpy.run_path(str(EXAMPLES / name))
        own = next(kind for kind in names.values() if isinstance(kind, type) and kind.__module__ == "<run_path>")

        def parse(*arguments):
            monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
            return parse_arguments(own, names["__doc__"], names.get("STREET_DEFAULTS"))

        return SimpleNamespace(**names, parse=parse)

    return load
