"""Checks of the files of a checkpoint before transformers reads them, which uses their content unchecked."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from uov_hf.configuration_uov import IGNORED, UOVConfig
from uov_hf.digests import DIGESTS_FILE, file_digest, read_digests
from uov_hf.modeling_uov import UOVModel
from uov_hf.setting_files import read_json


SAVE_AGAIN = "Copy, download or save the checkpoint again."
# Settings of transformers by which it reads other files, or changes the weights.
FOREIGN_SETTINGS = ("transformers_weights", "quantization_config")
# Others are fetched from the Hub as code.
ATTENTION = (None, "eager", "sdpa")
# The words of a CLIP; other classes need libraries of their own.
TOKENIZERS = (None, "CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
# Beside a checkpoint, transformers takes these for the names of other models to read.
FOREIGN_FILES = ("adapter_config.json", "audio_tokenizer_config.json")
SETTING_FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", *FOREIGN_FILES)


def check_files(folder: Path) -> None:
    """Check that the settings of a checkpoint are valid, and that its weights are there, whole, finite and complete.

    Raises:
        OSError: They are not; the message names the file.
    """
    config = check_settings(folder)
    files = _weight_files(folder)
    stored: dict[str, int] = {}
    for file in files:
        if not file.is_file():
            raise OSError(f"{file}: expected the weights of the checkpoint, got no such file. {SAVE_AGAIN}")
        stored |= _finite_tensors(file)
    _check_digests(files)
    _check_complete(config, stored, folder)


def check_settings(folder: Path) -> UOVConfig:
    """Check all files of a checkpoint but its weights, and return its configuration.

    Raises:
        OSError: A file is invalid or missing, or names files, code or models outside the checkpoint.
    """
    for name in FOREIGN_FILES:
        if (folder / name).is_file():
            raise OSError(
                f"{folder / name}: expected no such file in a checkpoint: it names another model. Delete it."
            )
    config: UOVConfig = _checked(folder / "config.json", "the configuration of a checkpoint", _read_config)
    for name, kind, check in (
        ("processor_config.json", "the settings of a processor", _check_processor),
        ("tokenizer_config.json", "the settings of a tokenizer", _check_tokenizer_settings),
        ("tokenizer.json", "the tokenizer of a CLIP", _check_tokenizer),
    ):
        if (folder / name).is_file():
            _checked(folder / name, kind, check)
    return config


def _checked(file: Path, kind: str, check: Any) -> Any:
    try:
        return check(file)
    except Exception as error:  # transformers uses values before it checks their types
        reason = " ".join(str(error).split())
        raise OSError(f"{file}: expected {kind}, got: {reason or type(error).__name__}") from error


def _read_config(file: Path) -> UOVConfig:
    values, _ = UOVConfig.get_config_dict(file.parent)
    if values.get("model_type") != UOVConfig.model_type:
        raise ValueError(f"`model_type` {values.get('model_type')!r}, and ours have {UOVConfig.model_type!r}")
    config = UOVConfig.from_pretrained(file.parent)
    if not all(isinstance(name, str) for name in config.classes):
        raise ValueError(f"`id2label` must contain names of classes, got {config.classes!r:.200}")
    if len(config.classes) > IGNORED:
        raise ValueError(f"{len(config.classes)} classes, and a segmenter can have {IGNORED}")
    for part in (config, config.text_config):
        for name in FOREIGN_SETTINGS:
            if getattr(part, name, None) is not None:
                raise ValueError(f"`{name}`, which a checkpoint of this package cannot have. Remove it")
        attention = getattr(part, "_attn_implementation", None)
        if attention not in ATTENTION:
            raise ValueError(f"`attn_implementation` must be eager or sdpa, got {attention!r:.200}")
    _check_tokenizer_class(values)
    return config


def _check_processor(file: Path) -> None:
    if read_json(file).get("audio_tokenizer") is not None:
        raise ValueError("`audio_tokenizer`, which names another model. Remove it")


def _check_tokenizer_settings(file: Path) -> None:
    values = read_json(file)
    for name, value in values.items():
        if name.endswith(("_file", "_files")) and value is not None:
            raise ValueError(f"`{name}`, which names another file. Remove it")
    _check_tokenizer_class(values)


def _check_tokenizer_class(values: dict[str, Any]) -> None:
    if (name := values.get("tokenizer_class")) not in TOKENIZERS:
        raise ValueError(f"`tokenizer_class` must be {TOKENIZERS[1]}, got {name!r:.200}")


def _check_tokenizer(file: Path) -> None:
    """Refuse what ends the process, or leaves it by an error that is no `Exception`, in the library that reads it."""
    values = read_json(file)
    model = values["model"]
    if model.get("type", "BPE") != "BPE" or model.get("continuing_subword_prefix"):
        raise ValueError("a `model` that is not byte-pair encoding without `continuing_subword_prefix`")
    if '"Precompiled"' in json.dumps(values.get("normalizer")):
        raise ValueError("a `normalizer` that is precompiled")


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: one, or those that the index names."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [single]
    try:
        names = sorted({*read_json(index)["weight_map"].values()})
        if not names:
            raise ValueError("no weight files")
        for name in names:
            if name != Path(name).name:
                raise ValueError(f"{name!r:.200}, which is not the name of a file in the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{index}: expected the list of the weight files, got: {error!r}. {SAVE_AGAIN}") from error
    return [folder / name for name in names]


def _finite_tensors(file: Path) -> dict[str, int]:
    """The number of values of each tensor of a file."""
    sizes: dict[str, int] = {}
    try:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                tensor = tensors.get_tensor(name)
                sizes[name] = tensor.numel() if tensor.isfinite().all() else -1
    except Exception as error:  # torch has no such shape, or cannot compute with the dtype
        raise OSError(f"{file}: expected whole weights, got a damaged file: {error}. {SAVE_AGAIN}") from error
    if wrong := [name for name, size in sizes.items() if size < 0]:
        raise OSError(f"{file}: expected finite weights, got NaN or infinity in {wrong[0]}. {SAVE_AGAIN}")
    return sizes


def _check_digests(files: list[Path]) -> None:
    """Compare weight files with the digests beside them; checkpoints of other programs have none."""
    digests = files[0].with_name(DIGESTS_FILE)
    if not digests.is_file():
        return
    try:
        expected = read_digests(digests.parent)
        if absent := [file.name for file in files if file.name not in expected]:
            raise ValueError(f"no line of {absent[0]}")
    except (OSError, ValueError) as error:
        raise OSError(
            f"{digests}: expected the digests of the weights, got: {error}. {SAVE_AGAIN} If it is not ours, delete it."
        ) from error
    for file in files:
        if file_digest(file) != expected[file.name]:
            raise OSError(
                f"{file}: expected the weights as they were saved, got a file with another SHA-256 than in "
                f"{DIGESTS_FILE}. {SAVE_AGAIN} If another program wrote the weights anew, delete {digests}."
            )


def _check_complete(config: UOVConfig, stored: dict[str, int], folder: Path) -> None:
    """Check that the network of the configuration has weights: transformers draws those that are missing at random.

    The names in the text tower are those of transformers, which may have changed them since; it compares them itself.
    """

    def build(file: Path) -> UOVModel:
        with torch.device("meta"):  # takes no memory, whatever the sizes
            return UOVModel(config)

    network = _checked(folder / "config.json", "the sizes of a network", build)
    needed = sum(tensor.numel() for tensor in (*network.parameters(), network.prompt_embeds))
    ours = {name.removeprefix("uov.") for name in stored}
    missing = [name for name in network.state_dict() if not name.startswith("text_tower.") and name not in ours]
    if missing := without_counts(missing):
        raise OSError(f"{folder}: expected weights of the whole network, got none of {missing[0]}. {SAVE_AGAIN}")
    if needed > sum(stored.values()):
        raise OSError(
            f"{folder / 'config.json'}: expected the sizes of the weights, got those of a network of {needed:,} "
            f"values, and the weights have {sum(stored.values()):,}. {SAVE_AGAIN}"
        )


def without_counts(names: list[str]) -> list[str]:
    """Names of weights, but for the number of batches that a BatchNorm has seen, which no prediction needs."""
    return sorted(name for name in names if not name.endswith(".num_batches_tracked"))
