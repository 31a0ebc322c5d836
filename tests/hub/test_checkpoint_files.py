"""A checkpoint that names foreign files, foreign code or other weights than its own is refused."""

import json
import struct
from pathlib import Path

import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from uov_hf import UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.digests import write_digests
from uov_hf.hub.checkpoint import check_checkpoint
from uov_hf.segmenting import load_segmenter


TEXT_TOWER = {
    **{"vocab_size": 99, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
    **{"projection_dim": 12, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(tmp_path / "model", small_models.small_segmenter())


def save(folder: Path, model: UOVForSemanticSegmentation | UOVModel, **options) -> Path:
    save_checkpoint(folder, model, UOVProcessor.from_teacher(UOVFeatureExtractor()), **options)
    return folder


def edit(path: Path, **changes) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def edit_weights(folder: Path, change) -> Path:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    write_digests(folder, [path])
    return path


@pytest.mark.parametrize("kind", ["linear", "text", "network", "tower", "shards", "half"])
def test_checkpoints_of_all_kinds_are_loaded(tmp_path, kind):
    uov = small_models.small_network()
    if kind == "tower":
        uov.set_text_tower(CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_TOWER)), "teacher")
    model = UOVForSemanticSegmentation.from_backbone(uov, "linear" if kind == "linear" else "text")
    model = model.bfloat16() if kind == "half" else model
    save(tmp_path, uov if kind == "network" else model, max_shard_size="20KB" if kind == "shards" else None)
    found = load_segmenter(tmp_path, device="cpu").model
    assert small_models.have_same_weights(found, model)
    UOVModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    if kind == "linear":  # a network without the head that its configuration names
        check_checkpoint(str(tmp_path))
        with pytest.raises(OSError, match=f"{tmp_path}: the checkpoint cannot be loaded: .* none of classifier"):
            load_segmenter(tmp_path)


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("classifier", "cannot be loaded: the weights have none of classifier.bias, classifier.weight"),
        ("uov.backbone.stem", "expected weights of the whole network, got none of backbone.stem.conv.weight"),
        ("uov.prompt_embeds", "expected weights of the whole network, got none of prompt_embeds"),
        ("", "expected weights of the whole network, got none of "),
        ("uov.text_tower.text_projection", "cannot be loaded: the weights have none of .*text_projection"),
    ],
)
def test_weights_without_a_part_of_the_network_are_refused(tmp_path, absent, message):
    """transformers draws missing weights at random and only warns."""
    model = small_models.small_segmenter()
    model.uov.set_text_tower(CLIPTextModelWithProjection(CLIPTextConfig(**TEXT_TOWER)), "teacher")
    save(tmp_path, model)
    edit_weights(tmp_path, lambda all_: {name: own for name, own in all_.items() if not name.startswith(absent)})
    with pytest.raises(OSError, match=f"^{tmp_path}: .*{message}"):
        load_segmenter(tmp_path)


def test_counts_of_batches_may_be_missing(folder):
    edit_weights(folder, lambda all_: {name: own for name, own in all_.items() if "num_batches" not in name})
    assert load_segmenter(folder, device="cpu").model.config.classes == small_models.CLASSES


@pytest.mark.parametrize(
    "changes",
    [
        {"text_config": TEXT_TOWER | {"vocab_size": 3_000_000}},
        {"text_config": TEXT_TOWER | {"num_hidden_layers": 101}},
        {"depths": [2**31, *[1] * 7]},
        {"hidden_sizes": [*[8] * 7, 2**31]},
        {"hidden_sizes": [*[8] * 7, 2**62]},
        {"projection_dim": 10**8},
        {"prompts": [""] * 100_000},
    ],
)
def test_a_network_that_is_larger_than_its_weights_is_refused_before_it_takes_memory(folder, changes, monkeypatch):
    monkeypatch.setattr("uov_hf.segmenting._load", None)
    path = edit(folder / "config.json", **changes)
    with pytest.raises(OSError, match=f"{path}: expected the (configuration|size)"):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("config.json", {"transformers_weights": "other.safetensors"}, "`transformers_weights`"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "`quantization_config`"),
        ("config.json", {"attn_implementation": "kernels-community/flash-attn"}, "eager or sdpa, got 'kernels-com"),
        ("config.json", {"_attn_implementation": "flash_attention_2"}, "eager or sdpa, got 'flash_attention_2'"),
        ("config.json", {"attn_implementation": {"text_config": "a/b"}, "text_config": TEXT_TOWER}, "got 'a/b'"),
        ("config.json", {"text_config": TEXT_TOWER | {"quantization_config": {}}}, "`quantization_config`"),
        (
            "config.json",
            {"id2label": {str(row): f"c{row}" for row in range(300)}, "ignored_index": 1000},
            "300 classes",
        ),
        ("config.json", {"tokenizer_class": "XLNetTokenizer"}, "`tokenizer_class` must be .* got 'XLNetTokenizer'"),
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "`tokenizer_class` must be"),
        ("tokenizer_config.json", {"gguf_file": "/etc/hostname"}, "`gguf_file`, which names another file"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.json"]}, "`fast_tokenizer_files`"),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "/etc"}}, "another model"),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}, "not byte-pair encoding"),
        ("tokenizer.json", {"model": {"continuing_subword_prefix": "#"}}, "not byte-pair encoding"),
        (
            "tokenizer.json",
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": ""}]}},
            "a `normalizer` that is precompiled",
        ),
    ],
)
def test_settings_that_name_foreign_files_or_code_are_refused(folder, name, changes, message):
    path = edit(folder / name, **changes)
    with pytest.raises(OSError, match=f"^{path}: expected .*{message}"):
        load_segmenter(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "audio_tokenizer_config.json"])
