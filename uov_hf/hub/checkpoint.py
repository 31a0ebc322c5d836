"""Checkpoints that load with the package installed, or without it with `trust_remote_code`."""

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any, Unpack

from huggingface_hub import whoami
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import cached_file

from uov_hf.configuration_uov import UOVConfig
from uov_hf.digests import DIGESTS_FILE, write_digests
from uov_hf.feature_extraction_uov import UOVFeatureExtractor
from uov_hf.hub.checkpoint_files import SETTING_FILES, check_files, check_settings
from uov_hf.hub.upload import UploadOptions, upload
from uov_hf.modeling_uov import UOVModel, UOVPreTrainedModel
from uov_hf.modeling_uov_pretraining import UOVForPreTraining
from uov_hf.modeling_uov_segmentation import UOVForSemanticSegmentation
from uov_hf.pipeline_uov import PointCloudSegmentationPipeline
from uov_hf.processing_uov import UOVProcessor
from uov_hf.written_together import written_together


MODEL_CLASSES = {
    "AutoConfig": UOVConfig,
    "AutoModel": UOVModel,
    "AutoModelForPreTraining": UOVForPreTraining,
    "AutoModelForSemanticSegmentation": UOVForSemanticSegmentation,
}
PROCESSOR_CLASSES = {"AutoProcessor": UOVProcessor, "AutoFeatureExtractor": UOVFeatureExtractor}
PIPELINES = {
    "point-cloud-segmentation": {
        "impl": "pipeline_uov.PointCloudSegmentationPipeline",
        "pt": ["AutoModelForSemanticSegmentation"],
    }
}
# One file, or shards with an index; `from_pretrained` prefers the one file.
WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
# The files that are uploaded beside the weights, the code and the card; others in the folder are not. The Hub has
# digests of its own, and ours would stay there when other weights are pushed.
CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "train_log.jsonl",
    "LICENSE.md",
)


