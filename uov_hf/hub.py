"""Checkpoints that load with the package installed, and without it by `trust_remote_code`."""

import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers.dynamic_module_utils import get_relative_import_files

from .configuration_uov import UOVConfig
from .feature_extraction_uov import UOVFeatureExtractor
from .modeling_uov import UOVModel, UOVPreTrainedModel
from .modeling_uov_pretraining import UOVForPreTraining
from .modeling_uov_segmentation import UOVForSemanticSegmentation
from .processing_uov import UOVProcessor


MODEL_CLASSES = {
    "AutoConfig": UOVConfig,
    "AutoModel": UOVModel,
    "AutoModelForPreTraining": UOVForPreTraining,
    "AutoModelForSemanticSegmentation": UOVForSemanticSegmentation,
}
PROCESSOR_CLASSES = {"AutoProcessor": UOVProcessor, "AutoFeatureExtractor": UOVFeatureExtractor}
# In one file, or in shards with an index; `from_pretrained` reads the one file wherever it is there.
WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")


def save_checkpoint(folder: str | os.PathLike, model: UOVPreTrainedModel, processor: UOVProcessor) -> None:
    """Write a whole checkpoint: weights, configuration, processor, tokenizer, and the code that reads them.

    It loads by `UOVModel.from_pretrained` and `UOVProcessor.from_pretrained`; by `AutoModel` and `AutoProcessor` after
    `import uov_hf`; and by these with `trust_remote_code=True` where the package is not installed. `save_pretrained`
    of either object writes the same files without the code.

    Files are written beside and moved into place, `config.json` last: none is ever half-written, and a folder that was
    empty is a checkpoint only once it is complete. Weights of an earlier save that was cut into other files go; what
    else is in the folder stays.

    Args:
        folder (`str` or `os.PathLike`):
            Made if it is not there.
        model (`UOVPreTrainedModel`):
            Unwrapped. On several processes, only the main one calls this.
        processor (`UOVProcessor`):
            Told here whether the model has the text tower that its tokenizer is for.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processor.has_text_tower = model.config.has_teachers_text_tower
    with TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        temporary = Path(temporary)
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        _add_code(temporary)
        new = sorted(file.name for file in temporary.iterdir() if file.name != "config.json")
        for name in new:
            (temporary / name).replace(folder / name)
        for stale in {file for pattern in WEIGHT_FILES for file in folder.glob(pattern) if file.name not in new}:
            stale.unlink()
        (temporary / "config.json").replace(folder / "config.json")


def _add_code(folder: Path) -> None:
    """What `register_for_auto_class` would add, without a lasting mark on the classes."""
    for file in {sys.modules[c.__module__].__file__ for c in (MODEL_CLASSES | PROCESSOR_CLASSES).values()}:
        for source in [file, *get_relative_import_files(file)]:
            shutil.copy(source, folder)
    _edit_json(folder / "config.json", MODEL_CLASSES)
    _edit_json(folder / "processor_config.json", PROCESSOR_CLASSES, also_in="feature_extractor")


def _edit_json(file: Path, classes: dict[str, type], also_in: str | None = None) -> None:
    """Say in `file` which class of which module stands behind each Auto class."""
    auto_map = {name: f"{c.__module__.split('.')[-1]}.{c.__name__}" for name, c in classes.items()}
    content = json.loads(file.read_text(encoding="utf-8"))
    content["auto_map"] = auto_map
    if also_in is not None:
        content[also_in]["auto_map"] = auto_map
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
