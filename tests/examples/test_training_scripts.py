"""The training scripts: a kill does not change a run, and all work without arguments."""

import random

import pytest
import torch
from runs import losses, validation_losses, without_times

from uov_hf.training.tracking import LOG_FILE, read_log


NUM_STEPS = 8
TERMS = {"cross_entropy": 1.0, "lovasz_loss": 1.0}  # the loss is their weighted sum
STAGES = {"pretrain": {"image_loss": 0.5, "text_loss": 0.5}, "distill": TERMS, "finetune": TERMS}


@pytest.mark.parametrize("stage, terms", STAGES.items())
def test_the_log_shows_the_loss_and_its_terms_and_both_losses_fall(stage, terms, finished):
    records, curve = read_log(finished(stage) / LOG_FILE), losses(finished(stage))
    assert [record["step"] for record in records] == list(range(1, NUM_STEPS + 1))
    assert [record["step"] for record in records if "validation_loss" in record] == [4, 8]
    validation = validation_losses(finished(stage))
    assert curve[-2:].mean() < curve[:2].mean() and validation[1] < validation[0]
    expected = losses(finished(stage), *terms) @ torch.tensor([[*terms.values()]], dtype=torch.float64).T
    assert torch.allclose(curve, expected, rtol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_any_moment_and_resumed_ends_in_the_same_weights(
    stage, settings_of, on_one_process, finished, kill_script, run_script, tmp_path
):
    settings = [*settings_of[stage], *on_one_process, "--output_dir", tmp_path]
    killed_after = random.randint(1, NUM_STEPS - 1)
    kill_script(killed_after, tmp_path, *settings)

    run_script(*settings, "--resume_from_checkpoint", "latest")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path, finished(stage))]
    assert weights[0] == weights[1], f"killed after step {killed_after}"
    assert without_times(tmp_path) == without_times(finished(stage))
    assert not list(tmp_path.glob(".checkpoint-*"))


def test_a_script_that_sigterm_interrupts_saves_and_ends_with_the_status_that_means_resume(
    settings_of, on_one_process, finished, stop_script, run_script, tmp_path
):
    settings = [*settings_of["finetune"], *on_one_process, "--output_dir", tmp_path]
    settings += ["--checkpointing_steps", 100]
    assert "SIGTERM: the run ends with status 75 after step" in stop_script(3, tmp_path, *settings)
    run_script(*settings, "--resume_from_checkpoint", "latest")
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path, finished("finetune"))]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_without_arguments_all_stages_run_on_the_embedded_street_and_pre_training_takes_two_minutes(
    run_script, tmp_path
):
    refused = run_script("distill.py", "--model_name_or_path", tmp_path, "--output_dir", tmp_path / "uov", fails=True)
    assert "Run examples/pretrain.py without --dataset first" in refused
    output = run_script("pretrain.py", "--output_dir", tmp_path / "tmp", timeout=120)
    assert "For real data give --dataset nuscenes --data_dir" in output
    start_from = ["--model_name_or_path", tmp_path / "tmp"]
    run_script("distill.py", *start_from, "--output_dir", tmp_path / "uov")
    run_script("finetune.py", *start_from, "--output_dir", tmp_path / "tuned")
    for stage in ("tmp", "uov", "tuned"):
        validation = validation_losses(tmp_path / stage)
        assert validation[-1] < validation[0], stage
    assert "| **mean of the classes with truth** |" in run_script(
        "evaluate.py", *start_from, "--output_dir", tmp_path / "eval"
    )
