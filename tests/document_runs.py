"""Run the commands of the documents as a user would, on little data: the files of that user, and the runs."""

import argparse
import os
import pkgutil
import runpy
import sys
import tomllib
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path

from document_blocks import REPOSITORY
from forks import write_output_to


# Options added to those in a document, for the smallest complete run.
SMALLEST = {
    "examples/pretrain.py": ["--preset", "tiny", "--max_train_steps", "1", "--dataloader_num_workers", "0"],
    "examples/distill.py": ["--max_train_steps", "1", "--per_device_train_batch_size", "1"],
    "examples/finetune.py": ["--max_train_steps", "1", "--per_device_train_batch_size", "1", "--data_fraction", "1"],
    "uov_hf.synthetic": ["--frames_per_scene", "2"],
    "uov-hf train": ["--set", "distill.max_train_steps=1"],
}
ENTRY_POINT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]["uov-hf"]
CLIP = "openai/clip-vit-large-patch14-336"
OFFICIAL_SCENES = {"scene-9001": "scene-0061", "scene-9002": "scene-0008", "scene-9003": "scene-0003"}
TINY_STREET = {"frames_per_scene": 2, "image_size": (64, 112), "azimuth_steps": 120}


def save_nuscenes(path: Path) -> None:
    """The street as a part of v1.0-trainval: one scene each of `parametrizing`, `verifying` and `val`."""
    from uov_hf.synthetic import generate_street

    generate_street(path, num_scenes=3, version="v1.0-trainval", **TINY_STREET)
    scenes = path / "v1.0-trainval" / "scene.json"
    text = scenes.read_text()
    for name, official in OFFICIAL_SCENES.items():
        text = text.replace(name, official)
    scenes.write_text(text)
    (path / "splits.json").unlink()


def save_kitti(path: Path) -> None:
    from uov_hf.synthetic import generate_semantic_kitti

    generate_semantic_kitti(path, num_scenes=3, splits={"train": 2, "val": 1}, **TINY_STREET | {"frames_per_scene": 6})


def save_scan(path: Path) -> None:
    from uov_hf.data import load_frames

    load_frames("nuscenes", "all", data_dir="data/nuscenes")[0]["points"].tofile(path)


def save_clip(path: Path) -> None:
    example = runpy.run_path(str(REPOSITORY / "examples" / "make_tiny_clip.py"))
    example["save_tiny_clip"](str(path))


def save_labels(path: Path) -> None:
    """The label set of the tiny CLIP, with the settings of the first command of the recipe."""
    save_label_set(path, "clip", teacher_name_or_path=CLIP)


def save_label_set(path: Path, teacher: str, vocabulary: str = "nuscenes", **settings):
    from uov_hf.data import load_frames
    from uov_hf.labels import LabelSet
    from uov_hf.teachers import load_teacher
    from uov_hf.vocabulary import load_vocabulary

    vocabulary, frames = load_vocabulary(vocabulary), load_frames("nuscenes", "all", data_dir="data/nuscenes")
    name_or_path = settings.pop("teacher_name_or_path", None)
    teacher = load_teacher(teacher, name_or_path, prompts=vocabulary.prompts, data_dir="data/nuscenes", **settings)
    label_set = LabelSet.create(path, teacher, vocabulary, settings={"cameras": None, "augmentations": []})
    label_set.write(frames, teacher)
    return label_set


def save_checkpoints(label_set, pretrained: Path, distilled: Path, head: str, clip: str | None = None) -> None:
    """Checkpoints as `pretrain.py` and `distill.py` write them, but untrained."""
    import torch

    from uov_hf import (
        UOVConfig,
        UOVFeatureExtractor,
        UOVForSemanticSegmentation,
        UOVModel,
        UOVProcessor,
        save_checkpoint,
    )
    from uov_hf.hub.cards import write_default_card

    torch.manual_seed(0)
    config = UOVConfig.from_preset("tiny", projection_dim=label_set.embed_dim, teacher=label_set.teacher_id)
    model, processor = UOVModel(config), UOVProcessor.from_teacher(UOVFeatureExtractor(), clip)
    words = label_set.class_names, torch.from_numpy(label_set.prompt_embeds), label_set.prompt_to_class
    model.set_classes(*words, label_set.prompts)
    save_checkpoint(pretrained, model, processor)
    save_checkpoint(distilled, UOVForSemanticSegmentation.from_backbone(model, head), processor)
    for folder in (pretrained, distilled):
        write_default_card(folder)


def save_recipe(path: Path) -> None:
    from uov_hf.labels import LabelSet

    save_checkpoints(LabelSet("labels"), path / "tmp", path / "uov", "linear", CLIP)


