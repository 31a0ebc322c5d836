"""Samples per second of pre-training's data: label sets and point labels against the official code's way, in one run.

    python benchmarks/tmp_samples.py

Both make the batch of a frame, with the same augmentation and voxels, from one synthetic nuScenes root with images of
900 x 1600, 1084 x 32 beams and 768-d embeddings. The official way (docs/method.md, sections 1.3 to 1.7, 2.1 and 4.1)
decodes and resizes six JPEGs and six PNGs, and loads a JSON and a .pt per camera. They take turns, frame by frame.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.labels import LabelSet, PointLabels, decode_segmentation, label_points
from uov_hf.synthetic import generate_street
from uov_hf.teachers import Teacher, load_teacher
from uov_hf.training.augmentation import AugmentationConfig, drop_cuboid, inside_box, random_box, rotated
from uov_hf.training.collation import collate_tmp
from uov_hf.training.samples import TMPSamples
from uov_hf.vocabulary import load_vocabulary


EMBED_DIM = 768
AUGMENTATION = AugmentationConfig()


class WideTeacher(Teacher):
    """The synthetic teacher, its embeddings carried from 64 to the 768 dimensions of the official teachers."""

    name, embed_dim, settings = "wide", EMBED_DIM, {}

    def __init__(self, prompts: list[str], data_dir: str):
        super().__init__(prompts, data_dir=data_dir)
        self.synthetic = load_teacher("synthetic", prompts=prompts, data_dir=data_dir)

    def encode_prompts(self, prompts):
        return self._widen(self.synthetic.encode_prompts(prompts))

    def segment(self, frame):
        return [replace(answer, embeds=self._widen(answer.embeds)) for answer in self.synthetic.segment(frame)]

    def _widen(self, embeds):
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(EMBED_DIM, embeds.shape[1])))[0]
        return (embeds @ basis.T).astype(np.float32)


class OfficialSamples:
    """What `pretrain/dataloader_nuscenes_ov.py` and `utils/transforms.py` of the official code do for a frame."""

    def __init__(self, frames, folder: Path, feature_extractor: UOVFeatureExtractor):
        self.frames, self.folder, self.feature_extractor = frames, folder, feature_extractor

    def batch(self, epoch: int, index: int) -> dict[str, torch.Tensor]:
        frame = self.frames[index]
        generator = np.random.default_rng([0, epoch, index])
        order = generator.permutation(len(frame["camera_names"]))  # cameras are shuffled
        points, images, masks, table, pairs = frame["points"].copy(), [], [], [], []
        for place, camera in enumerate(order):
            images.append(np.asarray(Image.open(frame["images"][camera]["path"]).convert("RGB")) / 255)
            stem = self.folder / frame["image_ids"][camera]
            masks.append(np.array(Image.open(stem.with_suffix(".png"))))
            table.append(self._mask_table(stem, place))
            pairs.append(self._pairs(points, frame, camera, place))
        images = torch.tensor(np.array(images, dtype=np.float32).transpose(0, 3, 1, 2))  # (6, 3, 900, 1600)
        masks = torch.tensor(np.array(masks))  # (6, 900, 1600)
        pairs = {name: np.concatenate([one[name] for one in pairs]) for name in pairs[0]}

        points[:, :2] = rotated(points[:, :2], generator.uniform(0, 2 * np.pi)) * generator.choice([-1, 1], size=2)
        points, pairs = drop_cuboid(points, pairs, AUGMENTATION, generator)
        images, masks, pairs = self._resized_crops(images, masks, pairs, generator)
        images, masks, pairs = self._flips(images, masks, pairs, generator)
        voxels = self.feature_extractor(points, return_tensors="pt")
        return {
            **voxels,
            "images": images,
            "masks": masks.to(torch.uint8),
            "mask_table": torch.cat(table),
            "pairing_points": voxels["point_to_voxel"][pairs["pair_to_point"]],
            "pairing_images": torch.from_numpy(np.insert(pairs["pair_pixel"][:, ::-1], 0, pairs["pair_camera"], 1)),
        }

    def _mask_table(self, stem: Path, place: int) -> torch.Tensor:
        """Image, mask, prompt and feature of every mask, (S, 3 + 768) float64."""
        segments = json.loads(stem.with_suffix(".json").read_text())
        features = torch.load(stem.with_suffix(".pt"), weights_only=True)[1:].double()
        columns = [[place, segment["id"] - 1, segment["category_id"]] for segment in segments]
        return torch.cat([torch.tensor(columns, dtype=torch.float64), normalize(features, dim=1)], dim=1)

    def _pairs(self, points: np.ndarray, frame: dict, camera: int, place: int) -> dict[str, np.ndarray]:
        """Section 1.4, but for the three further motions between lidar and camera that `lidar2cam` has composed."""
        motion, (height, width) = frame["lidar2cam"][camera], frame["image_sizes"][camera]
        in_camera = points[:, :3] @ motion[:3, :3].T + motion[:3, 3]
        pixels = in_camera @ frame["intrinsics"][camera].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        seen = (in_camera[:, 2] > 1) & (pixels > 0).all(axis=1) & (pixels < [width - 1, height - 1]).all(axis=1)
        row = np.flatnonzero(seen)
        return {
            "pair_to_point": row,
            "pair_camera": np.full(len(row), place),
            "pair_pixel": np.rint(pixels[row]).astype(np.int64),
        }

    def _resized_crops(self, images, masks, pairs, generator):
        height, width = AUGMENTATION.crop_size
        kept, pixels = np.ones(len(pairs["pair_camera"]), bool), pairs["pair_pixel"].astype(np.float64)
        new_images, new_masks = [], []
        for place in range(len(images)):
            here = np.flatnonzero(pairs["pair_camera"] == place)
            for _ in range(AUGMENTATION.max_redraws):
                box = random_box(images.shape[2:], AUGMENTATION, generator)
                inside = inside_box(pairs["pair_pixel"][here], box, AUGMENTATION.crop_size)
                if inside.sum() > AUGMENTATION.min_pairs or inside.mean() > AUGMENTATION.min_pair_share:
                    break
            left, top, w, h = box
            image = images[place : place + 1, :, top : top + h, left : left + w]
            mask = masks[place, top : top + h, left : left + w]
            new_images.append(interpolate(image, size=(height, width), mode="bilinear"))
            new_masks.append(interpolate(mask[None, None].float(), size=(height, width), mode="nearest")[0].byte())
            kept[here] = inside
            pixels[here] = np.rint((pixels[here] - [left, top]) * [width / w, height / h])
        pairs = pairs | {"pair_pixel": pixels.astype(np.int64)}
        return torch.cat(new_images), torch.cat(new_masks), {name: values[kept] for name, values in pairs.items()}

    def _flips(self, images, masks, pairs, generator):
        for place in np.flatnonzero(generator.random(len(images)) < 0.5):
            images[place], masks[place] = images[place].flip(-1), masks[place].flip(-1)
            here = pairs["pair_camera"] == place
            pairs["pair_pixel"][here, 0] = AUGMENTATION.crop_size[1] - 1 - pairs["pair_pixel"][here, 0]
        return images, masks, pairs


def write_official_folder(folder: Path, frames, label_set: LabelSet) -> None:
    """`<image id>.png`, `.json` and `.pt` of every image (section 2.1)."""
    folder.mkdir(parents=True)
    for frame in frames.select_columns(["frame_id", "image_ids"]):
        said = label_set.read(frame["frame_id"])
        for camera, image_id in enumerate(frame["image_ids"]):
            rows = np.flatnonzero(said["segment_camera"] == camera)
            segmentation = decode_segmentation(said["segmentation"][camera]).astype(np.int64)
            segmentation = np.where(segmentation > 0, segmentation - rows.min(initial=len(said)), 0)
            Image.fromarray(segmentation.astype(np.uint8)).save(folder / f"{image_id}.png")
            categories = said["segment_labels"][rows].tolist()
            segments = [{"id": i, "category_id": label, "area": 0} for i, label in enumerate(categories, 1)]
            (folder / f"{image_id}.json").write_text(json.dumps(segments))
            features = np.insert(said["segment_embeds"][rows].astype(np.float32), 0, 0, axis=0)
            torch.save(torch.from_numpy(features), folder / f"{image_id}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_frames", type=int, default=4)
    parser.add_argument("--num_rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args.num_frames, args.num_rounds)


def measure(folder: Path, num_frames: int, num_rounds: int) -> None:
    vocabulary = load_vocabulary("nuscenes")
    root = generate_street(
        folder / "root", num_scenes=1, frames_per_scene=num_frames, image_size=(900, 1600), azimuth_steps=1084
    )
    frames = load_frames("nuscenes", split="all", data_dir=root)
    teacher = WideTeacher(vocabulary.prompts, data_dir=str(root))
    label_set = LabelSet.create(folder / "labels", teacher, vocabulary, settings={})
    label_set.write(frames, teacher)
    report = label_points(label_set, frames)
    write_official_folder(folder / "official", frames, label_set)

    feature_extractor = UOVFeatureExtractor()
    official = OfficialSamples(frames, folder / "official", feature_extractor)
    ours = TMPSamples(frames, label_set, PointLabels(label_set.folder), feature_extractor, AUGMENTATION)
    seconds = {"official": [], "ours": []}
    for epoch in range(num_rounds + 1):
        for index in range(len(frames)):
            start = time.perf_counter()
            official.batch(epoch, index)
            middle = time.perf_counter()
            batch = collate_tmp([ours[epoch, index]])
            end = time.perf_counter()
            if epoch:  # the first round fills caches
                seconds["official"].append(middle - start)
                seconds["ours"].append(end - middle)

    points, pairs = int(batch["num_points"].sum()), len(batch["pair_to_point"])
    print(f"{len(frames)} frames of about {points} points, {pairs} pairs, {len(batch['segment_labels'])} segments")
    for name, times in seconds.items():
        print(f"{name:>9}: {1 / np.mean(times):7.2f} samples/s, {1000 * np.median(times):7.1f} ms (median)")
    print(f"    ratio: {np.mean(seconds['official']) / np.mean(seconds['ours']):7.2f}")
    print(f"one-time cost of label_points: {1000 * report.seconds / report.num_frames:.1f} ms per frame")


if __name__ == "__main__":
    main()
