"""ConfidenceBins: the expected calibration error by its definition, and sums that do not depend on the order."""

import numpy as np
import pytest

from uov_hf.evaluation.metrics import ConfidenceBins


def binned(confidences, is_right, num_bins=15):
    bins = ConfidenceBins(num_bins)
    bins.update(np.asarray(confidences, np.float32), np.asarray(is_right))
    return bins


def ece_by_loops(confidences, is_right, num_bins=15):
    """Guo et al. 2017, equation 3: the bin b holds confidences in ((b - 1) / B, b / B]."""
    error = 0.0
    for b in range(1, num_bins + 1):
        members = [i for i, c in enumerate(confidences) if (b - 1) / num_bins < c <= b / num_bins]
        if members:
            gap = np.mean([is_right[i] for i in members]) - np.mean([float(confidences[i]) for i in members])
            error += len(members) / len(confidences) * abs(gap)
    return error


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_the_error_is_that_of_its_definition(num_bins):
    generator = np.random.default_rng(0)
    confidences = generator.beta(4, 1, 800).astype(np.float32)
    is_right = generator.random(800) < confidences**2  # surer than right
    result = binned(confidences, is_right, num_bins).compute()
    expected = ece_by_loops(confidences, is_right, num_bins)
    assert result["expected_calibration_error"] == pytest.approx(expected, abs=1e-7)
    assert sum(row["num_points"] for row in result["bins"]) == 800


def test_confidences_that_come_true_have_no_error():
    result = binned([0.75] * 4 + [1.0, 0.0], [True, True, True, False, True, False]).compute()
    assert result["expected_calibration_error"] == 0
    assert [tuple(row.values()) for row in result["bins"]] == [(0, 0, 1), (0.75, 0.75, 4), (1, 1, 1)]


def test_sums_are_the_same_in_any_order_and_however_they_are_shared():
    generator = np.random.default_rng(1)
    confidences, is_right = generator.random(999).astype(np.float32), generator.random(999) < 0.5
    whole = binned(confidences, is_right)
    order = generator.permutation(999)
    shares = [binned(confidences[rows], is_right[rows]) for rows in np.array_split(order, 7)]
    assert np.array_equal(sum(share.counts for share in shares), whole.counts)


@pytest.mark.filterwarnings("error")
def test_no_points_give_nan_and_invalid_probabilities_are_refused():
    assert np.isnan(ConfidenceBins().compute()["expected_calibration_error"])
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match="must be probabilities from 0 to 1, got"):
            binned([0.5, wrong], [True, True])


def test_float32_confidences_count_as_the_numbers_that_they_are():
    """float32(k / 15) is above or below k / 15, and times 15, in float32, it would often be k again."""
    confidences, is_right = (np.arange(1, 15) / 15).astype(np.float32), np.ones(14, bool)
    wide = ConfidenceBins()
    wide.update(confidences.astype(np.float64), is_right)
    assert np.array_equal(binned(confidences, is_right).counts, wide.counts)
    assert wide.counts.shape == (3, 15) and wide.counts.dtype == np.int64
    assert binned([0.5, 0.25], [True, True]).counts[2].sum() == 0.75 * 2**24


def test_a_bin_has_its_mean_confidence_and_its_accuracy():
    (only,) = binned([0.25, 0.75], [True, False], num_bins=1).compute()["bins"]
    assert only == {"confidence": 0.5, "accuracy": 0.5, "num_points": 2}
    assert binned([0.05], [True]).counts[0].tolist() == [1] + [0] * 14


def test_scans_add_up_in_the_same_bins():
    bins = binned([0.2, 0.9], [True, False])
    bins.update(np.float32([0.2, 0.5]), np.array([True, True]))
    assert np.array_equal(bins.counts, binned([0.2, 0.9, 0.2, 0.5], [True, False, True, True]).counts)