def check_checkpoint(name_or_path: str, revision: str | None = None) -> None:
    """Check, before anything else is loaded, that there is a checkpoint in a folder or on the Hub.

    Raises:
        OSError: There is none, or a file in the folder is cut short, missing, not finite, or was changed after it was
            saved. The message is one line.
    """
    if Path(name_or_path).is_dir():
        if not (Path(name_or_path) / "config.json").is_file():
            raise OSError(f"{name_or_path}: expected a folder with a checkpoint, got one without config.json.")
        check_files(Path(name_or_path))
    elif name_or_path.count("/") > 1 or name_or_path.startswith((".", "/", "~")):
        raise OSError(f"{name_or_path}: there is no such folder, and ids on the Hub look like user/name.")
    else:
        try:
            folder = Path(str(cached_file(name_or_path, "config.json", revision=revision))).parent
            for name in SETTING_FILES:
                cached_file(name_or_path, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise OSError(f"{name_or_path}: there is no such folder, and on the Hub: {reason}") from error
        check_settings(folder)


def save_checkpoint(
    folder: str | os.PathLike,
    model: UOVPreTrainedModel,
    processor: UOVProcessor,
    max_shard_size: int | str | None = None,
) -> None:
    """
    Write a whole checkpoint: weights, configuration, processor, tokenizer, and the code that reads them.

    Load it with `UOVModel.from_pretrained` and `UOVProcessor.from_pretrained`, or, after `import uov_hf`, with
    `AutoModel`, `AutoProcessor` and `pipeline`. Without the package installed, load it with `trust_remote_code=True`.
    `save_pretrained` of either object writes the same files without the code and without `SHA256SUMS`, the digests of
    the weights.

    Files are written to a temporary folder and moved, `config.json` last, after that of an earlier save was removed.
    So no file is half-written, and a folder with `config.json` has the files of one save. Weight files of an earlier
    save are deleted, and what a killed save has left; other files stay.

    Args:
        folder (`str` or `os.PathLike`): Created if missing.
        model (`UOVPreTrainedModel`):
            Not wrapped for distributed training. Of several processes, only the main one calls this.
        processor (`UOVProcessor`): Its `has_text_tower` is set to that of the model.
        max_shard_size (`int` or `str`, *optional*):
            Such as `"2GB"`: larger weights are split into files of this size. By default that of transformers.
    """
    processor.has_text_tower = model.config.has_teachers_text_tower
    with written_together(Path(folder), "config.json", replaces=WEIGHT_FILES) as temporary:
        options: dict[str, Any] = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        model.save_pretrained(temporary, **options)
        processor.save_pretrained(temporary)
        _add_code(temporary)
        files = sorted(temporary.glob("*.safetensors"))
        for weights in files:  # safetensors lets nobody else read them
            shutil.copymode(temporary / "config.json", weights)
        write_digests(temporary, files)


def push_checkpoint(folder: str | os.PathLike, repo_id: str, **options: Unpack[UploadOptions]) -> str:
    """
    Upload a checkpoint as [`save_checkpoint`] or a training script left it, with its card, and return the address.

    Weights, configuration, processor, code and card go up in one commit. Only files of the checkpoint are uploaded;
    other files and the folders of a run (states, label sets, data) are not. A folder without a card gets one, and the
    code in the card names the repository.

    Args:
        folder (`str` or `os.PathLike`): The checkpoint.
        repo_id (`str`): `user/name`, or `name` for a repository of the user.
        options: `private`, `revision`, `commit_message` and `token` of [`~uov_hf.hub.upload.upload`].

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        OSError: A file of it is damaged, as for `check_checkpoint`.
        PermissionError, ConnectionError, HfHubHTTPError: See `upload`.
    """
    from uov_hf.hub.cards import name_repository, write_default_card  # jinja2, which only a push needs

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no checkpoint in {folder}: no config.json. `save_checkpoint` writes one.")
    check_files(folder)
    if not (folder / "README.md").is_file():
        write_default_card(folder)
    patterns = (*CHECKPOINT_FILES, *WEIGHT_FILES, *(file.name for file in _code_files()))
    files: dict[str, Path | bytes] = {
        file.name: file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()
    }
    if "/" not in repo_id:
        repo_id = f"{whoami(options.get('token'))['name']}/{repo_id}"
    card = (folder / "README.md").read_text(encoding="utf-8")
    files["README.md"] = name_repository(card, repo_id).encode()
    options.setdefault("commit_message", "Upload checkpoint")
    return upload(repo_id, files, replaces=(*WEIGHT_FILES, DIGESTS_FILE), **options)


def _add_code(folder: Path) -> None:
    """Add what `register_for_auto_class` would, without changing the classes."""
    for source in _code_files():
        shutil.copy(source, folder)
    _edit_json(folder / "config.json", MODEL_CLASSES, custom_pipelines=PIPELINES)
    _edit_json(folder / "processor_config.json", PROCESSOR_CLASSES, also_in="feature_extractor")


def _code_files() -> list[Path]:
    """The modules of the classes that a checkpoint names, and the modules that they import."""
    classes = [*MODEL_CLASSES.values(), *PROCESSOR_CLASSES.values(), PointCloudSegmentationPipeline]
    modules = {inspect.getfile(c) for c in classes}
    return sorted({Path(source) for file in modules for source in [file, *get_relative_import_files(file)]})


def _edit_json(file: Path, classes: dict[str, type], also_in: str | None = None, **further: Any) -> None:
    """Write into `file` the class and module of each Auto class, and the values of `further`."""
    auto_map = {name: f"{c.__module__.split('.')[-1]}.{c.__name__}" for name, c in classes.items()}
    content = json.loads(file.read_text(encoding="utf-8"))
    content |= {"auto_map": auto_map, **further}
    if also_in is not None:
        content[also_in]["auto_map"] = auto_map
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
