"""The order of training: every frame once an epoch, and the same micro-batches however many processes there are."""

from collections import Counter

import numpy as np
import pytest

from uov_hf.training.order import BLOCK_SIZE, MIXED_BLOCKS, MicroBatchSampler, TrainingOrder


def all_micro_batches(order, step):
    """Those of every rank, in the order j = 0, 1, … of the step."""
    per_rank = [order.micro_batches(step, rank) for rank in range(order.num_processes)]
    return [batch for turn in zip(*per_rank, strict=True) for batch in turn]


@pytest.mark.parametrize("local", [False, True])
def test_two_processes_train_on_the_micro_batches_of_one_that_accumulates(local):
    alone = TrainingOrder(num_frames=10, batch_size=1, accumulation=4, local=local)
    together = TrainingOrder(num_frames=10, batch_size=1, num_processes=2, accumulation=2, local=local)
    for step in range(5):
        assert all_micro_batches(together, step) == all_micro_batches(alone, step)
    assert together.micro_batches(0, rank=1) == alone.micro_batches(0, rank=0)[1::2]


@pytest.mark.parametrize("local", [False, True])
def test_frames_are_shuffled_by_seed_and_epoch_and_the_cut_of_a_step_does_not_matter(local):
    order = TrainingOrder(num_frames=500, batch_size=50, local=local)
    epochs = [[index for step in range(10 * e, 10 * e + 10) for _, index in order.step_keys(step)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(500)) and epochs[0] != epochs[1]
    assert TrainingOrder(num_frames=500, batch_size=50, seed=1, local=local).step_keys(0) != order.step_keys(0)
    for cut in ({"num_processes": 2}, {"accumulation": 2}):
        assert TrainingOrder(num_frames=500, batch_size=25, local=local, **cut).step_keys(3) == order.step_keys(3)


@pytest.mark.parametrize("num_processes", [1, 8])
def test_in_the_local_order_a_rank_reads_its_share_of_the_blocks_and_comes_back_to_none(num_processes):
    num_blocks, batch_size = 100, 4
    order = TrainingOrder(num_blocks * BLOCK_SIZE, batch_size, num_processes, local=True)
    num_mixed = MIXED_BLOCKS // min(MIXED_BLOCKS, order.frames_per_step)  # blocks that a place in the step mixes
    for rank in range(num_processes):
        loader = MicroBatchSampler(order, rank, start=0, end=order.num_steps(1))
        blocks = np.array([[index // BLOCK_SIZE for _, index in keys] for keys in loader])  # (num_steps, batch_size)
        assert len(np.unique(blocks)) <= num_blocks / num_processes + 2 * num_mixed  # the rest on either border
        for place in range(batch_size):
            for block in np.unique(blocks[:, place]):
                steps = np.flatnonzero(blocks[:, place] == block)
                assert steps[-1] - steps[0] < num_mixed * BLOCK_SIZE


def test_a_step_of_the_local_order_mixes_as_many_places_as_it_has_frames():
    order = TrainingOrder(num_frames=100 * BLOCK_SIZE, batch_size=4, num_processes=4, local=True)
    places = [{index // BLOCK_SIZE for _, index in order.step_keys(step)} for step in range(order.num_steps(1))]
    assert min(len(blocks) for blocks in places) >= 15  # two of the sixteen may meet on a border


@pytest.mark.parametrize("local", [False, True])
def test_64_ranks_read_every_frame_of_nuscenes_once_an_epoch_in_equal_steps(local):
    order = TrainingOrder(num_frames=28_130, batch_size=4, num_processes=64, local=local)
    ranks = [MicroBatchSampler(order, rank, start=0, end=order.num_steps(2)) for rank in range(64)]
    reads = Counter(key for rank in ranks for keys in rank for key in keys)
    surplus = order.surplus_keys(2)
    assert {len(rank) for rank in ranks} == {220} and len(surplus) == 220 * 256 - 2 * 28_130
    assert reads == Counter((epoch, index) for epoch in range(2) for index in range(28_130)) + Counter(surplus)


def test_fewer_frames_than_a_step_holds_are_trained_on_again():
    order = TrainingOrder(num_frames=1, batch_size=4)
    assert order.step_keys(1) == [(4, 0), (5, 0), (6, 0), (7, 0)]
    assert order.num_steps(40) == 10


def test_an_order_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`num_frames` must be at least 1"):
        TrainingOrder(num_frames=0)


def test_steps_have_a_whole_epoch_if_every_frame_of_one_is_among_them():
    order = TrainingOrder(num_frames=10, batch_size=4)
    for start in range(12):
        for end in range(start, 12):
            keys = {key for step in range(start, end) for key in order.step_keys(step)}
            epochs = [{key for key in keys if key[0] == epoch} for epoch in range(6)]
            assert order.has_whole_epoch(start, end) == any(len(epoch) == 10 for epoch in epochs), (start, end)
