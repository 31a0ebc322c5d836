"""A checkpoint loads in a fresh process, with the package installed and without it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline
from without_the_package import BLOCK_THE_PACKAGE, run_script

from uov_hf import (
    PointCloudSegmentationPipeline,
    UOVConfig,
    UOVFeatureExtractor,
    UOVForPreTraining,
    UOVForSemanticSegmentation,
    UOVModel,
    UOVProcessor,
    save_checkpoint,
)


LOAD_AND_EMBED = """
import sys
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor
{imports}
folder, points, result = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, **{options})
model = AutoModel.from_pretrained(folder, **{options})
assert type(model).__name__ == "UOVModel" and type(processor).__name__ == "UOVProcessor"
assert type(model).__module__.startswith({module!r}), type(model).__module__
assert type(processor.feature_extractor).__module__.startswith({module!r})
with torch.no_grad():
    output = model(**processor(points=np.load(points)))
torch.save([output.point_embeds, output.logits_per_point], result)
"""

SAVE_AGAIN_AND_SEGMENT = """
import os
import shutil
import sys
import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation, AutoProcessor, pipeline
folder, points, result = sys.argv[1:]
trust = {"trust_remote_code": True}
for part in (AutoModelForSemanticSegmentation, AutoProcessor):
    part.from_pretrained(folder, **trust).save_pretrained("saved in parts")
pipeline("point-cloud-segmentation", model="saved in parts", **trust).save_pretrained("saved by the pipeline")
for copy in ("saved in parts", "saved by the pipeline"):
    assert set(os.listdir(folder)) - set(os.listdir(copy)) == {"SHA256SUMS"}, copy  # of the weights in `folder`
shutil.copytree(folder, "removed")
network = AutoModel.from_pretrained("removed", **trust)
shutil.rmtree("removed")
network.save_pretrained("saved without its source")
config = AutoConfig.from_pretrained("saved without its source", **trust)
assert sorted(config.auto_map) == ["AutoConfig", "AutoModel"] and not config.custom_pipelines, config
segmenter = pipeline("point-cloud-segmentation", model="saved by the pipeline", device="cpu", **trust)
assert type(segmenter).__module__.startswith("transformers_modules."), type(segmenter).__module__
torch.save([torch.from_numpy(segmenter(points, CANDIDATES)["scores"])], result)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pre-training checkpoint with two classes, a scan, and the output of the model for it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    config = UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8, projection_dim=12, sparse_backend="torch")
    model = UOVForPreTraining(config).eval()
    model.uov.set_classes(["car", "road"], torch.eye(12)[:3], torch.tensor([0, 1, 255]), ["car", "road", "sky"])
    processor = UOVProcessor.from_teacher(UOVFeatureExtractor())
    save_checkpoint(folder / "model", model, processor)
    points = np.random.default_rng(0).uniform(-20, 20, (60, 4)).astype(np.float32)
    np.save(folder / "points.npy", points)
    with torch.no_grad():
        output = model.uov(**processor(points=points))
    return folder, [output.point_embeds, output.logits_per_point]


def run(script, folder, tmp_path, name="model"):
    run_script(script, tmp_path, folder / name, folder / "points.npy", tmp_path / "result.pt")
    return torch.load(tmp_path / "result.pt", weights_only=True)


@pytest.mark.parametrize(
    ("block", "imports", "options", "module"),
    [
        (BLOCK_THE_PACKAGE, "", {"trust_remote_code": True}, "transformers_modules."),
        ("", "import uov_hf", {}, "uov_hf."),
    ],
    ids=["without the package", "with the package"],
)
def test_a_fresh_process_loads_a_checkpoint(checkpoint, tmp_path, block, imports, options, module):
    """Without the package it trusts the code in the checkpoint, with the package it needs no trust."""
    script = block + LOAD_AND_EMBED.format(imports=imports, options=options, module=module)
    result = run(script, checkpoint[0], tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(result, checkpoint[1], strict=True))


