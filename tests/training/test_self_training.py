"""Self-training: an average of the weights labels what has no label, where it is sure, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from uov_hf.training.order import TrainingOrder
from uov_hf.training.self_training import SelfTraining, average_weights
from uov_hf.training.tracking import LOG_FILE, TrainLog


class Segmenter(nn.Module):
    """Two classes by one number: the logit of class 1 against class 0 is that feature times a weight."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.register_buffer("num_batches", torch.tensor(0))

    def get_voxel_logits(self, coords, features):
        return torch.cat([torch.zeros_like(features), self.weight * features], dim=1)


def start(model: Segmenter, step: int = 0, decay: float = 0.5, **settings) -> SelfTraining:
    """Ten steps of one frame, two of them an epoch."""
    accelerator = Accelerator(cpu=True)
    run = SimpleNamespace(accelerator=accelerator, model=model, step=step, num_steps=10, order=TrainingOrder(2))
    return SelfTraining(run, average_weights(model, decay), **{"num_epochs": 1, "confidence": 0.9, **settings})


def batch() -> dict[str, torch.Tensor]:
    """Voxels that are surely 1, perhaps 1, surely 0; a point in each without a label, one with, one in no voxel."""
    return {
        "voxel_coords": torch.zeros(3, 4, dtype=torch.int32),
        "voxel_features": torch.tensor([[5.0], [0.1], [-5.0]]),
        "point_to_voxel": torch.tensor([0, 1, 2, 2, -1]),
        "labels": torch.tensor([255, 255, 255, 1, 255]),
    }


def test_only_points_without_a_label_get_one_and_only_where_the_average_is_sure():
    completed = start(Segmenter(1.0), step=8).complete(batch())
    assert completed["labels"].tolist() == [1, 255, 0, 1, 255]
    assert start(Segmenter(1.0), step=8, confidence=0.5).complete(batch())["labels"].tolist() == [1, 1, 0, 1, 255]


def test_it_begins_so_many_epochs_before_the_end():
    for num_epochs, first in ((1, 8), (2, 6), (5, 0)):
        for step in range(10):
            labels = start(Segmenter(1.0), step, num_epochs=num_epochs).complete(batch())["labels"]
            assert (labels[0] == 1) == (step >= first), (num_epochs, step)


def test_the_weight_of_such_a_label_is_its_probability():
    weighted = batch() | {"confidence": torch.full((5,), 0.25)}
    confidence = start(Segmenter(1.0), step=8).complete(weighted)["confidence"]
    sure = torch.tensor(5.0).sigmoid()
    torch.testing.assert_close(confidence, torch.stack([sure, *torch.full((1,), 0.25), sure, *torch.full((2,), 0.25)]))


def test_without_weights_by_confidence_only_the_class_weights_such_a_label():
    weighted = batch() | {"confidence": torch.full((5,), 0.25)}
    class_weights = np.array([2.0, 0.5], dtype=np.float32)
    training = start(Segmenter(1.0), step=8, weighs_by_probability=False, class_weights=class_weights)
    assert training.complete(weighted)["confidence"].tolist() == [0.5, 0.25, 2.0, 0.25, 0.25]


def test_labels_are_the_averages_and_not_the_last_weights():
    model = Segmenter(1.0)
    self_training = start(model, step=8)
    for weight in (1.0, 3.0, -9.0):  # averages 1, 2, -3.5
        model.weight.data.fill_(weight)
        model.num_batches += 1
        self_training.update()
    assert self_training.average.module.weight.item() == -3.5
    assert self_training.average.module.num_batches == 3  # whole numbers are not averaged
    assert self_training.complete(batch())["labels"].tolist() == [0, 255, 1, 1, 255]


def test_a_state_that_is_put_back_averages_on():
    model, restored = Segmenter(1.0), Segmenter(1.0)
    self_training, other = start(model), start(restored)
    for weight in (2.0, 4.0):
        model.weight.data.fill_(weight)
        self_training.update()
    other.average.load_state_dict(self_training.average.state_dict())
    for each in (self_training, other):
        each.run.model.weight.data.fill_(8.0)
        each.update()
    assert other.average.module.weight.item() == self_training.average.module.weight.item() == 5.5


@pytest.mark.parametrize("num_added, warns", [((0, 0), True), ((0, 3), False)])
def test_self_training_that_added_nothing_warns(num_added, warns, tmp_path, caplog):
    self_training, log = start(Segmenter(1.0)), TrainLog(tmp_path / LOG_FILE)
    self_training.run.output_dir = tmp_path
    for step, added in enumerate([0] * 8 + [*num_added], start=1):
        log.write({"step": step, "num_added": added})
    self_training.check()
    assert ("Self-training added no label in its 2 steps" in caplog.text) == warns


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"decay": 1.0}, "--ema_decay"),
        ({"confidence": 90}, "--self_training_confidence"),
        ({"num_epochs": 6}, "`--self_training_epochs` 6 are .* steps, and the run has 10"),
        ({"num_epochs": -1}, "`--self_training_epochs` -1 are .* steps, and the run has 10"),
    ],
)
def test_a_number_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        start(Segmenter(1.0), **setting)
