"""Two runs compared: bit for bit on the same kind of machine, within bounds of the metrics elsewhere."""

from copy import deepcopy

import pytest

from uov_hf.reproduction.comparison import BOUNDS, compare
from uov_hf.reproduction.record import RunRecord


def record_of(program: str = "finetune") -> RunRecord:
    return {
        "format_version": 1,
        "program": program,
        "command": "",
        "arguments": {"learning_rate": 0.1, "data_dir": "here"},
        "seed": 0,
        "inputs": {"frames": "0a"},
        "environment": {
            "versions": {"python": "3.12.1", "torch": "2.9.0", "numpy": "2.4.0"},
            "git_commit": "1e279370",
            "git_is_dirty": False,
            "processor": "A",
            "num_cores": 2,
            "gpus": [],
        },
        "execution": {
            "device": "cpu",
            "num_processes": 1,
            "num_threads": 1,
            "mixed_precision": "no",
            "engine": "torch",
        },
        "metrics": {"loss": 1.0, "all_points.mean_iou": 0.5},
        "outputs": {"model.safetensors": "0a" * 32},
    }


def changed(record: RunRecord, **changes: dict) -> RunRecord:
    """The record with changed entries in some of its mappings."""
    other = deepcopy(record)
    for name, entries in changes.items():
        other[name] |= entries
    return other


def test_equal_digests_are_reproduced_whatever_else_differs():
    first = record_of()
    second = changed(first, environment={"processor": "B"}, arguments={"data_dir": "there"})
    comparison = compare(first, second)
    assert comparison.is_equal and comparison.is_reproduced
    assert list(comparison.lines())[-1] == "Reproduced: all digests are equal."


OTHER = {"outputs": {"model.safetensors": "0b" * 32}}
ELSEWHERE = [
    {"environment": {"processor": "B"}},
    {"environment": {"versions": {"python": "3.12.1", "torch": "2.10.0", "numpy": "2.4.0"}}},
    {"execution": {"num_threads": 2}},
    {"execution": {"num_processes": 2}},
]


@pytest.mark.parametrize("change", [{}, {"environment": {"git_commit": "2"}}, {"arguments": {"learning_rate": 0.2}}])
def test_on_the_same_kind_of_machine_another_bit_is_not_reproduced_though_the_metrics_are_equal(change):
    comparison = compare(record_of(), changed(record_of(), **OTHER, **change))
    assert comparison.is_bitwise and not comparison.is_reproduced
    lines = list(comparison.lines())
    assert lines[0] == "DIFFERS  model.safetensors  0a0a0a0a0a0a0a0a -> 0b0b0b0b0b0b0b0b"
    assert lines[-1].startswith("Not reproduced: on the same processor")
    assert ("in nothing that run.json records" in lines[-2]) == (not change)


@pytest.mark.parametrize("change", ELSEWHERE)
def test_elsewhere_metrics_within_the_bounds_are_reproduced_and_the_difference_is_named(change):
    comparison = compare(record_of(), changed(record_of(), **OTHER, **change, metrics={"loss": 1.04}))
    assert not comparison.is_bitwise and comparison.is_reproduced
    lines = list(comparison.lines())
    assert any(line.startswith("within   loss") and line.endswith("1 -> 1.04") for line in lines)
    assert any(
        word in lines[-2] for word in ("processor A -> B", "torch 2.9.0 -> 2.10.0", "num_threads 1 -> 2", "num_proce")
    )
    for metrics in ({"loss": 1.06}, {"all_points.mean_iou": 0.47}, {"loss": float("nan")}):
        assert not compare(record_of(), changed(record_of(), **OTHER, **change, metrics=metrics)).is_reproduced


@pytest.mark.parametrize("engine", ["spconv", "spconv_triton"])
def test_other_engines_and_devices_are_compared_by_metrics(engine):
    first = changed(record_of(), execution={"engine": engine, "device": "cuda"})
    assert compare(first, changed(first, **OTHER)).is_reproduced
    missing = changed(first, **OTHER)
    del missing["metrics"]["loss"]
    assert not compare(first, missing).is_reproduced


def test_an_evaluation_has_narrower_bounds_than_a_training():
    first = changed(record_of("evaluate"), execution={"device": "cuda", "engine": "spconv"})
    for difference, is_reproduced in ((0.9 * BOUNDS.absolute, True), (1.5 * BOUNDS.relative, False)):
        second = changed(first, **OTHER, metrics={"all_points.mean_iou": 0.5 + difference})
        assert compare(first, second).is_reproduced == is_reproduced


def test_a_metric_that_is_nan_in_both_runs_is_equal():
    first = changed(record_of(), execution={"device": "cuda"}, metrics={"loss": float("nan")})
    second = changed(first, **OTHER, metrics={"loss": float("nan")})
    comparison = compare(first, second)
    assert comparison.is_reproduced and all(row.is_equal for row in comparison.metrics)
    for pair in ((first, changed(second, metrics={"loss": 1.0})), (changed(first, metrics={"loss": 1.0}), second)):
        assert not compare(*pair).is_reproduced


def test_runs_without_results_and_of_two_programs_are_not_compared_as_equal():
    empty = changed(record_of(), outputs={})
    empty["outputs"].clear()
    assert not compare(empty, empty).is_reproduced
    with pytest.raises(ValueError, match="two programs: finetune and evaluate"):
        compare(record_of(), record_of("evaluate"))
