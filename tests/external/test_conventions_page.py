"""The page of conventions lists exactly the tests that the mixin cases leave out."""

from pathlib import Path

from inapplicable_tests import markdown


def test_the_page_has_the_table_of_the_tests_that_do_not_apply():
    page = (Path(__file__).parents[2] / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("|")] == markdown().splitlines()