@pytest.mark.parametrize("head, candidates", [("text", ["sky", "car"]), ("linear", None)])
def test_without_the_package_a_segmenter_is_saved_again_with_its_code(checkpoint, head, candidates, tmp_path):
    folder, _ = checkpoint
    model = UOVForSemanticSegmentation.from_backbone(UOVModel.from_pretrained(folder / "model"), head)
    save_checkpoint(folder / head, model, UOVProcessor.from_pretrained(folder / "model"))
    script = BLOCK_THE_PACKAGE + SAVE_AGAIN_AND_SEGMENT.replace("CANDIDATES", repr(candidates))
    (scores,) = run(script, folder, tmp_path, head)
    segmenter = pipeline("point-cloud-segmentation", model=str(folder / head), device="cpu")
    expected = segmenter(str(folder / "points.npy"), candidates)["scores"]
    assert torch.equal(scores, torch.from_numpy(expected))


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}])
def test_with_the_package_its_pipeline_is_used_and_needs_no_trust(checkpoint, trust):
    folder = checkpoint[0] / "model"
    assert "point-cloud-segmentation" in json.loads((folder / "config.json").read_text())["custom_pipelines"]
    segmenter = pipeline("point-cloud-segmentation", model=str(folder), device="cpu", **trust)
    assert type(segmenter) is PointCloudSegmentationPipeline and type(segmenter.model) is UOVForSemanticSegmentation


def test_the_checkpoint_names_its_classes_by_module(checkpoint):
    folder = checkpoint[0] / "model"
    assert not UOVProcessor.from_pretrained(folder).has_text_tower
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_uov.UOVModel"
    assert config["auto_map"]["AutoConfig"] == "configuration_uov.UOVConfig"
    files = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "modeling_uov.py"} <= files
    assert not any(name.startswith(".") for name in files)


def test_a_plain_save_of_a_loaded_checkpoint_carries_no_code_and_names_none(checkpoint, tmp_path):
    for part in (UOVModel, UOVProcessor):
        part.from_pretrained(checkpoint[0] / "model").save_pretrained(tmp_path)
    written = [(tmp_path / name).read_text() for name in ("config.json", "processor_config.json")]
    assert not any(key in text for key in ("auto_map", "custom_pipelines") for text in written)
    assert not list(tmp_path.glob("*.py"))


def test_saving_over_a_checkpoint_keeps_its_other_files(checkpoint, tmp_path):
    model = UOVModel.from_pretrained(checkpoint[0] / "model")
    processor = UOVProcessor.from_pretrained(checkpoint[0] / "model")
    (tmp_path / "README.md").write_text("card")
    for _ in range(2):
        save_checkpoint(tmp_path, model, processor)
    assert (tmp_path / "README.md").read_text() == "card"
    assert torch.equal(UOVModel.from_pretrained(tmp_path).prompt_embeds, model.prompt_embeds)


def test_the_code_in_the_checkpoint_is_that_of_the_package(checkpoint):
    package = Path(sys.modules["uov_hf"].__file__).parent
    copies = sorted((checkpoint[0] / "model").glob("*.py"))
    assert len(copies) >= 6
    assert all(copy.read_bytes() == (package / copy.name).read_bytes() for copy in copies)


def test_weights_cut_otherwise_by_an_earlier_save_do_not_stay_but_other_files_do(checkpoint, tmp_path):
    (tmp_path / "README.md").write_text("card")
    processor = UOVProcessor.from_pretrained(checkpoint[0] / "model")
    old, new = (UOVModel(UOVConfig.from_preset("tiny", hidden_sizes=[8] * 8)) for _ in range(2))
    whole = {"model.safetensors"}
    shards = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)} | {"model.safetensors.index.json"}
    for model, size, expected in ((old, None, whole), (new, "100KB", shards), (old, "1GB", whole)):
        save_checkpoint(tmp_path, model, processor, max_shard_size=size)
        assert (tmp_path / "README.md").read_text() == "card" and not list(tmp_path.glob(".*"))
        assert {file.name for file in tmp_path.glob("model*.safetensors*")} == expected
        loaded = UOVModel.from_pretrained(tmp_path).state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())