def save_demo(path: Path) -> None:
    label_set = save_label_set(path / "labels", "synthetic")
    save_checkpoints(label_set, path / "tmp", path / "uov", "text")
    save_scan(path / "scan.bin")


def save_cityscapes(path: Path) -> None:
    label_set = save_label_set(path / "labels", "clip", "cityscapes", teacher_name_or_path=CLIP)
    save_checkpoints(label_set, path / "tmp", path / "uov", "linear", CLIP)


def save_onnx(path: Path) -> None:
    from uov_hf_cli.__main__ import main

    main(["export", "out/demo/uov", "--format", "onnx", "--output_dir", str(path)])


def save_official(num_outputs: int, path: Path) -> None:
    """A file with the names and shapes of the official code, and random numbers."""
    import torch

    official = runpy.run_path(str(REPOSITORY / "tests" / "convert" / "official_tensors.py"))
    torch.save({"model_points": official["official_tensors"](num_outputs, **official["FULL"])}, path)


def save_photos(path: Path) -> None:
    from PIL import Image

    path.mkdir()
    for number, color in enumerate([(200, 180, 20), (40, 120, 60)], start=1):
        Image.new("RGB", (80, 60), color).save(path / f"tuk-tuk-{number}.jpg")


def save_bag(path: Path) -> None:
    import drives

    folder = drives.write_bag(drives.make_drive(), path.parent, "mcap")
    (folder / "drive.mcap").replace(path)


def save_calibration(path: Path) -> None:
    import small_car

    small_car.write_calibration(path.parent, small_car.calibration()).replace(path)


# The files of a reader, in the order in which they are made.
DISK: dict[str, Callable[[Path], None]] = {
    "data/nuscenes": save_nuscenes,
    "data/kitti": save_kitti,
    "scan.bin": save_scan,
    CLIP: save_clip,
    "labels": save_labels,
    "photos": save_photos,
    "out": save_recipe,
    "out/demo": save_demo,
    "out/onnx": save_onnx,
}
# Made only for pages that contain the name: they are large, or take time.
ON_DEMAND = {
    "out/cityscapes": save_cityscapes,
    "drive.mcap": save_bag,
    "kitti.yaml": save_calibration,
    "AFOV_pretrain_san.pt": partial(save_official, 768),
    "AFOV_af_with_pretrain_san.pt": partial(save_official, 17),
}


def prepare(folder: Path) -> None:
    """Make everything of `DISK` in a folder, and link the programs of this repository."""
    for room in ("examples", "dataset_scripts", "benchmarks"):
        (folder / room).symlink_to(REPOSITORY / room)
    with chdir(folder):
        for name, save in DISK.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            save(Path(name))


def run(context, words: list[str], folder: Path, arguments_only: bool = False) -> tuple[int, str]:
    """Run a program of this repository as `[script.py or -m module or uov-hf, arguments …]`.

    Returns:
        Its exit status, and its output. With `arguments_only` it ends after its parser has accepted them.
    """
    log = folder / ".output"
    log.unlink(missing_ok=True)
    process = context.Process(target=_run, args=(words, str(folder), str(log), arguments_only))
    process.start()
    process.join()
    return process.exitcode, log.read_text(errors="replace")


class _AcceptedArguments(Exception):
    pass


def _run(words: list[str], folder: str, log: str, arguments_only: bool) -> None:
    os.chdir(folder)
    write_output_to(log)
    os.environ |= {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "MPLBACKEND": "agg"}
    name, *arguments = words[1:] if words[0] == "-m" else words
    program = " ".join(words[:2]) if name == "uov-hf" else name
    sys.argv = [name, *arguments, *([] if arguments_only else SMALLEST.get(program, []))]
    if arguments_only:
        _stop_after_arguments()
    try:
        if words[0].endswith(".py"):
            sys.path.insert(0, str(Path(name).resolve().parent))
            runpy.run_path(name, run_name="__main__")
        elif words[0] == "-m":
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            sys.exit(pkgutil.resolve_name(ENTRY_POINT)())
    except _AcceptedArguments:
        sys.exit(0)


def _stop_after_arguments() -> None:
    accept, passes = argparse.ArgumentParser.parse_args, []

    def parse_args(parser, *arguments, **options):
        given = accept(parser, *arguments, **options)
        passes.append(given)
        if getattr(given, "settings_file", None) is None or len(passes) > 1:  # a file is read between two passes
            raise _AcceptedArguments
        return given

    argparse.ArgumentParser.parse_args = parse_args
