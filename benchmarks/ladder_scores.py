"""How the rungs of the ladder do in the test towns."""

import json
from pathlib import Path

import numpy as np
import torch
from ladder_trainings import PRESET, TRAININGS, demo  # beside this file
from ladder_words import HELD_OUT

from uov_hf import UOVForSemanticSegmentation, UOVProcessor
from uov_hf.configuration_uov import IGNORED
from uov_hf.data import load_frames
from uov_hf.evaluation.reports import to_results, write_results
from uov_hf.evaluation.segmentation import LabelledScan, LabelledScans, score_segmenter
from uov_hf.labels import LabelSet, PointLabels
from uov_hf.vocabulary import load_vocabulary


CLASS_NAMES = load_vocabulary("nuscenes").class_names


def score_rungs(folder: Path, seed: int) -> dict[str, dict]:
    """The metrics of every rung of a seed, by region; also written to `scores.json`."""
    scans, processor = read_scans(folder), UOVProcessor.from_pretrained(folder / "tmp")
    as_the_paper = UOVProcessor.from_pretrained(folder / "tmp")
    as_the_paper.afi = {}
    models = {name: load_model(folder / name) for name in TRAININGS}
    torch.manual_seed(seed)
    models["untrained"] = demo.untrained(models["tmp"], LabelSet(folder / "labels"))
    contestants = {name: demo.answers_of(model, processor) for name, model in models.items()}
    contestants["distilled_afi_paper"] = demo.answers_of(models["distilled"], as_the_paper, "afi")
    contestants["distilled_afi"] = demo.answers_of(models["distilled"], processor, "afi")
    results = {name: score(scans, segmenter) for name, segmenter in contestants.items()}
    for preset in ("paper", PRESET):
        said = PointLabels(folder / "labels", preset)
        spoken = score(scans, lambda scan, said=said: said.read(scan.frame_id, ["labels"])["labels"])
        results[f"teacher_{preset}"] = {"seen_points": spoken["seen_points"]}
    write_results(folder / "scores.json", results)
    return results


def score_held_out(folder: Path) -> dict[str, dict]:
    """The held-out classes and the mean of the others, by the text heads with and without them; and their shares."""
    scans, processor = read_scans(folder), UOVProcessor.from_pretrained(folder / "tmp")
    models = {"held_out": ask_all_words(folder), "learnt": load_model(folder / "text_head")}
    results = {name: score_words(scans, demo.answers_of(model, processor)) for name, model in models.items()}
    truth = np.concatenate([scan.labels for scan in scans])
    counts = np.bincount(truth[truth != IGNORED], minlength=len(CLASS_NAMES))
    results["prevalence"] = {name: counts[CLASS_NAMES.index(name)] / counts.sum() for name in HELD_OUT}
    write_results(folder / "words.json", results)
    return results


def score_checkpoint(folder: Path, name: str) -> float:
    """Mean IoU of one checkpoint on all points; kept beside it."""
    path = folder / name / "scores.json"
    if not path.exists():
        segmenter = demo.answers_of(load_model(folder / name), UOVProcessor.from_pretrained(folder / "tmp"))
        write_results(path, score(read_scans(folder), segmenter))
    return json.loads(path.read_text())["all_points"]["mean_iou"]


def read_scans(folder: Path) -> list[LabelledScan]:
    """The scans of the test towns, with the truth, and with what the five cameras see."""
    frames = load_frames("nuscenes", "test", data_dir=folder / "street")
    feature_extractor = UOVProcessor.from_pretrained(folder / "tmp").feature_extractor
    scans = LabelledScans(frames, feature_extractor, PointLabels(folder / "labels", "paper"), demo.MIN_RANGE)
    return [scans[index] for index in range(len(scans))]


def load_model(checkpoint: Path) -> UOVForSemanticSegmentation:
    return UOVForSemanticSegmentation.from_pretrained(checkpoint).eval()


def score(scans: list[LabelledScan], segmenter: demo.Segmenter) -> dict[str, dict]:
    """The metrics of what a segmenter says, by region."""
    return to_results(score_segmenter(segmenter, scans, len(CLASS_NAMES)))


def ask_all_words(folder: Path) -> UOVForSemanticSegmentation:
    """The text head that never heard of two classes, asked for all of them."""
    model, everything = load_model(folder / "text_head_held_out"), LabelSet(folder / "labels")
    prompt_embeds = torch.from_numpy(everything.prompt_embeds)
    model.uov.set_classes(everything.class_names, prompt_embeds, everything.prompt_to_class, everything.prompts)
    return model


def score_words(scans: list[LabelledScan], segmenter: demo.Segmenter) -> dict:
    """IoU of each held-out class on all points, and the mean IoU of the others."""
    iou = dict(zip(CLASS_NAMES, score(scans, segmenter)["all_points"]["per_category_iou"], strict=True))
    others = [value for name, value in iou.items() if name not in HELD_OUT and value is not None]
    return {"iou": {name: iou[name] for name in HELD_OUT}, "others": float(np.mean(others))}
