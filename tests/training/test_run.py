"""A run as the scripts make it: on several GPUs batch normalisation is over all processes, on CPU it is not."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVModel
from uov_hf.data import load_frames
from uov_hf.sparse_unet import VoxelBatchNorm
from uov_hf.training import run as run_module
from uov_hf.training.run import create_run
from uov_hf.training.samples import AnnotatedSamples
from uov_hf.training.sync_batch_norm import SyncVoxelBatchNorm


ARGS = {
    "seed": 0,
    "streaming": False,
    "gradient_accumulation_steps": 1,
    "per_device_train_batch_size": 1,
    "max_train_steps": 3,
    "num_train_epochs": None,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 0.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0,
    "checkpoints_total_limit": 2,
}


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
    )
    model = UOVModel(UOVConfig.from_preset("tiny"))
    samples = AnnotatedSamples(load_frames("nuscenes", "all", data_dir=tiny_street), UOVFeatureExtractor())
    args = Namespace(**ARGS, output_dir=tmp_path)
    run = create_run(accelerator, args, model, model.parameters(), samples, frames_per_step=4)
    assert f"Sparse convolutions on {device} in torch.bfloat16: torch" in caplog.text
    norms = [module for module in run.model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert norms and all(type(norm) is expected for norm in norms)
    assert run.settings["frames_per_step"] == 2 and run.settings["num_steps"] == 3
    trained = {parameter for group in run.optimizer.param_groups for parameter in group["params"]}
    assert {parameter for norm in norms for parameter in norm.parameters()} <= trained
