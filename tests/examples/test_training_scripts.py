"""The three training scripts: splitting a run over processes, or killing it, changes nothing."""

import random

import pytest
import torch
from runs import losses, without_times
from safetensors.torch import load_file


NUM_STEPS = 8
STAGES = ("pretrain", "distill", "finetune")


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_train_on_the_points_of_one_and_follow_its_curve(
    stage, settings_of, finished, run_script, launch_script, tmp_path
):
    if stage == "pretrain":
        launch_script(*settings_of[stage], "--output_dir", tmp_path)
    else:
        run_script(*settings_of[stage], "--output_dir", tmp_path, num_processes=2)
    alone = finished(stage)
    assert losses(tmp_path).shape == (NUM_STEPS, 1)
    assert torch.allclose(losses(tmp_path), losses(alone), rtol=1e-5)
    assert losses(tmp_path, "num_points").equal(losses(alone, "num_points"))
    trained = load_file(tmp_path / "model.safetensors")
    for name, weight in load_file(alone / "model.safetensors").items():
        assert torch.allclose(trained[name], weight, rtol=1e-3, atol=1e-5), name


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
