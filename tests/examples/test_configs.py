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


def test_the_benchmark_on_real_drives_trains_as_the_recipe_for_one_camera():
    recipe = yaml.safe_load((CONFIGS[0].parents[1] / "one_camera" / "distill.yaml").read_text())
    benchmark = yaml.safe_load((CONFIGS[0].parents[3] / "benchmarks" / "real.yaml").read_text())
    trained = benchmark["network"] | benchmark["training"] | benchmark["distillation"]
    of_a_user = {"dataset", "data_dir", "label_set", "output_dir", "max_train_steps", "checkpointing_steps"}
    of_a_benchmark = {"checkpointing_steps", "dataloader_num_workers"}
    assert {name: value for name, value in recipe.items() if name not in of_a_user} == {
        name: value for name, value in trained.items() if name not in of_a_benchmark
    }