def test_a_file_that_names_another_model_is_refused(folder, name):
    (folder / name).write_text('{"base_model_name_or_path": "/etc"}')
    with pytest.raises(OSError, match=f"^{folder / name}: expected no such file in a checkpoint"):
        load_segmenter(folder)


@pytest.mark.parametrize("is_absolute", [True, False])
def test_weights_in_another_folder_are_refused(folder, tmp_path, is_absolute):
    other = save(tmp_path / "other", small_models.small_segmenter())
    name = str(other / "model.safetensors") if is_absolute else "../other/model.safetensors"
    index = folder / "model.safetensors.index.json"
    weight_map = dict.fromkeys(load_file(folder / "model.safetensors"), name)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        OSError, match=f"^{index}: expected the list of the weight files, got: .* not the name of a fi"
    ):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("dtype", "shape", "data"), [("F8_E4M3", [1], b"\1"), ("F4", [2], b"\1"), ("F32", [0, 2**63], b"")]
)
def test_tensors_that_torch_cannot_read_are_named(folder, dtype, shape, data):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    header["x"] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body + data)
    write_digests(folder, [path])
    with pytest.raises(OSError, match=f"^{path}: expected whole weights, got a damaged file: "):
        check_checkpoint(str(folder))


def test_an_image_processor_that_needs_an_absent_package_is_named(folder, monkeypatch):
    def absent(*args, **options):
        raise ImportError("needs timm")

    monkeypatch.setattr("uov_hf.segmenting.UOVProcessor.from_pretrained", absent)
    with pytest.raises(OSError, match=f"^{folder}: the checkpoint cannot be loaded: needs timm"):
        load_segmenter(folder)


def test_a_panic_of_the_tokenizers_is_named(folder, monkeypatch):
    kind = type("PanicException", (BaseException,), {})

    def panic(*args, **options):
        raise kind("byte index 4 is out of bounds")

    monkeypatch.setattr("uov_hf.segmenting.UOVProcessor.from_pretrained", panic)
    with pytest.raises(OSError, match=f"^{folder}: the checkpoint cannot be loaded: byte index 4"):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("prompt_to_class", torch.tensor([-1, 0, 1, 2, 255]), "`prompt_to_class` must contain"),
        ("prompt_to_class", torch.tensor([1e30, 1, 2, 0, 255]), "`prompt_to_class` must contain"),
        ("prompt_to_class", torch.tensor([0, 1, 1, 0, 255]), "each of the 3 classes"),
        ("prompt_embeds", torch.zeros(5, 12), "`prompt_embeds` must have unit length"),
        ("prompt_embeds", torch.ones(5, 12) * 7, "`prompt_embeds` must have unit length"),
    ],
)
def test_prompts_that_are_no_embeddings_or_of_no_class_are_refused(tmp_path, name, values, message):
    save(tmp_path, small_models.small_segmenter("text"))
    edit_weights(tmp_path, lambda all_: all_ | {f"uov.{name}": values})
    with pytest.raises(OSError, match=f"^{tmp_path}: the checkpoint cannot be loaded: .*{message}"):
        load_segmenter(tmp_path)


def test_an_engine_that_is_not_there_is_named_before_the_first_scan(folder):
    edit(folder / "config.json", sparse_backend="spconv_triton")
    with pytest.raises(OSError, match=f"^{folder}: the checkpoint cannot be loaded: spconv_triton cannot be used"):
        load_segmenter(folder, device="cpu")


def test_a_tokenizer_that_would_return_arrays_does_not_change_scans(folder):
    edit(folder / "tokenizer_config.json", return_tensors="np")
    found = load_segmenter(folder, device="cpu")({"points": torch.rand(9, 4).numpy(), "intensity_max": 1.0})
    assert found["segmentation"].shape == (9,)


def test_a_ground_ring_of_classes_that_a_linear_head_does_not_have_is_refused(folder):
    edit(folder / "processor_config.json", afi={"ground_ring": {"classes": ["nope"]}})
    with pytest.raises(OSError, match=rf"^{folder}: the checkpoint cannot be loaded: \['nope'\] are no classes"):
        load_segmenter(folder)
