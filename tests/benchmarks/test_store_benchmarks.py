"""The benchmarks of the store: a stopped run continues to the same files, processes share evenly, memory stays."""

import balance
import label_store_size
import numpy as np
import pytest
import store_stress
from small_recording import SmallRecording

from uov_hf.data import Frames


SEMANTIC_KITTI = balance.LENGTHS["SemanticKITTI train, 10 sequences"]


@pytest.mark.slow
def test_programs_that_are_killed_and_interrupted_continue_to_the_same_files(tmp_path):
    lengths = [20, 60]
    references = store_stress.make_references(tmp_path, lengths)
    outcomes = {
        stress: store_stress.torment(stress, tmp_path / str(number), references, lengths, seed=number)
        for number, stress in enumerate(
            [
                store_stress.Stress("generate", (2,), 2, "group"),
                store_stress.Stress("generate", (1, 2, 1), 2, "one"),
                store_stress.Stress("label", (2,), 2, "one"),
                store_stress.Stress("convert", (2,), 2, "group"),
            ]
        )
    }
    for stress, outcome in outcomes.items():
        assert outcome.same_bytes and outcome.num_stopped == 2, (stress, outcome)
        lost = 100 if stress.kind == "convert" else 4  # a row, or the file at hand, of each process and stop
        assert outcome.num_rows <= sum(lengths) + lost, (stress, outcome)
    for first, second in ((1, 1), (2, 1)):
        folder = tmp_path / f"{first}-{second}"
        assert store_stress.start_twice("generate", first, second, folder, references, lengths) == (True, True)


@pytest.mark.parametrize("lengths", [SEMANTIC_KITTI, [1000]], ids=["SemanticKITTI", "one sequence"])
def test_no_process_writes_a_tenth_more_than_the_mean(tmp_path, lengths):
    frames = Frames(SmallRecording(lengths))
    assert max(balance.balance_of_labels(tmp_path, frames)) < 1.1
    balance.write_half(tmp_path, frames, seed=0)
    assert max(balance.balance_of_labels(tmp_path, frames)) < 1.1


def test_the_chunks_of_parquet_are_small_enough_to_share():
    balance_of = balance.balance_of_parquet(Frames(SmallRecording(SEMANTIC_KITTI)))
    assert max(map(balance_of, balance.NUM_PROCESSES)) < 1.1


def test_the_steps_of_the_size_benchmark_write_and_read_every_frame(tmp_path):
    found = {step: label_store_size.run_step(step, tmp_path, 3, 120) for step in label_store_size.STEPS}
    assert len(list((tmp_path / "images").glob("*.parquet"))) == 3
    assert found["first sample"]["first"] > 0 and all(len(run["values"]) == 1 for run in [found["segments"]])
    assert label_store_size.describe("segments", found["segments"])[0] == "segments"


def test_a_slope_is_found_within_its_error():
    frames, rng = np.arange(100, 30_001, 100), np.random.default_rng(0)
    for growth in (0, 5):  # MB per 10,000 frames
        memory = 5e8 + growth * 100 * frames + rng.normal(0, 2e6, len(frames))
        slope, error = label_store_size.fit_slope(list(zip(frames, memory, strict=True)))
        assert abs(slope - growth) < 3 * error < 1.5
