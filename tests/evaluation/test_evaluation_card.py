"""Results in a model card: each dataset and setting has one part, and everything else stays as it was."""

import pytest
from huggingface_hub import ModelCard

from uov_hf.evaluation.reports import update_card


NUSCENES = {"name": "nuscenes", "type": "nuscenes", "split": "val"}
CARD = (
    "---\nlicense: other\ntags:\n- uov\n---\n\n# Mine\n\nText.\n\n## Evaluation\n\nNone yet.\n\n## Limits\n\n- Many.\n"
)


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    return tmp_path


def results(mean_iou):
    return {"all_points": {"mean_iou": mean_iou, "overall_accuracy": 0.5, "fwiou": None}}


def test_results_stand_in_the_yaml_and_in_their_section(checkpoint):
    update_card(checkpoint, results(0.25), "| a table |", NUSCENES, {})
    card = ModelCard.load(checkpoint / "README.md")
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [
        ("mean_iou", 0.25),
        ("accuracy", 0.5),
    ]
    assert card.data.eval_results[0].dataset_split == "val" and card.data.license == "other"
    expected = "## Evaluation\n\n### nuscenes, split val\n\n| a table |\n\n## Limits\n\n- Many.\n"
    assert card.text.strip().endswith(expected.strip()) and "None yet" not in card.text and "Text." in card.text


def test_an_evaluation_replaces_its_own_results_and_stands_beside_others(checkpoint):
    update_card(checkpoint, results(0.25), "old", NUSCENES, {})
    update_card(checkpoint, results(0.35), "refined", NUSCENES, {"refine": "afi", "predict_void": True})
    update_card(checkpoint, results(0.30), "new", NUSCENES, {})
    card = ModelCard.load(checkpoint / "README.md")
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["mean IoU"] == 0.30 and found["mean IoU (--refine afi --predict_void)"] == 0.35 and len(found) == 4
    assert "### nuscenes, split val\n\nnew\n" in card.text and "old" not in card.text
    assert "### nuscenes, split val, `--refine afi --predict_void`\n\nrefined\n" in card.text
    assert card.text.count("## Limits") == card.text.count("## Evaluation\n") == 1


def test_a_card_without_the_section_gets_one(checkpoint):
    (checkpoint / "README.md").write_text("# Mine\n")
    update_card(checkpoint, results(0.25), "| a table |", NUSCENES, {})
    card = ModelCard.load(checkpoint / "README.md")
    assert card.text.strip() == "# Mine\n\n## Evaluation\n\n### nuscenes, split val\n\n| a table |"
    assert card.data.model_name == checkpoint.name
