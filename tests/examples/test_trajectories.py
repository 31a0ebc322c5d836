"""Settings that divide, load or store the same work differently give the same curve and weights.

Each group has a first run and the same run with other settings. A change in the division of a step changes only how
sums are rounded; the other ones change nothing. Kills and resumption: test_training_scripts.py, test_two_machines.py.
"""

from dataclasses import dataclass

import pytest
import torch
from runs import losses, without_times
from safetensors.torch import load_file

from uov_hf.data.writing import write_parquet
from uov_hf.datasets.nuscenes import NuScenes


NUM_STEPS = 8
STAGES = ("pretrain", "distill", "finetune")
# In this order of their time: the quick ones run always.
WORKERS, MEMORY = "--dataloader_num_workers 2", "--gradient_checkpointing"


@dataclass(frozen=True)
class Change:
    """What a run has else than the first one of its group, which takes two micro-batches a step on one process."""

    options: str = ""
    accumulation: int = 2
    num_processes: int = 1
    from_parquet: bool = False
    rounds_alike: bool = True  # the same bits

    def __str__(self) -> str:
        parts = [self.options, f"{self.accumulation}x{self.num_processes}", "parquet" if self.from_parquet else ""]
        return " ".join(filter(None, parts)).replace("--", "")


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


ON_TWO = Change(accumulation=1, num_processes=2, rounds_alike=False)
BATCH_OF_TWO = Change("--per_device_train_batch_size 2", accumulation=1, rounds_alike=False)
ALL_AT_ONCE = Change(f"{WORKERS} {MEMORY}", accumulation=1, num_processes=2, from_parquet=True, rounds_alike=False)
# The division of a step: the rows of a micro-batch, its accumulation and its processes.
SHUFFLED = [
    *((stage, ON_TWO) for stage in STAGES),
    ("pretrain", BATCH_OF_TWO),  # not of the others: Lovász-softmax sorts all points of a micro-batch
    *(("finetune", change) for change in (Change(MEMORY), Change(from_parquet=True))),
    *(slow(stage, change) for stage in STAGES[:2] for change in (Change(MEMORY), Change(from_parquet=True))),
    *(slow(stage, Change(WORKERS)) for stage in STAGES),
    *(slow(stage, ALL_AT_ONCE) for stage in STAGES),
]
# With --streaming the order is another one, for which the same holds.
STREAMED = [
    slow("distill", Change(from_parquet=True)),
    slow("distill", Change(WORKERS)),
    slow("distill", ON_TWO),
    slow("pretrain", ALL_AT_ONCE),
]


@pytest.fixture(scope="session")
def parquet_street(tiny_street, tmp_path_factory):
    """The tiny street as Parquet."""
    folder = tmp_path_factory.mktemp("parquet") / "street"
    write_parquet(NuScenes(data_dir=str(tiny_street)), folder)
    return folder


@pytest.fixture
def run_changed(settings_of, run_script, launch_script, parquet_street, tmp_path):
    """`run_changed("distill", change, *options)` -> the folder of such a run."""

    def run(stage: str, change: Change, *options):
        folder = tmp_path / "changed"
        arguments = [*settings_of[stage], *change.options.split(), *options, "--output_dir", folder]
        arguments += ["--gradient_accumulation_steps", change.accumulation]
        if change.from_parquet:
            arguments += ["--dataset", parquet_street]
        if stage == "pretrain" and change is ON_TWO:  # once as users start it
            launch_script(*arguments)
        else:
            run_script(*arguments, num_processes=change.num_processes)
        return folder

    return run


def check_same(found, expected, rounds_alike: bool) -> None:
    """Compare the curves and the weights of two runs."""
    assert losses(found).shape == (NUM_STEPS, 1)
    assert losses(found, "num_points").equal(losses(expected, "num_points"))
    weights, others = (load_file(folder / "model.safetensors") for folder in (found, expected))
    if rounds_alike:
        curves = [
            [{name: value for name, value in record.items() if name != "validation_loss"} for record in records]
            for records in map(without_times, (found, expected))
        ]
        assert curves[0] == curves[1]
        assert all(weight.equal(others[name]) for name, weight in weights.items())
        return
    assert torch.allclose(losses(found), losses(expected), rtol=1e-5)
    for name, weight in weights.items():
        assert torch.allclose(weight, others[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("stage, change", SHUFFLED, ids=str)
def test_the_division_of_a_step_its_loading_and_its_storage_do_not_change_a_training(
    stage, change, finished, run_changed
):
    check_same(run_changed(stage, change), finished(stage), change.rounds_alike)


@pytest.mark.parametrize("stage, change", STREAMED, ids=str)
def test_nor_do_they_change_a_streamed_training(stage, change, settings_of, run_script, run_changed, tmp_path):
    accumulated = ["--gradient_accumulation_steps", 2, "--streaming"]
    run_script(*settings_of[stage], *accumulated, "--output_dir", tmp_path / "streamed")
    check_same(run_changed(stage, change, "--streaming"), tmp_path / "streamed", change.rounds_alike)
