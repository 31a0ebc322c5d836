"""A run as the scripts make it: on several GPUs batch normalisation is over all processes, on CPU it is not."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForPreTraining
from uov_hf.data import load_frames
from uov_hf.sparse_unet import VoxelBatchNorm
from uov_hf.training import run as run_module
from uov_hf.training.arguments import TrainingArguments
from uov_hf.training.run import create_run
from uov_hf.training.samples import AnnotatedSamples
from uov_hf.training.several_datasets import JoinedSamples
from uov_hf.training.sync_batch_norm import SyncVoxelBatchNorm


@dataclass(kw_only=True)
class Arguments(TrainingArguments):
    stage, frames_per_step = "finetune", 4


@pytest.mark.parametrize("device, expected", [("cuda", SyncVoxelBatchNorm), ("cpu", VoxelBatchNorm)])
def test_batch_normalisation_is_synchronised_between_gpus_alone(
    device, expected, tiny_street, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", logger="uov_hf")
    monkeypatch.setattr(run_module, "wait_for_all", lambda accelerator: None)
    accelerator = SimpleNamespace(
        num_processes=2,
        device=torch.device(device),
        mixed_precision="bf16",
        prepare=lambda *prepared: prepared,
        register_for_checkpointing=lambda scheduler: None,
        init_trackers=lambda name, settings: None,
    )
    model = UOVForPreTraining(UOVConfig.from_preset("tiny", sparse_backend="torch"))
    frames = load_frames("nuscenes", "all", data_dir=tiny_street)
    samples = JoinedSamples([AnnotatedSamples(frames, UOVFeatureExtractor())])
    args = Arguments(max_train_steps=3, output_dir=str(tmp_path), gradient_checkpointing=True)
    run = create_run(accelerator, args, model, model.parameters(), samples)
    assert f"Sparse convolutions on {device} in torch.bfloat16: torch" in caplog.text
    assert run.model.is_gradient_checkpointing
    norms = [module for module in run.model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert norms and all(type(norm) is expected for norm in norms)
    assert run.settings["frames_per_step"] == 4 and run.settings["num_steps"] == 3
    trained = {parameter for group in run.optimizer.param_groups for parameter in group["params"]}
    assert {parameter for norm in norms for parameter in norm.parameters()} <= trained
