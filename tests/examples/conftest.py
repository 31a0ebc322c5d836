"""Scripts as users start them, and one pre-trained checkpoint that several tests look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


EXAMPLES = Path(__file__).parents[2] / "examples"
TWO_PROCESSES = ["launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def command(script: str, *arguments, num_processes: int = 1) -> list[str]:
    """The command line of a script, on one process or on two."""
    launcher = [sys.executable]
    if num_processes == 2:
        launcher = [str(Path(sys.executable).with_name("accelerate")), *TWO_PROCESSES]
    return [*launcher, str(EXAMPLES / script), *(str(argument) for argument in arguments)]


def environment(num_threads: int = 1) -> dict[str, str]:
    """One thread each, so that runs of one and of two processes do the same arithmetic."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(num_threads)}


def run(*arguments, num_processes: int = 1, num_threads: int = 1, timeout: int = 900, fails: bool = False) -> str:
    done = subprocess.run(
        command(*arguments, num_processes=num_processes),
        env=environment(num_threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def street_labels(tiny_street, tmp_path_factory) -> Path:
    """What the synthetic teacher says about every frame of the tiny street."""
    from uov_hf.data import load_frames
    from uov_hf.labels import LabelSet, label_points
    from uov_hf.teachers import load_teacher
    from uov_hf.vocabulary import load_vocabulary

    folder = tmp_path_factory.mktemp("street_labels") / "labels"
    vocabulary = load_vocabulary("nuscenes")
    teacher = load_teacher("synthetic", prompts=vocabulary.prompts, data_dir=str(tiny_street))
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    label_set = LabelSet.create(folder, teacher, vocabulary, settings={"cameras": None})
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    return folder


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
def pretraining(tiny_street, street_labels) -> list:
    """Arguments of a short run: four frames, 8 steps of two micro-batches, where two processes share them."""
    return (
        ["pretrain.py", "--dataset", "nuscenes", "--data_dir", tiny_street, "--label_set", street_labels]
        + ["--split", "all", "--preset", "tiny", "--per_device_train_batch_size", 1, "--freeze_batch_norm"]
        + ["--min_pairs", 20, "--negatives", "global", "--num_train_epochs", 4, "--learning_rate", 0.02]
        + ["--dataloader_num_workers", 0]
    )


@pytest.fixture(scope="session")
def pretrained(pretraining, tmp_path_factory) -> Path:
    """The folder of a run on one process that accumulates two micro-batches."""
    folder = tmp_path_factory.mktemp("pretrained") / "tmp"
    validation = ["--validation_split", "test", "--eval_steps", 4]
    checkpoints = ["--checkpointing_steps", 2, "--checkpoints_total_limit", 2]
    run(*pretraining, "--gradient_accumulation_steps", 2, *validation, *checkpoints, "--output_dir", folder)
    return folder


@pytest.fixture(scope="session")
def run_script() -> Callable[..., str]:
    """`run_script("pretrain.py", "--seed", 1, num_processes=2)` -> what it printed; with `fails=True` it must fail."""
    return run


@pytest.fixture
def start_script() -> Callable[..., subprocess.Popen]:
    """The same, but it is left running."""
    return lambda *arguments: subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
