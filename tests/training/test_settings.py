"""A changed setting that decides the result is refused by name, with both values; any other is logged and accepted."""

import logging
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from uov_hf import UOVConfig, UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.training.augmentation import AugmentationConfig
from uov_hf.training.order import TrainingOrder
from uov_hf.training.samples import AnnotatedSamples
from uov_hf.training.settings import check_settings, run_settings
from uov_hf.training.several_datasets import JoinedSamples


CHECKPOINT, AUGMENTATION = Path("out/checkpoint-7"), AugmentationConfig()
ARGUMENTS = {"dataset": "nuscenes", "data_dir": "data", "output_dir": "out", "seed": 0, "learning_rate": 0.5}
ARGUMENTS |= {"num_train_epochs": 4, "checkpointing_steps": 2, "dataloader_num_workers": 2, "on_error": "raise"}
ARGUMENTS |= {"resume_from_checkpoint": None}


@pytest.fixture(scope="module")
def frames(tiny_street):
    Accelerator(cpu=True)  # its logger needs one
    return load_frames("nuscenes", split="all", data_dir=tiny_street)


def settings_of(
    frames, *others, voxels=None, model=None, order=None, augmentation=AUGMENTATION, label_map=None, **arguments
):
    settings = (UOVFeatureExtractor(**voxels or {}), augmentation, 0, label_map)
    samples = JoinedSamples(AnnotatedSamples(one, *settings) for one in (frames, *others))
    order = {"num_frames": len(frames), "batch_size": 1, "accumulation": 2, **(order or {})}
    config = UOVConfig.from_preset("tiny", **model or {})
    return run_settings(ARGUMENTS | arguments, TrainingOrder(**order), 8, "no", samples, config)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"learning_rate": 0.1}, "learning_rate = 0.5, now 0.1"),
        ({"order": {"seed": 3}}, "seed = 0, now 3"),
        ({"order": {"accumulation": 4}}, "frames_per_step = 2, now 4"),
        ({"order": {"batch_size": 2, "accumulation": 1}}, "per_device_train_batch_size = 1, now 2"),
        ({"order": {"local": True}}, "streaming = false, now true"),
        ({"voxels": {"voxel_size": [0.2, 0.1, 0.2]}}, r"feature_extractor\.voxel_size = .*, now \[0.2, 0.1, 0.2\]"),
        ({"model": {"negatives": "global"}}, r'model\.negatives = "scene", now "global"'),
        ({"augmentation": None}, "augmentation = .*, now null"),
        ({"label_map": np.full(256, 255, np.uint8)}, r"label_maps = \[null\], now \[\[255, "),
    ],
)
def test_what_decides_the_result_is_refused_by_name_with_both_values(frames, change, message):
    with pytest.raises(ValueError, match=message):
        check_settings(settings_of(frames), settings_of(frames, **change), CHECKPOINT)


def test_other_frames_are_refused_even_if_they_are_as_many(frames):
    saved, ours = settings_of(frames), settings_of(frames.select(range(len(frames))[::-1]))
    assert saved["num_frames"] == ours["num_frames"]
    with pytest.raises(ValueError, match="frame_ids = "):
        check_settings(saved, ours, CHECKPOINT)


def test_the_frames_of_each_dataset_are_compared_with_those_of_the_same_one(frames):
    first, second = frames.select([0, 1]), frames.select([2, 3])
    saved = settings_of(first, second)
    check_settings(saved, settings_of(first, second), CHECKPOINT)
    for changed in ([second, first], [frames], [frames.select([0]), frames.select([1, 2, 3])]):
        with pytest.raises(ValueError, match="frame_ids = "):
            check_settings(saved, settings_of(*changed, order={"num_frames": 2}), CHECKPOINT)


def test_all_that_differs_is_in_one_message_that_stays_short(frames):
    prompts = {"prompts": ["a very long phrase"] * 100}
    with pytest.raises(ValueError, match="learning_rate = .*; model.prompts = ") as caught:
        check_settings(settings_of(frames), settings_of(frames, learning_rate=1.0, model=prompts), CHECKPOINT)
    assert len(str(caught.value)) < 600 and "--output_dir" in str(caught.value)


def test_paths_work_and_reports_may_change_and_are_logged(frames, caplog):
    allowed = {"data_dir": "elsewhere", "output_dir": "moved", "checkpointing_steps": 5, "on_error": "skip"}
    allowed |= {"dataloader_num_workers": 8, "order": {"num_processes": 2, "accumulation": 1}}
    with caplog.at_level(logging.INFO, logger="uov_hf"):
        check_settings(settings_of(frames), settings_of(frames, **allowed), CHECKPOINT)
    for line in ('data_dir = "elsewhere", was "data"', "num_processes = 2, was 1", 'on_error = "skip", was "raise"'):
        assert line in caplog.text
    assert "seed" not in caplog.text and "resume_from_checkpoint" not in caplog.text


def test_epochs_and_steps_may_be_given_either_way_if_the_number_of_steps_is_the_same(frames):
    check_settings(settings_of(frames), settings_of(frames, num_train_epochs=None, max_train_steps=8), CHECKPOINT)
    with pytest.raises(ValueError, match="num_steps = 8, now 16"):
        check_settings(settings_of(frames), settings_of(frames) | {"num_steps": 16}, CHECKPOINT)


def test_a_setting_that_is_younger_than_the_checkpoint_is_not_compared(frames):
    ours = settings_of(frames)
    saved = {name: value for name, value in ours.items() if name != "learning_rate"}
    check_settings(saved, ours, CHECKPOINT)
    with pytest.raises(ValueError, match="seed"):
        check_settings(saved | {"seed": 5}, ours, CHECKPOINT)
