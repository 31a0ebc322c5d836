"""The browser of the other tests in this folder: it records errors, and is skipped where it is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_errors_of_a_page_are_recorded(page, complaints):
    page.set_content('<img src="https://example.org/x.png"><script>console.error("one"); throw Error("two")</script>')
    page.wait_for_load_state()
    assert "request: https://example.org/x.png" in complaints
    assert "console: one" in complaints and "exception: two" in complaints


@pytest.mark.usefixtures("playwright_api")
@pytest.mark.parametrize(
    "program, reason",
    [("exit 1", "no browser on this machine"), ('test "$1" = --version', "chromium cannot be started")],
    ids=["a stub", "one that does not start"],
)
def test_a_browser_that_does_not_work_is_skipped(program, reason, tmp_path):
    stub = tmp_path / "chromium"
    stub.write_text(f"#!/bin/sh\n{program}\n")
    stub.chmod(0o755)
    done = run_pytest(f"{__file__}::test_errors_of_a_page_are_recorded", PATH=str(tmp_path))
    assert done.returncode == 0 and "1 skipped" in done.stdout and reason in done.stdout, done.stdout


def test_without_playwright_the_tests_of_this_folder_skip_and_none_fails(tmp_path):
    (tmp_path / "playwright.py").write_text("raise ModuleNotFoundError(name='playwright')\n")
    others = "not test_without_playwright"  # this test would start itself again, and again
    done = run_pytest(str(Path(__file__).parent), "-k", others, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and "playwright is not installed: run `make test-browser`" in done.stdout, done.stdout


def run_pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
