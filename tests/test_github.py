"""The files that GitHub and pre-commit read have the form that these expect."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


REPOSITORY = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("pattern", "schema"),
    [
        (".github/workflows/*.yml", "vendor.github-workflows"),
        (".github/workflows/*.yml", "custom.github-workflows-require-timeout"),
        (".github/ISSUE_TEMPLATE/[!c]*.yml", "vendor.github-issue-forms"),
        (".github/ISSUE_TEMPLATE/config.yml", "vendor.github-issue-config"),
        (".github/dependabot.yml", "vendor.dependabot"),
        ("CITATION.cff", "vendor.citation-file-format"),
    ],
)
def test_a_file_follows_its_schema(pattern, schema):
    files = sorted(REPOSITORY.glob(pattern))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert files and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_its_actions_and_runs_targets_of_the_makefile(path):
    text = path.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.*)", text)
    assert actions and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action) for action in actions)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"run: make (\w+)", text))
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}


def test_pre_commit_runs_the_ruff_of_the_tests():
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    revision = next(entry["rev"] for entry in hooks if entry["repo"].endswith("ruff-pre-commit"))
    assert f"ruff=={revision.removeprefix('v')}\n" in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
