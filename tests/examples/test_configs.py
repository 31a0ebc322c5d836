"""The recipe as files: each is read by the script of its name."""

from pathlib import Path

import pytest
import yaml


CONFIGS = sorted((Path(__file__).parents[2] / "examples" / "configs").glob("*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_script_of_a_stage_takes_its_file(path, script):
    args, settings = vars(script(f"{path.stem}.py").parse(path)), yaml.safe_load(path.read_text())
    assert settings and all(args[name] in (value, [value]) for name, value in settings.items())


def test_every_stage_of_the_recipe_has_a_file():
    stages = {"generate_label_set", "label_points", "pretrain", "distill", "finetune", "evaluate"}
    assert {path.stem for path in CONFIGS if path.parent.name == "nuscenes"} == stages
