"""Everything runs offline; real samples are used where they lie beside the checkout, and skipped clearly where not."""

import os
import runpy
import shutil
from pathlib import Path

import fake_gpu  # registers its device before autograd first runs
import pytest
import torch


os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def set_num_threads():
    """`torch.set_num_threads`, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def traffic():
    """A fake GPU and its counts."""
    with fake_gpu.FakeGPU() as traffic:
        yield traffic


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples (nuScenes, SemanticKITTI, …): not in the repository, because they may not be redistributed."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real samples are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_street(tmp_path_factory) -> Path:
    """A nuScenes root of two scenes (train: scene-9001, test: scene-9002) of two frames. Do not write into it."""
    from uov_hf.synthetic import generate_street

    return generate_street(
        tmp_path_factory.mktemp("street"),
        num_scenes=2,
        frames_per_scene=2,
        image_size=(64, 112),
        azimuth_steps=120,
        splits={"train": 1, "test": 1},
    )


@pytest.fixture(scope="session")
def other_street(tiny_street, tmp_path_factory) -> Path:
    """The same scenes and frame ids, with two thirds of the points of each scan. Do not write into it."""
    import numpy as np

    root = shutil.copytree(tiny_street, tmp_path_factory.mktemp("other_street") / "street")
    for pattern, dtype, num_columns in (("samples/LIDAR_TOP/*.bin", "float32", 5), ("lidarseg/*/*.bin", "uint8", 1)):
        for path in root.glob(pattern):
            rows = np.fromfile(path, dtype).reshape(-1, num_columns)
            rows[: len(rows) * 2 // 3].tofile(path)
    return root


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    """A tiny random CLIP of 8 dimensions, with its tokenizer and image processor. Do not write into it."""
    folder = tmp_path_factory.mktemp("clip")
    example = runpy.run_path(str(REPOSITORY / "examples" / "make_tiny_clip.py"))
    example["save_tiny_clip"](str(folder), projection_dim=8)
    return folder


@pytest.fixture(scope="session")
def street_labels(tiny_street, tmp_path_factory) -> Path:
    """The synthetic teacher's labels of every frame of the tiny street. Do not write into it."""
    from labelled_street import label_street

    return label_street(tiny_street, tmp_path_factory.mktemp("street_labels") / "labels")


@pytest.fixture(scope="session")
def other_labels(other_street, tmp_path_factory) -> Path:
    """The same of the other street. Do not write into it."""
    from labelled_street import label_street

    return label_street(other_street, tmp_path_factory.mktemp("other_labels") / "labels")


@pytest.fixture(scope="session")
def tiny_segmenter(tmp_path_factory) -> Path:
    """A tiny random checkpoint with the classes car, road and tree. Do not write into it."""
    from uov_hf import (
        UOVConfig,
        UOVFeatureExtractor,
        UOVForSemanticSegmentation,
        UOVModel,
        UOVProcessor,
        save_checkpoint,
    )

    folder, words = tmp_path_factory.mktemp("tiny_segmenter"), ["car", "road", "tree"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        uov = UOVModel(UOVConfig.from_preset("tiny", projection_dim=8))
        embeds = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    uov.set_classes(words, embeds, torch.arange(3), words)
    model = UOVForSemanticSegmentation.from_backbone(uov, head="text")
    save_checkpoint(folder, model, UOVProcessor.from_teacher(UOVFeatureExtractor()))
    return folder
