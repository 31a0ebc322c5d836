"""Checks of arrays name the argument, what was expected and what came."""

import numpy as np
import pytest
import torch

from uov_hf.array_checks import check_array, check_ids, to_int64, to_sizes, to_tensor


@pytest.mark.parametrize(
    "values, shape, kinds, message",
    [
        (None, (3,), "iuf", r"^`x` must be an array of shape \(3,\), got NoneType\.$"),
        (np.zeros(2), (3,), "iuf", r"^`x` must be numbers of shape \(3,\), got float64 of shape \(2,\)\.$"),
        (np.zeros((2, 2)), ("any", "3 or more"), "f", r"shape \(any, 3 or more\), got float64 of shape \(2, 2\)"),
        (torch.zeros(2), ("any",), "iu", r"must be whole numbers of .* got torch.float32"),
        (torch.zeros(2, dtype=torch.uint16), ("any",), "iu", r"must be whole numbers of .* got torch.uint16"),
        (np.zeros(2, ">c8"), ("any",), "iuf", "must be numbers of .* got >c8"),
    ],
)
def test_an_array_of_another_form_is_named(values, shape, kinds, message):
    with pytest.raises(ValueError, match=message):
        check_array("x", values, shape, kinds)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_ids_out_of_range_are_named(make):
    check_ids("x", make([0, 2, 255]), 3, 3, also=255)
    check_ids("x", make([0, 2, -1]), "any", 3, also=-1)
    for wrong, also, message in (
        ([0, -1], None, "0 and 2, got -1 to -1"),
        ([9, 255], 255, "2, or be 255, got 9 to 9"),
    ):
        with pytest.raises(ValueError, match=f"^`x` must lie between {message}" if also is None else message):
            check_ids("x", make(wrong), 2, 3, also)


def test_every_layout_becomes_a_tensor():
    array = np.arange(6, dtype=">i2").reshape(2, 3)[::-1, ::-1]
    array.setflags(write=False)
    assert to_tensor("x", array).tolist() == array.tolist() == [[5, 4, 3], [2, 1, 0]]
    assert to_tensor("x", [[1, 2]]).tolist() == [[1, 2]]
    for wrong in ([[1], [1, 2]], "x", None, np.array(["a"])):
        with pytest.raises(ValueError, match="^`x` must be"):
            to_tensor("x", wrong)


def test_sizes_of_scans_sum_to_the_points():
    assert to_sizes(None, 5, "points") == [5] and to_sizes([2, 0, 3], 5, "points") == [2, 0, 3]
    assert to_sizes([], 0, "points") == [] and to_sizes(torch.tensor([5]), 5, "points") == [5]
    with pytest.raises(ValueError, match=r"sum to 5, the rows of `points`, got \[9, -4\]"):
        to_sizes([9, -4], 5, "points")


def test_large_ids_stay_large():
    assert to_int64(np.array([2**64 - 1, 3], np.uint64)).tolist() == [2**63 - 1, 3]
