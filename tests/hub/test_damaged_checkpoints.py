"""A damaged checkpoint is refused with the name of the file, and a full disk leaves the earlier one."""

import json
import re
import shutil
from pathlib import Path

import pytest
import small_models
import torch
from full_disk import room_for

from uov_hf import UOVFeatureExtractor, UOVForSemanticSegmentation, UOVProcessor, save_checkpoint
from uov_hf.hub.checkpoint import check_checkpoint
from uov_hf_cli.__main__ import main


def save(folder: Path, model: UOVForSemanticSegmentation, **options) -> Path:
    save_checkpoint(folder, model, UOVProcessor.from_teacher(UOVFeatureExtractor()), **options)
    return folder


@pytest.fixture
def model() -> UOVForSemanticSegmentation:
    return small_models.small_segmenter("text")


@pytest.mark.parametrize("num_kept", [0, 4, 40, -1])
@pytest.mark.parametrize("max_shard_size", [None, "20KB"])
def test_weights_that_were_cut_short_are_named(model, tmp_path, num_kept, max_shard_size):
    check_checkpoint(save(tmp_path, model, max_shard_size=max_shard_size))
    *_, path = sorted(tmp_path.glob("model*.safetensors"))
    path.write_bytes(path.read_bytes()[:num_kept])
    with pytest.raises(OSError, match=rf"{path.name}: expected whole weights, got a damaged file: .* again\.$"):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "model-00002-of-00012.safetensors"])
def test_weights_that_are_missing_are_named(model, tmp_path, name):
    save(tmp_path, model, max_shard_size=None if name == "model.safetensors" else "20KB")
    (tmp_path / name).unlink()
    with pytest.raises(OSError, match=rf"{name}: expected the weights of the checkpoint, got no such file\."):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize("max_shard_size", [None, "20KB"])
def test_weights_with_a_changed_bit_are_named(model, tmp_path, max_shard_size, capsys):
    """safetensors has no checksums: the changed weights loaded, and all predictions came from them."""
    save(tmp_path, model, max_shard_size=max_shard_size)
    *_, path = sorted(tmp_path.glob("model*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match=rf"{path.name}: .* another SHA-256 than in SHA256SUMS\. .* delete .*SHA256SUMS"):
        check_checkpoint(str(tmp_path))
    (tmp_path / "scan.bin").write_bytes(bytes(160))
    assert main(["segment", str(tmp_path / "scan.bin"), "--model_name_or_path", str(tmp_path)]) == 1
    assert "another SHA-256" in capsys.readouterr().err
    (tmp_path / "SHA256SUMS").unlink()
    check_checkpoint(str(tmp_path))


def test_weights_that_were_saved_again_have_no_digests_of_the_earlier_ones(model, tmp_path):
    save(tmp_path, model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(tmp_path)
    check_checkpoint(str(tmp_path))
    assert not (tmp_path / "SHA256SUMS").exists()
    check_checkpoint(str(save(tmp_path, model)))
    assert (tmp_path / "SHA256SUMS").exists()


def test_weights_that_are_not_finite_are_named(model, tmp_path):
    with torch.no_grad():
        next(model.uov.backbone.parameters()).view(-1)[0] = torch.nan
    save(tmp_path, model)
    with pytest.raises(OSError, match=r"model.safetensors: expected finite weights, got NaN or infinity in uov\.back"):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "invalid start byte"),
        (b"0123", "not enough values"),
        (b"", "no line of model.safetensors"),
        (b"01  other.safetensors\n", "no line of model.safetensors"),
    ],
)
def test_a_damaged_or_foreign_list_of_digests_is_named(model, tmp_path, content, message):
    (save(tmp_path, model) / "SHA256SUMS").write_bytes(content)
    with pytest.raises(OSError, match=rf"SHA256SUMS: expected the digests of .*{message}.* again\. .* delete it\."):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_that_was_cut_short_is_named(model, tmp_path, name):
    path = save(tmp_path, model, max_shard_size="20KB") / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=rf"{name}: expected the "):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    "content", ["[]", '{"weight_map": {}}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": [1]}}', "[" * 100_000]
)
def test_a_list_of_weight_files_of_another_form_is_named(model, tmp_path, content):
    save(tmp_path, model, max_shard_size="20KB")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(OSError, match="index.json: expected the list of the weight files, got: "):
        check_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id2label": {"0": {}}},
            r"config.json: expected .*`id2label` must contain names of classes, got \[{}\]",
        ),
        ({"id2label": "x"}, "config.json: expected the configuration of a checkpoint, got: "),
        ({"stem_channels": "x"}, "config.json: expected the configuration of a checkpoint, got: .*'stem_channels'"),
        (
            {"projection_dim": 99},
            "config.json: expected the sizes of the weights, got those of a network of .* values",
        ),
        ({"projection_dim": 9}, "cannot be loaded: config.json does not fit the weights; the report above"),
        ({"id2label": {"0": "a"}}, r"cannot be loaded: The baked prompts are for the classes \['car', "),
    ],
)
def test_a_configuration_that_was_edited_wrongly_ends_a_command_with_one_line(
    model, tmp_path, capsys, changes, message
):
    path = save(tmp_path / "model", model) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    torch.rand(300, 4).numpy().tofile(tmp_path / "scan.bin")
    command = ["segment", str(tmp_path / "scan.bin"), "--model_name_or_path", str(tmp_path / "model")]
    assert main([*command, "--output_dir", str(tmp_path / "out"), "--device", "cpu"]) == 1
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert re.match(f"uov-hf: {tmp_path}.*{message}", last)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_bytes", [0, 1_000, 30_000])
def test_a_full_disk_leaves_the_checkpoint_that_was_there(model, tmp_path, num_bytes):
    folder = save(tmp_path / "model", model)
    before = shutil.copytree(folder, tmp_path / "before")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    with room_for(num_bytes), pytest.raises(OSError, match=f"{folder}: could not be written: .* as before. Free some"):
        save(folder, model)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in before.iterdir()
    }


@pytest.mark.parametrize("max_shard_size", [None, "20KB"])
def test_who_may_read_the_configuration_may_read_the_weights(model, tmp_path, max_shard_size):
    save(tmp_path, model, max_shard_size=max_shard_size)
    assert len({path.stat().st_mode for path in [*tmp_path.glob("*.safetensors"), tmp_path / "config.json"]}) == 1
