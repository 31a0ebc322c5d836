"""RiskCoverage: the curve by its definition, in constant memory, and sums that do not depend on the order."""

import numpy as np
import pytest

from uov_hf.evaluation.metrics import ConfidenceBins, RiskCoverage


COVERAGES = {"100%": 1.0, "90%": 0.9, "80%": 0.8, "70%": 0.7, "60%": 0.6, "50%": 0.5}


def counted(confidences, is_right):
    curve = RiskCoverage()
    curve.update(np.asarray(confidences, np.float32), np.asarray(is_right))
    return curve


def curve_by_loops(confidences, is_right):
    """Geifman and El-Yaniv 2017: the risk of the k most confident, for all k; no two confidences are equal."""
    order = sorted(range(len(confidences)), key=lambda i: -confidences[i])
    wrong, risks = 0, []
    for k, i in enumerate(order, 1):
        wrong += not is_right[i]
        risks.append(wrong / k)
    at = {name: risks[round(share * len(order)) - 1] for name, share in COVERAGES.items()}
    return sum(risks) / len(risks), at


def distinct_confidences(generator, num_points):
    """Confidences in bins of their own, mostly near 1, as those of a network are."""
    digits = generator.permutation(np.arange(23 * 128))[:num_points]
    return 1 - 2.0 ** -(digits // 128 + 1.0) * (1 + (digits % 128) / 128)


def test_the_curve_is_that_of_its_definition():
    generator = np.random.default_rng(0)
    confidences = distinct_confidences(generator, 700)
    is_right = generator.random(700) < confidences
    result = counted(confidences, is_right).compute()
    area, risks = curve_by_loops(confidences.tolist(), is_right.tolist())
    assert result["area_under_risk_coverage"] == pytest.approx(area, rel=1e-9)
    assert result["risk_at_coverage"] == pytest.approx(risks, rel=1e-9)


def test_equal_confidences_count_as_in_random_order():
    generator = np.random.default_rng(1)
    confidences, is_right = np.repeat([0.9, 0.6], 30), generator.random(60) < np.repeat([0.8, 0.3], 30)
    areas = []
    for _ in range(4000):
        order = generator.permutation(60)
        order = order[np.argsort(-confidences[order], kind="stable")]
        areas.append((np.cumsum(~is_right[order]) / np.arange(1, 61)).mean())
    found = counted(confidences, is_right).compute()["area_under_risk_coverage"]
    assert found == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / np.sqrt(len(areas)))


def test_ideal_and_useless_confidences():
    right = np.repeat([True, False], 50)
    ideal = counted(np.where(right, 0.9, 0.2), right).compute()
    assert ideal["risk_at_coverage"]["50%"] == 0 and ideal["risk_at_coverage"]["100%"] == 0.5
    useless = counted(np.full(100, 0.7), right).compute()
    assert useless["area_under_risk_coverage"] == pytest.approx(0.5)
    assert set(useless["risk_at_coverage"].values()) == {0.5}
    reversed_ = counted(np.where(right, 0.2, 0.9), right).compute()
    assert reversed_["area_under_risk_coverage"] > 0.5 > ideal["area_under_risk_coverage"]


def test_confidences_near_one_remain_apart_and_zero_comes_last():
    close = [1.0, 1 - 2.0**-24, 1 - 2.0**-20, 1 - 2.0**-19, 0.999, 0.99, 0.5, 0.1, 0.0]
    assert np.count_nonzero(counted(close, [True] * len(close)).counts[0]) == len(close)
    assert counted([0.0], [False]).counts[:, -1].tolist() == [1, 1]
    assert counted([1.0, 0.0, 0.0], [True, False, False]).compute()["risk_at_coverage"]["100%"] == pytest.approx(2 / 3)


def test_sums_are_the_same_in_any_order_and_however_they_are_shared():
    generator = np.random.default_rng(2)
    confidences, is_right = generator.random(999).astype(np.float32), generator.random(999) < 0.5
    whole = counted(confidences, is_right)
    shares = [counted(confidences[rows], is_right[rows]) for rows in np.array_split(generator.permutation(999), 7)]
    assert np.array_equal(sum(share.counts for share in shares), whole.counts)
    assert whole.counts.shape == (2, 24 * 128 + 2)  # exponents from −24 to −1, 7 digits, and both ends
    assert RiskCoverage().counts.shape == whole.counts.shape and RiskCoverage().counts.dtype == np.int64


def test_scans_add_up_in_one_curve():
    generator = np.random.default_rng(3)
    scans = [(generator.random(50).astype(np.float32), generator.random(50) < 0.5) for _ in range(2)]
    curve = counted(*scans[0])
    curve.update(*scans[1])
    assert np.array_equal(curve.counts, counted(*map(np.concatenate, zip(*scans, strict=True))).counts)


def test_no_points_give_nan():
    result = RiskCoverage().compute()
    assert np.isnan([result["area_under_risk_coverage"], *result["risk_at_coverage"].values()]).all()


@pytest.mark.parametrize("confidences", [[0.5, np.nan], [0.5, 2.0], [0.5], [1, 0], [[0.5, 0.5]]])
def test_what_is_no_confidence_is_refused(confidences):
    for counts in (RiskCoverage(), ConfidenceBins()):
        with pytest.raises(ValueError, match="`(confidences|is_right)` must be"):
            counts.update(np.array(confidences), np.array([True, False]))


def test_lists_are_counted():
    for counts in (RiskCoverage(), ConfidenceBins()):
        counts.update([0.5, 0.6], [True, False])
        assert counts.counts[0].sum() == 2
