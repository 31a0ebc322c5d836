"""A recipe of all stages."""

import pytest


SCHEDULE = {"split": "train", "max_train_steps": 3, "checkpointing_steps": 1, "per_device_train_batch_size": 1}


@pytest.fixture
def content(tiny_street, tmp_path) -> dict:
    """All stages, on the tiny street."""
    return {
        "dataset": "nuscenes",
        "data_dir": str(tiny_street),
        "output_dir": str(tmp_path / "run"),
        "dataloader_num_workers": 0,
        "generate_label_set": {"teacher": "synthetic", "split": "all"},
        "label_points": {"split": "all", "preset": "consolidated"},
        "label_card": {"split": "all", "no_gallery": True},
        "pretrain": {"preset": "tiny", "min_pairs": 20, "optimizer": "adamw", "learning_rate": 3e-3, **SCHEDULE},
        "distill": {"optimizer": "adamw", "learning_rate": 3e-3, "head_learning_rate": 3e-3, **SCHEDULE},
        "evaluate": {"split": "test"},
    }
