"""Segment and name the objects in images of a folder or a dataset with a 2D teacher.

For each image it writes <name>.png with the segment ids (0 = none), <name>.json with word, class, score and size of
each segment, and <name>.overlay.png. examples/generate_label_set.py makes label sets for training.

examples:
  uov-hf label-images photos/ --words "car, road, tree" --teacher clip \\
      --teacher_model_name_or_path openai/clip-vit-base-patch16 --output_dir out/photos
  uov-hf label-images --dataset nuscenes --data_dir out/demo/street --split all --teacher synthetic --max_frames 1
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

    from uov_hf.data.frames import Frame
    from uov_hf.image_files import EncodedImage
    from uov_hf.labels.segments import SegmentRow
    from uov_hf.teachers import Teacher

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
RESULT_SUFFIXES = (".png", ".json", ".overlay.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path, help="image files, or folders of them; or give --dataset")
    parser.add_argument("--dataset", help="a dataset script, its short name, a Parquet folder, or a Hub id")
    parser.add_argument("--data_dir", help="root folder of the raw dataset")
    parser.add_argument("--dataset_config", help="such as v1.0-mini; default: the only one in --data_dir")
    parser.add_argument("--split", help="default: what fits the configuration")
    parser.add_argument("--max_frames", type=parse_count, help="number of frames of the dataset; default: all")
    parser.add_argument("--words", help='words to predict, such as "car, road, tree"')
    parser.add_argument("--vocabulary", help="instead of --words; see `uov-hf vocabulary`; default: nuscenes")
    teachers = "an unknown name lists all; your own: path/to/file.py:ClassName; default: %(default)s"
    parser.add_argument("--teacher", default="clip", help=teachers)
    parser.add_argument("--trust_teacher_code", action="store_true", help="run the Python file that --teacher names")
    parser.add_argument("--teacher_model_name_or_path", help="Hub id or folder of the teacher's weights")
    parser.add_argument("--teacher_revision", help="branch, tag or commit of the teacher on the Hub")
    settings = "arguments of this teacher, such as short_side=640"
    parser.add_argument(
        "--teacher_settings", nargs="*", type=parse_setting, default=[], metavar="NAME=VALUE", help=settings
    )
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--device", help="such as cuda:0 or cpu; default: the GPU where there is one")
    parser.add_argument("--output_dir", type=Path, default=Path("label_images"), help="default: %(default)s")


def parse_count(text: str) -> int:
    """A whole number of at least 1."""
    from uov_hf.counts import positive_int  # here, because `--help` imports nothing

    return positive_int(text)


def parse_setting(text: str) -> tuple[str, Any]:
    """`name=value`; the value is JSON, or text if it is no valid JSON."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def run(args: argparse.Namespace) -> Iterable[str]:
    import torch
    from tqdm.auto import tqdm

    from uov_hf.data import load_frames
    from uov_hf.labels.segments import segment_frame
    from uov_hf.teachers import find_teacher, load_teacher

    if bool(args.images) == bool(args.dataset):
        raise ValueError("give either images or --dataset.")
    teacher_class = find_teacher(args.teacher, args.trust_teacher_code)
    prompts, meanings, colors = _find_words(args, teacher_class)
    frames: Sequence[Frame]
    if args.images:
        frames = list(_find_images(args.images))
        _check_results(frames, args.output_dir)
    else:
        all_frames = load_frames(args.dataset, args.split, args.data_dir, args.dataset_config)
        frames = all_frames.select(range(min(args.max_frames or len(all_frames), len(all_frames))))
    teacher = load_teacher(
        teacher_class,
        args.teacher_model_name_or_path,
        prompts=prompts,
        revision=args.teacher_revision,
        data_dir=args.data_dir,
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=getattr(torch, args.dtype),
        **dict(args.teacher_settings),
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    num_images = 0
    for frame in tqdm(frames, unit="frame", disable=None):
        row = segment_frame(frame, teacher)
        for camera, name in enumerate(frame["camera_names"]):
            png = row["segmentation"][camera] or b""  # no camera was left out
            segments = _describe_segments(row, png, camera, prompts, meanings)
            path = args.output_dir / _file_name(frame, name)
            path.with_suffix(".png").write_bytes(png)
            about = {"image": frame["image_ids"][camera], "teacher": teacher.name, "segments": segments}
            path.with_suffix(".json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")
            overlay = _draw(frame["images"][camera], png, segments, colors)
            overlay.save(path.with_suffix(".overlay.png"))
            words = dict.fromkeys(segment["word"] for segment in segments)
            yield f"{path.with_suffix('.json')}: {len(segments)} segments: {', '.join(words)}"
            num_images += 1
    if not num_images:
        raise ValueError(
            f"{args.dataset}: expected images to label, got none in {len(frames)} frames of the split. Give another "
            "--split, or a dataset with camera images."
        )


def _find_words(
    args: argparse.Namespace, teacher_class: "type[Teacher]"
) -> "tuple[list[str], list[str], dict[str, np.ndarray]]":
    """The prompts, the class of each prompt, and the colours of classes."""
    from uov_hf.segmenting import class_colors
    from uov_hf.vocabulary import load_vocabulary
    from uov_hf_cli.vocabulary import class_names

    if args.words and args.vocabulary:
        raise ValueError("give either --words or --vocabulary.")
    if args.words:
        words = [word.strip() for word in args.words.split(",")]
        if not all(words) or len(set(words)) < len(words):
            raise ValueError(f"--words: expected different words separated by commas, got {args.words!r}.")
        return words, words, dict(zip(words, class_colors(words), strict=True))
    vocabulary = teacher_class.fit_vocabulary(
        load_vocabulary(args.vocabulary or "nuscenes"), args.teacher_model_name_or_path, args.teacher_revision
    )
    names = class_names(vocabulary)
    meanings = [names[int(class_id)] for class_id in vocabulary.prompt_to_class]
    return vocabulary.prompts, meanings, dict(zip(vocabulary.class_names, vocabulary.colors, strict=True))


def _find_images(sources: list[Path]) -> "Iterator[Frame]":
    """Each image as a frame of one camera.

    Raises:
        ValueError: If a folder has no image, or a file is none.
    """
    import numpy as np

    from uov_hf.image_files import read_image_size

    for source in sources:
        found = [source]
        if source.is_dir():
            found = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise ValueError(f"{source}: expected images ({', '.join(IMAGE_SUFFIXES)}), found none.")
        for path in found:
            yield {
                "frame_id": path.stem,
                "camera_names": [""],
                "image_ids": [path.name],
                "images": [{"bytes": None, "path": str(path)}],
                "image_sizes": np.array([read_image_size(path)], np.int32),
            }


def _check_results(frames: "Sequence[Frame]", folder: Path) -> None:
    """Check that no result overwrites an image or the result of another image.

    Raises:
        ValueError: If one does.
    """
    images = [Path(frame["images"][0]["path"] or "").resolve() for frame in frames]
    owners: dict[Path, Path] = {}
    for frame, image in zip(frames, images, strict=True):
        for suffix in RESULT_SUFFIXES:
            target = (folder / _file_name(frame, "")).with_suffix(suffix)
            if target.resolve() in images:
                raise ValueError(f"{target}: a result would overwrite this image: give another --output_dir.")
            if owners.setdefault(target, image) != image:
                raise ValueError(f"{target}: the results of {owners[target]} and {image} would overwrite each other.")


def _file_name(frame: "Frame", camera: str) -> str:
    name = "_".join(filter(None, [frame["frame_id"], camera])).replace("/", "_").replace("\\", "_")
    return f"{name}.json"  # a suffix, so that `with_suffix` never takes a part of the name


def _describe_segments(
    row: "SegmentRow", png: bytes, camera: int, prompts: list[str], meanings: list[str]
) -> list[dict[str, Any]]:
    import numpy as np

    from uov_hf.labels.segments import decode_segmentation

    sizes = np.bincount(decode_segmentation(png).ravel(), minlength=len(row["segment_camera"]) + 1)
    return [
        {
            "id": int(index) + 1,
            "word": prompts[row["segment_labels"][index]],
            "class": meanings[row["segment_labels"][index]],
            "score": round(float(row["segment_scores"][index]), 4),
            "num_pixels": int(sizes[index + 1]),
        }
        for index in np.flatnonzero(np.asarray(row["segment_camera"]) == camera)
    ]


def _draw(
    image: "EncodedImage", png: bytes, segments: list[dict[str, Any]], colors: "dict[str, np.ndarray]"
) -> "PIL.Image.Image":
    """The image under the colours of its segments' classes, with a legend below."""
    import numpy as np
    from PIL import Image

    from uov_hf.image_files import decode_image
    from uov_hf.labels.segments import decode_segmentation
    from uov_hf.pictures.visualization import draw_legend, tile

    ids, pixels = decode_segmentation(png), np.asarray(decode_image(image))
    classes = {name: colors.get(name, np.full(3, 128)) for name in dict.fromkeys(s["class"] for s in segments)}
    shades = np.zeros((ids.max(initial=0) + 1, 3))
    for segment in segments:
        shades[segment["id"]] = classes[segment["class"]]
    opacity = 0.55 * np.isin(ids, [segment["id"] for segment in segments])[..., None]
    picture = Image.fromarray(np.rint((1 - opacity) * pixels + opacity * shades[ids]).astype(np.uint8))
    return tile([picture, draw_legend([(name, color.tolist()) for name, color in classes.items()])], num_columns=1)
