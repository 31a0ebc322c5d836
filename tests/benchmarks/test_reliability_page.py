"""The page on reliability: its faults have tests, and its numbers are those of the checks."""

import ast
import json

import pytest
import reliability
from common import REPOSITORY


FAULTS = reliability.yaml.safe_load(reliability.FAULTS.read_text())
RESULT = {
    "command": "python benchmarks/kills.py",
    "machine": "2 cores",
    "date": "2026-11-29",
    "commit": "abc",
    "summary": {"kills": 17},
    "rows": [{"command": "pretrain", "kills": 17}],
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["test"].split("::")[-1])
def test_every_fault_has_a_place_and_a_test(fault):
    path, name = fault["test"].split("::")
    tests = [node.name for node in ast.walk(ast.parse((REPOSITORY / path).read_text())) if hasattr(node, "name")]
    assert name in tests and (REPOSITORY / fault["where"]).exists()
    assert set(fault) == {"found_by", "where", "fault", "now", "test"}


def test_the_page_has_the_results_and_names_the_checks_that_have_not_run(tmp_path):
    (tmp_path / "kills.json").write_text(json.dumps(RESULT))
    page = reliability.render(reliability.read_results(tmp_path), [FAULTS[0] | {"commit": "def"}])
    assert "- kills: 17" in page and "| pretrain | 17 |" in page and "at commit abc" in page
    assert "`benchmarks/fuzz.py` has not run" in page and "`benchmarks/kills.py` has not run" not in page
    assert FAULTS[0]["fault"] in page


def test_results_of_a_run_replace_earlier_ones_without_paths_of_the_machine(tmp_path):
    ran, kept = tmp_path / "ran", tmp_path / "kept"
    for folder in (ran, kept):
        folder.mkdir()
    (kept / "kills.json").write_text(json.dumps(RESULT))
    (kept / "fuzz.json").write_text(json.dumps(RESULT | {"commit": "earlier"}))
    command = f"{RESULT['command']} --output_dir {ran} --fresh 6"
    (ran / "kills.json").write_text(json.dumps(RESULT | {"command": command, "commit": "new", "survivors": [1]}))
    reliability.keep_results(ran, kept)
    results = reliability.read_results(kept)
    assert results["kills"]["commit"] == "new" and results["kills"]["command"] == f"{RESULT['command']} --fresh 6"
    assert results["fuzz"]["commit"] == "earlier" and "survivors" not in results["kills"]


def test_the_page_in_the_repository_is_that_of_the_results_in_it():
    def without_commits(page: str) -> list[str]:  # a clone without its history has none
        checks, heading, faults = page.partition("## Faults that checks found")
        return [checks, heading, *(line.rpartition(" | ")[0] for line in faults.splitlines())]

    page = reliability.render(reliability.read_results(), [fault | {"commit": ""} for fault in FAULTS])
    assert without_commits(page) == without_commits(reliability.PAGE.read_text(encoding="utf-8"))


def test_a_result_without_a_number_that_the_page_needs_is_an_error(tmp_path):
    (tmp_path / "kills.json").write_text(json.dumps({name: RESULT[name] for name in RESULT if name != "commit"}))
    with pytest.raises(reliability.jinja2.UndefinedError, match="commit"):
        reliability.render(reliability.read_results(tmp_path), [])
