"""Mutation testing: the mutants of a small file, that they are what the tests run, and what the tests make of them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


pytest.importorskip("mutmut", reason="needs the extra `reliability`")

from mutant_effect import NotInEffect, put_in_effect  # noqa: E402
from mutant_tests import statement_at  # noqa: E402
from mutating import find_mutants  # noqa: E402


REPOSITORY = Path(__file__).resolve().parents[2]
WALLS = '''"""Walls."""

from functools import cache

HEIGHT = 2.5


@cache
def area(width: float, doors: int = 0) -> float:
    """Square metres."""
    if width < 0:
        raise ValueError(f"Expected 0 or more, got {width - 0}.")
    return width * HEIGHT - 2 * doors


class Wall:
    bricks = 40

    @property
    def weight(self):
        return 3 * self.bricks
'''
# Two classes that refer to each other, as a function of autograd and its graph do.
NEIGHBOURS = WALLS + 'Wall.neighbour = type("Neighbour", (), {"neighbour": Wall})\n'
TESTS = """
from house import Wall, area

def test_area():
    assert area(2) == 5 and area(0) == 0

def test_weight():
    assert Wall().weight == 120
"""


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The module `walls`, and `house`, which imports its names."""
    (tmp_path / "walls.py").write_text(NEIGHBOURS)
    (tmp_path / "house.py").write_text("from walls import HEIGHT, Wall, area\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("house")
    for name in ("walls", "house"):
        del sys.modules[name]


def test_mutants_change_code_and_neither_words_nor_annotations():
    changes = [(mutant.line, mutant.change) for mutant in find_mutants(WALLS)]
    assert changes == [
        (5, "2.5 → 3.5"),
        (9, "0 → 1"),
        (11, "< 0 → <= 0"),
        (11, "0 → 1"),
        (13, "width * HEIGHT → width / HEIGHT"),
        (13, "width * HEIGHT - 2 * doors → width * HEIGHT + 2 * doors"),
        (13, "2 → 3"),
        (13, "2 * doors → 2 / doors"),
        (17, "40 → 41"),
        (21, "3 → 4"),
        (21, "3 * self.bricks → 3 / self.bricks"),
    ]


def test_a_mutant_is_what_every_importer_runs(house, tmp_path):
    walls, path = sys.modules["walls"], tmp_path / "walls.py"
    for before, after in (("= 2.5", "= 4"), ("doors: int = 0", "doors: int = 1"), ("= 40", "= 5"), ("3 *", "2 *")):
        assert before in NEIGHBOURS
        put_in_effect(walls, path, NEIGHBOURS.replace(before, after))
        if after == "= 4":
            assert house.HEIGHT == walls.HEIGHT == 4 and house.area(1.0) == 4
        if after == "doors: int = 1":
            assert house.area(3.0) == 3 * 2.5 - 2  # a call that `cache` does not have
        if after == "= 5":
            assert house.Wall().weight == 15
    assert house.Wall().weight == 80
    with pytest.raises(NotInEffect, match="in no function"):
        put_in_effect(walls, path, NEIGHBOURS.replace("3 *", "2 *") + "# a comment\n")


def test_the_statement_of_a_line_is_the_innermost(tmp_path):
    path = tmp_path / "walls.py"
    path.write_text("x = [\n    1,\n]\n\ndef f(a=1):\n    if a:\n        return g(\n            a,\n        )\n")
    places = {line: statement_at(path, line) for line in (2, 5, 6, 8)}
    assert places == {2: (1, 3, False), 5: (5, 5, False), 6: (6, 6, True), 8: (7, 9, True)}


def test_a_room_is_tested_once_and_its_survivors_are_listed_with_reasons(tmp_path):
    """Of `doors`, the tests use only the default."""
    (tmp_path / "walls.py").write_text(WALLS)
    (tmp_path / "house.py").write_text("from walls import HEIGHT, Wall, area\n")
    (tmp_path / "test_house.py").write_text(TESTS)
    line = "return width * HEIGHT - 2 * doors"
    (tmp_path / "why.yaml").write_text(yaml.dump([{"file": "walls.py", "line": line, "reason": "No doors yet."}]))
    program = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(REPOSITORY / "benchmarks")!r}, {str(tmp_path)!r}]
import mutants, walls
mutants.REPOSITORY, mutants.REASONS = Path({str(tmp_path)!r}), Path({str(tmp_path / "why.yaml")!r})
mutants.ROOMS.clear()
mutants.ROOMS["house"] = mutants.Room(("walls.py",), ("test_house.py",))
sys.argv = ["mutants.py", "--output_dir", {str(tmp_path / "out")!r}]
mutants.main()
"""
    runs = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert all(run.returncode == 0 for run in runs), runs
    assert "survived: walls.py:13" in runs[0].stderr and "survived" not in runs[1].stderr
    result = json.loads((tmp_path / "out" / "mutants.json").read_text())
    assert result["rows"][0] | {"room": "house"} == {
        "room": "house",
        "mutants": 11,
        "tested": 11,
        "killed": 9,
        "of these by time": 0,
        "survived": 2,
        "killed, %": 81.8,
    }
    survivors = {(row["change"], row["reason"]) for row in result["survivors"]}
    assert survivors == {
        ("width * HEIGHT - 2 * doors → width * HEIGHT + 2 * doors", "No doors yet."),
        ("2 → 3", "No doors yet."),
    }


def test_every_reason_is_about_a_line_that_is_there():
    reasons = yaml.safe_load((REPOSITORY / "benchmarks" / "surviving_mutants.yaml").read_text(encoding="utf-8"))
    for entry in reasons:
        lines = (REPOSITORY / entry["file"]).read_text(encoding="utf-8").splitlines()
        assert entry["line"] in {line.split("  # ")[0].strip() for line in lines}, entry
        assert entry["reason"]


def test_names_and_shapes_of_a_checked_array_are_words():
    changes = [mutant.change for mutant in find_mutants('check_array("walls", walls, ("num_walls", 3), "iu")\n')]
    assert "3 → 4" in changes and not [change for change in changes if "XX" in change]
