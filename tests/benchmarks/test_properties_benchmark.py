"""The examples of the properties are shared out by their costs, added up over rounds, and counted as they run."""

import properties


TWO = """
from hypothesis import assume, given, strategies as st

@given(st.integers(0, 99))
def test_half_of_the_examples_are_rejected(number):
    assume(number % 2)

@given(st.integers())
def test_large_numbers_fail(number):
    assert number < 10**4

def test_that_is_no_property():
    assert False
"""


def test_only_examples_that_ran_to_their_end_count(tmp_path):
    path = tmp_path / "test_two_properties.py"
    path.write_text(TWO)
    counts = properties.run_part(
        str(path), {"test_half_of_the_examples_are_rejected": 20, "test_large_numbers_fail": 300}, 1
    )
    assert set(counts) == {"test_half_of_the_examples_are_rejected", "test_large_numbers_fail"}
    half, large = counts.values()
    assert half["examples"] == 20 and not half["failure"]
    assert 0 < large["examples"] < 300 and "assert" in large["failure"]


def test_cheap_properties_get_more_examples_of_the_same_total():
    rows = {
        "cheap": {"examples": 50, "seconds": 0.5, "failure": ""},
        "dear": {"examples": 50, "seconds": 5.0, "failure": ""},
    }
    budgets = properties.plan(rows, 1100)
    assert 1100 <= sum(budgets.values()) <= 1110 and 9 <= budgets["cheap"] / budgets["dear"] <= 11
    assert max(properties.plan(rows, 10**9).values()) <= properties.LONGEST + 1


def test_rounds_add_up_and_failures_stay():
    counts = {}
    properties.add(counts, {"test_a_thing": {"examples": 3, "seconds": 1.0, "failure": "why"}})
    properties.add(counts, {"test_a_thing": {"examples": 4, "seconds": 1.0, "failure": ""}})
    content = properties.summarize({"counts": {"test_file.py": counts}})
    assert content["summary"]["examples"] == 7 and content["summary"]["failing properties"] == 1
    assert content["rows"] == [{"file": "test_file.py", "properties": 1, "examples": 7, "failures": 1}]
    assert content["properties"][0]["property"] == "a thing" and content["properties"][0]["failure"] == "why"
