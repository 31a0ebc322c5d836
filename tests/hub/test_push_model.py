"""What goes up comes back bit for bit: models in one file and in shards, processors, whole checkpoints with code."""

from collections import Counter

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from loopback_hub import TOKEN
from without_the_package import BLOCK_THE_PACKAGE, run_script

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.evaluation.reports import update_card
from uov_hf.hub.cards import read_card
from uov_hf.hub.checkpoint import push_checkpoint
from uov_hf_cli.__main__ import main


CLASSES = ["car", "road"]
PULL = """
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor, pipeline

points, result = sys.argv[1:]
points = np.load(points)
model = AutoModel.from_pretrained("me/whole", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("me/whole", trust_remote_code=True)
segmenter = pipeline("point-cloud-segmentation", model="me/whole", trust_remote_code=True)
assert type(segmenter).__module__.startswith("transformers_modules."), type(segmenter).__module__
answer = segmenter(points, intensity_max=255)
with torch.no_grad():
    embeds = model(**processor(points=points, intensity_max=255)).point_embeds
torch.save([embeds, torch.from_numpy(np.asarray(answer["segmentation"])), answer["labels"]], result)
"""


@pytest.fixture
def model() -> UOVModel:
    return make_model(seed=0)


def make_model(seed: int) -> UOVModel:
    torch.manual_seed(seed)
    config = UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8, projection_dim=12, sparse_backend="torch")
    model = UOVModel(config).eval()
    model.set_classes(CLASSES, torch.eye(12)[:3], torch.tensor([0, 1, 255]), [*CLASSES, "sky"])
    return model


@pytest.fixture
def processor() -> UOVProcessor:
    return UOVProcessor.from_teacher(UOVFeatureExtractor(intensity_scaling="unit"))


@pytest.fixture
def checkpoint(tmp_path, model, processor):
    """A folder named as nothing on the Hub is."""
    save_checkpoint(tmp_path / "out", model, processor)
    return tmp_path / "out"


def assert_same_weights(one, other):
    expected, found = one.state_dict(), other.state_dict()
    assert expected.keys() == found.keys() and len(expected) > 100
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_model_and_its_processor_come_back_as_they_went(hub, model, processor):
    model.push_to_hub("tiny")
    processor.push_to_hub("tiny")
    assert_same_weights(model, UOVModel.from_pretrained("me/tiny"))
    pulled = UOVProcessor.from_pretrained("me/tiny")
    assert pulled.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
    uploads = Counter(request.split("/")[1] for request in hub.requests if request.startswith("PUT"))
    assert uploads == {"large": 1}


def test_a_branch_a_tag_and_a_commit_are_models_of_their_own(hub, model, checkpoint, processor):
    other = make_model(seed=1)
    first = push_checkpoint(checkpoint, "tiny").rsplit("/", 1)[1]
    HfApi().create_tag("me/tiny", tag="v1")
    save_checkpoint(checkpoint, other, processor)
    push_checkpoint(checkpoint, "tiny", revision="next", commit_message="Better weights")
    assert hub.repos["models", "me/tiny"].at("next").title == "Better weights"
    for revision, expected in ((None, model), ("v1", model), (first, model), ("next", other)):
        options = {} if revision is None else {"revision": revision}
        assert_same_weights(expected, UOVModel.from_pretrained("me/tiny", **options))
    with pytest.raises(OSError, match="v2 is not a valid git identifier"):
        UOVModel.from_pretrained("me/tiny", revision="v2")


@pytest.mark.slow
def test_a_whole_checkpoint_works_where_the_package_is_not_installed(hub, model, processor, checkpoint, tmp_path):
    push_checkpoint(checkpoint, "whole")
    points = np.random.default_rng(0).uniform(-20, 20, (60, 4)).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    run_script(BLOCK_THE_PACKAGE + PULL, tmp_path, tmp_path / "points.npy", tmp_path / "result.pt", **hub.env)
    embeds, segmentation, labels = torch.load(tmp_path / "result.pt", weights_only=True)
    inputs = processor(points=points, intensity_max=255)
    with torch.no_grad():
        assert torch.equal(embeds, model(**inputs).point_embeds)
        scores = model.class_scores(model(**inputs).point_embeds)
    seen = inputs["point_to_voxel"] >= 0
    assert labels == CLASSES and torch.equal(segmentation[seen], scores.argmax(1)[seen])


def test_only_files_of_the_checkpoint_go_and_none_says_where_it_lay(hub, checkpoint, tmp_path):
    others = ("secrets.json", "todo.txt", "private_script.py", "metrics.json", "scan.bin", ".env", "viewer.html")
    for name in ("street/v1.0-mini/scene.json", "checkpoint-2/optimizer.bin", *others):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text("at home")
    push_checkpoint(checkpoint, "tiny")
    files = hub.files("me/tiny")
    expected = {"config.json", "model.safetensors", "pipeline_uov.py", "tokenizer.json", "README.md", "LICENSE.md"}
    assert expected <= set(files) and "SHA256SUMS" not in files  # it would not fit the weights of a later push
    assert not any(b"at home" in content or str(tmp_path).encode() in content for content in files.values())
    assert not any("/" in name for name in files)
    assert files["config.json"] == (checkpoint / "config.json").read_bytes()


