"""Draw the pictures of the documents: a street that the demo's checkpoint was not trained on, segmented by it.

    make demo && make browser
    python docs/figures/make_figures.py --model_name_or_path out/demo/uov

All sensor data is synthetic. The scan has 32 beams with twice the firings of nuScenes, for a denser picture.
Without Chromium the picture of the viewer is left as it is, and the command prints so.
"""

import argparse
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from transformers import pipeline

from uov_hf.data import load_frames
from uov_hf.geometry.occlusion import OcclusionConfig
from uov_hf.geometry.projection import Camera, project_points, visible_points
from uov_hf.image_files import decode_image
from uov_hf.pictures.scan_colors import label_colors
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_camera_overlays, draw_range_image
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


FIGURES = Path(__file__).parent
SEED = 77  # the demo's towns have other seeds
FRONT = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = generate_street(
            Path(folder) / "street",
            num_scenes=1,
            frames_per_scene=1,
            seed=SEED,
            image_size=(360, 640),
            azimuth_steps=2168,
            splits={"test": 1},
        )
        frame = load_frames("nuscenes", "test", data_dir=root)[0]
        segmenter = pipeline("point-cloud-segmentation", model=args.model_name_or_path)
        answer = segmenter(frame["points"], intensity_max=frame["intensity_max"])
        colors = load_vocabulary("nuscenes").colors
        shades = label_colors(answer["segmentation"], colors)
        keep(draw_comparison(frame, answer, colors), "prediction_and_truth.png")
        keep(draw_overlays(frame, shades), "camera_overlay.png")
        keep(draw_range_image(frame["points"], shades, ring_of(root)), "range_image.png")
        page = write_viewer(
            Path(folder) / "viewer.html",
            frame["points"],
            answer["segmentation"],
            answer["labels"],
            colors,
            scores=answer["scores"],
            intensity=frame["points"][:, 3],
            ground_truth=frame["labels"],
            title="A street that was not trained on",
        )
        take_picture(page)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="out/demo/uov", help="default: %(default)s")
    return parser.parse_args()


def draw_comparison(frame: dict, answer: dict, colors: np.ndarray) -> Image.Image:
    """The front camera's image, and over it the predicted and the true classes of the points that it sees."""
    image, camera = cameras_of(frame)["CAM_FRONT"]
    seen = np.flatnonzero(visible_points(frame["points"][:, :3], camera, OcclusionConfig()))
    pixel_coords = project_points(frame["points"][seen, :3], camera)[0]
    panels = {
        "camera image": None,
        "prediction, from the scan alone": answer["segmentation"],
        "ground truth": frame["labels"],
    }
    figure = Figure(figsize=(16, 4.1), layout="constrained")
    for axes, (title, labels) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(image if labels is None else np.asarray(image) // 4)
        if labels is not None:
            shades = label_colors(labels[seen], colors) / 255
            axes.scatter(*pixel_coords.T, s=9, c=shades, linewidths=0)
        axes.set(xlim=(0, image.width), ylim=(image.height, 0))
        axes.set_title(title, fontsize=14)
        axes.axis("off")
    shown = [label for label in np.unique([panels["ground truth"][seen], answer["segmentation"][seen]]) if label < 255]
    names = [answer["labels"][label].replace("_", " ") for label in shown]
    handles = [Patch(color=colors[label] / 255, label=name) for label, name in zip(shown, names, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=12, frameon=False)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return Image.open(file)


def draw_overlays(frame: dict, shades: np.ndarray) -> Image.Image:
    cameras = cameras_of(frame)
    images, calibrations = zip(*(cameras[name] for name in FRONT), strict=True)
    return draw_camera_overlays(frame["points"], images, calibrations, shades, FRONT)


def cameras_of(frame: dict) -> dict[str, tuple[Image.Image, Camera]]:
    geometry = zip(frame["lidar2cam"], frame["intrinsics"], map(tuple, frame["image_sizes"]), strict=True)
    images = map(decode_image, frame["images"])
    pairs = zip(images, (Camera(*numbers) for numbers in geometry), strict=True)
    return dict(zip(frame["camera_names"], pairs, strict=True))


def ring_of(root: Path) -> np.ndarray:
    """The beam of each point: the fifth column of the file."""
    (path,) = root.glob("samples/LIDAR_TOP/*.bin")
    return np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, 4]


def take_picture(path: Path) -> None:
    """The viewer's page as a browser shows it."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        print("No Chromium on this machine: viewer.png stays as it is; run `make browser`.")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(path.as_uri())
        page.wait_for_function("window.viewer")
        keep(Image.open(BytesIO(page.screenshot())), "viewer.png")
        browser.close()


def keep(image: Image.Image, name: str) -> None:
    """256 colours are enough, and a third of the bytes."""
    image = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=0)
    image.save(FIGURES / name, optimize=True)
    print(f"{name}: {(FIGURES / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
