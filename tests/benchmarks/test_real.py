"""The benchmark on real drives runs any cases, here two towns of the street, and repeats no finished training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import real
import yaml


REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def cases(tiny_street, tmp_path) -> Path:
    """The settings of benchmarks/real.yaml for one case, of the street, with its teacher."""
    content = yaml.safe_load((REPOSITORY / "benchmarks" / "real.yaml").read_text())
    street = {"dataset": "nuscenes", "data_dir": "{data_dir}"}
    case = {"name": "the street", "vocabulary": "nuscenes", "train": [street | {"split": "train"}]}
    case |= {"test": street | {"split": "test"}, "test_has_images": True, "steps": 2, "with_pretraining": True}
    content |= {"teacher": {"teacher": "synthetic"}, "cases": [case]}
    path = tmp_path / "cases.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(cases, street, output_dir) -> str:
    words = ["--cases", cases, "--data_dir", street, "--output_dir", output_dir, "--seeds", 0, 1]
    script = REPOSITORY / "benchmarks" / "real.py"
    finished = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_only_names_a_case_of_the_file(cases, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["real.py", "--cases", str(cases), "--only", "the streets"])
    with pytest.raises(SystemExit, match="has no case the streets. It has the street."):
        real.read_cases(real.parse_args())


@pytest.mark.parametrize("change", ["network.preset", "network=tiny", "net.preset=tiny"])
def test_a_wrong_change_names_the_sections(cases, monkeypatch, change):
    monkeypatch.setattr(sys, "argv", ["real.py", "--cases", str(cases), "--change", change])
    with pytest.raises(SystemExit, match="a section of distillation, network, .*, got"):
        real.read_cases(real.parse_args())


def test_a_later_file_replaces_sections_of_an_earlier_one(monkeypatch):
    files = [str(REPOSITORY / "benchmarks" / name) for name in ("real.yaml", "street.yaml")]
    monkeypatch.setattr(sys, "argv", ["real.py", "--cases", *files, "--data_dir", "towns"])
    (case,) = real.read_cases(real.parse_args())
    assert case.name == "towns" and case.shared["teacher"]["teacher"] == "synthetic"
    assert case.settings["train"][0]["data_dir"] == f"{Path('towns').resolve()}/street"
    assert case.shared["network"] == yaml.safe_load(Path(files[0]).read_text())["network"]


def test_train_datasets_have_the_same_options(cases, monkeypatch):
    content = yaml.safe_load(cases.read_text())
    content["cases"][0]["train"].append({"dataset": "pandaset", "data_dir": "{data_dir}"})
    cases.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(sys, "argv", ["real.py", "--cases", str(cases)])
    with pytest.raises(SystemExit, match="the train datasets of 'the street' must have the same options"):
        real.read_cases(real.parse_args())


@pytest.mark.slow
def test_a_case_gives_scores_of_all_methods_by_region(cases, tiny_street, tmp_path):
    output = run(cases, tiny_street, tmp_path / "out")
    (case,) = json.loads((tmp_path / "out" / "results.json").read_text())["cases"]
    runs = {name: len(scores) for name, scores in case["scores"].items()}
    trained = ["distilled from scratch", "TMP, by words", "TMP, then distilled"]
    assert runs.pop("teacher") == 1
    assert set(runs) == {"majority_class", "point_classifier", *trained, *(f"{trained[i]}, AFI" for i in (0, 2))}
    assert set(runs.values()) == {2}
    for name, scores in case["scores"].items():
        regions = {"seen"} if name == "teacher" else {"all", "seen", "unseen", "near"}
        assert regions | {"agreement"} == set(scores[0])
    assert case["scores"]["teacher"][0]["agreement"] == 1
    assert output.count(" ± ") > 20 and "| TMP, then distilled |" in output
    assert len(list((tmp_path / "out" / "the_street").glob("*/*_truth.png"))) == 2

    checkpoint = tmp_path / "out" / "the_street" / "2_steps_stride_1" / "seed_1" / "scratch" / "model.safetensors"
    before = checkpoint.stat().st_mtime_ns
    assert run(cases, tiny_street, tmp_path / "out").count(" ± ") > 20
    assert checkpoint.stat().st_mtime_ns == before
