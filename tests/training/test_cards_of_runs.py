"""The card of a run on several datasets has every dataset, label set and licence; the strictest terms hold."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import small_car

from uov_hf.hub.cards import read_card
from uov_hf.labels import LabelSet
from uov_hf.training.arguments import LabelSetArguments, TrainingArguments
from uov_hf.training.objectives import DISTILLATION
from uov_hf.training.publishing import join_licences, write_card
from uov_hf.training.tracking import LOG_FILE


@dataclass(kw_only=True)
class Arguments(LabelSetArguments, TrainingArguments):
    stage, frames_per_step = "distill", 4


@pytest.fixture
def card_of(street_labels, tmp_path):
    """The card of a run of the synthetic teacher's labels on these datasets."""
    record = {"step": 1, "loss": 2.0, **dict.fromkeys(DISTILLATION.terms, 1.0)}
    (tmp_path / LOG_FILE).write_text(json.dumps(record) + "\n")
    order = SimpleNamespace(num_frames=7, frames_per_step=4)
    run = SimpleNamespace(output_dir=tmp_path, order=order, num_steps=1, trained_points=9, num_broken=0)

    def card(dataset, data_dir, **options) -> str:
        label_sets = [f"{tmp_path}/labels/{number}" for number in range(len(dataset))]
        args = Arguments(dataset=dataset, data_dir=list(map(str, data_dir)), label_set=label_sets, **options)
        label_set, model = LabelSet(street_labels), SimpleNamespace(classifier=object(), config=SimpleNamespace())
        model.config.classes = label_set.class_names
        write_card(run, args, DISTILLATION, [label_set] * len(dataset), model, label_set.taxonomy)
        return read_card(tmp_path)

    return card


def test_one_real_dataset_among_streets_makes_the_weights_follow_its_terms(card_of, tiny_street, tmp_path):
    car = small_car.write_car(tmp_path / "car").parent
    card = card_of(["nuscenes", "point_cloud_folder"], [tiny_street, car], split=["train", "all"])
    assert "The synthetic street of uov-hf, split `train`, label set `0`; point_cloud_folder, split `all`" in card
    assert ", split `all`, label set `1`: 7 frames." in card
    assert "license: other" in card and "allow non-commercial use only" in card
    assert "point_cloud_folder: Your own recordings" in card and "no terms apply. point_cloud_folder" in card
    assert "All of these terms hold together" in card and "`synthetic`" in card and str(tmp_path) not in card


def test_streets_alone_are_free_and_their_licence_stands_once(card_of, tiny_street, other_street):
    card = card_of(["nuscenes", "nuscenes"], [tiny_street, other_street])
    assert "license: apache-2.0" in card and card.count("It shows no real place") == 1
    assert "All of these terms" not in card


def test_datasets_of_the_hub_are_named_with_their_cards():
    args = Arguments(dataset=["me/cars", "me/vans"], label_set=["labels/a", "labels/b"])
    assert join_licences(args.datasets) == (
        "me/cars: see the card of me/cars. me/vans: see the card of me/vans. All of these terms hold together: where "
        "they differ, the strictest one does."
    )
