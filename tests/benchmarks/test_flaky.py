"""Flaky tests are found by their order, and repetitions that are done are not repeated."""

import json
import sys

import flaky
import pytest


pytest.importorskip("random_order", reason="needs the extra `reliability`")

TESTS = """
import pytest

done = []

@pytest.mark.parametrize("number", range(9))
def test_number(number):
    done.append(number)
    assert number < 8 or len(done) == 9
"""


def test_a_test_that_must_be_the_last_is_listed_with_its_seeds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "test_order.py"
    path.write_text(TESTS)
    for repetitions in (1, 2):
        command = ["flaky.py", str(path), "--output_dir", str(tmp_path / "out"), "--repetitions", str(repetitions)]
        monkeypatch.setattr(sys, "argv", command)
        flaky.main()
    assert capsys.readouterr().out.count("9 tests") == 2  # one, and one more
    result = json.loads((tmp_path / "out" / "flaky.json").read_text())
    assert result["rows"] == [
        {"tests": str(path), "number of tests": 9, "repetitions": 2, "tests that did not always pass": 1}
    ]
    assert result["flaky"] == [{"test": "test_order::test_number[8]", "seeds": [0, 1]}]
    with pytest.raises(RuntimeError, match="ended with"):
        flaky.run_tests(str(tmp_path / "absent.py"), seed=0)