def test_damaged_weights_do_not_go_up_and_a_foreign_list_of_digests_does_not_stay(hub, checkpoint):
    push_checkpoint(checkpoint, "tiny")
    HfApi().upload_file(path_or_fileobj=b"of other weights", path_in_repo="SHA256SUMS", repo_id="me/tiny")
    assert "SHA256SUMS" in hub.files("me/tiny")
    push_checkpoint(checkpoint, "tiny")
    assert "SHA256SUMS" not in hub.files("me/tiny")
    content = bytearray((checkpoint / "model.safetensors").read_bytes())
    content[-10] ^= 1
    (checkpoint / "model.safetensors").write_bytes(content)
    before = hub.files("me/tiny")
    with pytest.raises(OSError, match="model.safetensors: .* another SHA-256"):
        push_checkpoint(checkpoint, "tiny")
    assert hub.files("me/tiny") == before


def test_a_checkpoint_goes_up_in_shards_and_other_shards_do_not_stay(hub, model, processor, checkpoint):
    other = make_model(seed=1)
    save_checkpoint(checkpoint, other, processor, max_shard_size="50KB")
    push_checkpoint(checkpoint, "tiny")
    assert_same_weights(other, UOVModel.from_pretrained("me/tiny"))
    assert "model.safetensors" not in hub.files("me/tiny")
    save_checkpoint(checkpoint, model, processor)
    push_checkpoint(checkpoint, "tiny")
    assert_same_weights(model, UOVModel.from_pretrained("me/tiny"))
    assert [name for name in hub.files("me/tiny") if "safetensors" in name] == ["model.safetensors"]


def test_the_card_on_the_hub_names_the_repository_and_its_results_are_read(hub, checkpoint):
    push_checkpoint(checkpoint, "tiny")
    first = read_card("me/tiny")
    assert 'model="me/tiny"' in first and '"out"' not in first
    push_checkpoint(checkpoint, "other")
    assert 'model="me/other"' in read_card("me/other")
    results = {"all_points": {"mean_iou": 0.25, "overall_accuracy": 0.5, "fwiou": None}}
    dataset = {"name": "nuscenes", "type": "nuscenes", "split": "val", "config": None}
    update_card(checkpoint, results, "| IoU in % | all |\n|---|---:|\n| car | 25.0 |", dataset, {"refine": "afi"})
    push_checkpoint(checkpoint, "tiny")
    card = ModelCard.load("me/tiny")
    assert [(result.metric_type, result.metric_value) for result in card.data.eval_results] == [
        ("mean_iou", 0.25),
        ("accuracy", 0.5),
    ]
    assert "| car | 25.0 |" in card.text


def test_a_private_checkpoint_is_read_with_its_token_only(hub, model, checkpoint, without_token):
    push_checkpoint(checkpoint, "secret", private=True)
    assert hub.repos["models", "me/secret"].private
    without_token()
    with pytest.raises(OSError, match="If this is a private repository, make sure to pass a token"):
        UOVModel.from_pretrained("me/secret")
    with pytest.raises(OSError, match="me/secret: there is no such folder, .*make sure you are authenticated"):
        read_card("me/secret")
    assert_same_weights(model, UOVModel.from_pretrained("me/secret", token=TOKEN))


def test_a_push_without_a_token_or_into_anothers_name_is_the_hubs_to_refuse(hub, checkpoint, without_token):
    with pytest.raises(OSError, match="403 Forbidden"):
        push_checkpoint(checkpoint, "somebody/tiny")
    without_token()
    with pytest.raises(OSError, match="Token is required|401"):
        push_checkpoint(checkpoint, "me/tiny")
    assert not hub.repos


def test_a_folder_without_a_checkpoint_is_named(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint in .*: no config.json"):
        push_checkpoint(tmp_path, "tiny")
    assert not hub.repos


def test_the_command_line_pushes_a_checkpoint_and_says_why_not(hub, model, checkpoint, without_token, capsys):
    assert main(["push", str(checkpoint), "me/tiny", "--commit_message", "By hand"]) == 0
    assert_same_weights(model, UOVModel.from_pretrained("me/tiny"))
    assert hub.repos["models", "me/tiny"].at("main").title == "By hand"
    assert main(["push", str(checkpoint.parent), "me/tiny"]) == 1
    assert "neither config.json nor label_set.json" in capsys.readouterr().err
    without_token()
    assert main(["push", str(checkpoint), "me/other"]) == 1
    assert "uov-hf: " in capsys.readouterr().err and len(hub.repos) == 1
