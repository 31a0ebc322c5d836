"""Small files of models: checkpoints, official `.pt` files, and predictions for the teacher `files`."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from common import REPOSITORY
from fuzz_scans import NUSCENES
from PIL import Image

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForSemanticSegmentation, UOVModel, UOVProcessor, save_checkpoint
from uov_hf.convert import convert_checkpoint
from uov_hf.segmenting import load_segmenter
from uov_hf.teachers import load_teacher


sys.path.append(str(REPOSITORY / "tests" / "convert"))

SIZE = (12, 16)
PROMPTS = ["car", "road", "tree"]
IDS = np.repeat([[1, 2]], 8, axis=1).repeat(12, axis=0).astype(np.uint8)
FRAME = {
    "frame_id": "f",
    "camera_names": ["CAM"],
    "image_ids": ["token"],
    "images": [{"bytes": None, "path": "absent/token.jpg"}],
    "image_sizes": np.array([SIZE]),
}


def save_ids(path: Path, ids: np.ndarray = IDS) -> None:
    """As a BMP without a checksum, whose changes are read; Pillow opens it by its content."""
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(ids).save(path, "BMP")


def make_teacher_files(folder: Path) -> None:
    """A folder of each layout."""
    segments = [{"id": 1, "category_id": 0, "score": 0.5}, {"id": 2, "category_id": 1}]
    categories = [{"id": 0, "name": "car"}, {"id": 1, "name": "road"}]
    for layout in ("uov", "panoptic"):
        save_ids(folder / layout / "token.png")
        (folder / layout / "token.json").write_text(json.dumps({"segments_info": segments}))
    torch.save(torch.eye(3), folder / "uov" / "text_embedding.pt")
    torch.save([torch.eye(3), torch.eye(3)], folder / "uov" / "token.pt")
    (folder / "panoptic" / "categories.json").write_text(json.dumps(categories))
    save_ids(folder / "coco" / "val" / "token.png")
    annotation = {"image_id": "token", "file_name": "token.png", "segments_info": segments}
    images = [{"id": "token", "file_name": "token.jpg"}]
    content = {"annotations": [annotation], "categories": categories, "images": images}
    (folder / "coco" / "val.json").write_text(json.dumps(content))
    save_ids(folder / "semantic" / "token_labels.png", IDS - 1)
    save_ids(folder / "semantic" / "token_scores.png", IDS * 100)
    np.savez(folder / "semantic" / "token_probs.npz", probs=np.full((2, 3, 4), 90, np.uint8))
    (folder / "semantic" / "classes.json").write_text(json.dumps(PROMPTS[:2]))


def read_teacher_files(folder: Path, path: Path) -> None:
    layout = path.relative_to(folder).parts[0]
    teacher = load_teacher("files", str(folder / layout), prompts=PROMPTS)
    teacher.segment(FRAME)
    teacher.fit_vocabulary(NUSCENES, str(folder / layout))


SMALL = {"hidden_sizes": [4] * 8, "depths": [1] * 8, "stem_channels": 4, "projection_dim": 6}


def make_official(folder: Path) -> None:
    """A whole network, most of its tensors, and one tensor: the last two are read, and not converted."""
    from official_tensors import official_tensors

    settings = {"voxel_size": 0.1, "bn_momentum": 0.05, "rate": np.float64(0.5)}
    whole = official_tensors(17, stem=1, widths=[1] * 8, depths=[1] * 8)
    tensors = {name: value for name, value in whole.items() if "bn" not in name}
    torch.save({"model_points": tensors, "config": settings}, folder / "model.pt")
    few = {"model_points": dict([*tensors.items()][:1])}
    torch.save(few, folder / "old.pt", _use_new_zipfile_serialization=False)
    # Without an archive, whose headers are larger than such tensors: the fuzzing cuts long files.
    torch.save({"model_points": whole, "config": settings}, folder / "whole.pt", _use_new_zipfile_serialization=False)


def read_official_file(folder: Path, path: Path) -> None:
    sizes = {"hidden_sizes": [1] * 8, "depths": [1] * 8, "stem_channels": 1}
    convert_checkpoint(path, folder / "converted", config=UOVConfig(**sizes))


def make_checkpoint(folder: Path) -> None:
    """A folder of each head, and one of each form of the weights."""
    processor = UOVProcessor.from_teacher(UOVFeatureExtractor())
    for head, max_shard_size in (("linear", None), ("text", "5KB")):
        uov = UOVModel(UOVConfig(**SMALL))
        embeds = torch.nn.functional.normalize(torch.ones(2, 6), dim=1)
        uov.set_classes(["car", "tree"], embeds, torch.tensor([0, 1]), ["car", "tree"])
        model = UOVForSemanticSegmentation.from_backbone(uov, head)
        save_checkpoint(folder / head, model, processor, max_shard_size=max_shard_size)


def read_checkpoint(folder: Path, path: Path) -> None:
    segmenter = load_segmenter(folder / path.relative_to(folder).parts[0])
    with suppress(ValueError):  # finite weights may give scores that are not
        segmenter({"points": np.ones((4, 4), np.float32), "intensity_max": 255.0}, refine=None)
