"""Draws the documents' pictures: a street that the demo's checkpoint has never seen, segmented by it.

    make demo && make browser
    python docs/figures/make_figures.py --model_name_or_path out/demo/uov

All sensor data is synthetic. The scan has 32 beams of twice nuScenes' firings, so that there is something to see.
Where no Chromium is installed, the pictures of the viewer are left as they are, and the command says so.
"""

import argparse
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

from uov_hf.data import load_frames
from uov_hf.data.frames import decode_image
from uov_hf.geometry.projection import Camera
from uov_hf.pictures.scan_colors import label_colors
from uov_hf.pictures.viewer import write_viewer
from uov_hf.pictures.visualization import draw_camera_overlays, draw_range_image
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


FIGURES = Path(__file__).parent
SEED = 77  # the demo's towns are made from others
FRONT = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT")
CLOSE = {"yaw": -2.25, "pitch": 0.42, "distance": 29, "target": [0, 3, -2.5]}
# The scan alone, with its legend along the lower edge.
POSTER = """
  #panel { inset: auto 0 0 0; width: auto; padding: 8px 0 12px; border: 0; border-radius: 0; background: #111317d0; }
  #panel > :not(#legend), #legend data { display: none !important; }
  #legend { display: flex; flex-wrap: wrap; justify-content: center; gap: 2px 14px; margin: 0 60px; }
  #legend button { width: auto; font-size: 15px; }
"""


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
            title="A street it has never seen",
        )
        take_pictures(page)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="out/demo/uov", help="default: %(default)s")
    return parser.parse_args()


def draw_overlays(frame: dict, shades: np.ndarray) -> Image.Image:
    cameras = zip(
        frame["camera_names"],
        frame["images"],
        frame["lidar2cam"],
        frame["intrinsics"],
        frame["image_sizes"],
        strict=True,
    )
    chosen = {
        name: (decode_image(image), Camera(lidar2cam, intrinsics, tuple(size)))
        for name, image, lidar2cam, intrinsics, size in cameras
        if name in FRONT
    }
    images, calibrations = zip(*(chosen[name] for name in FRONT), strict=True)
    return draw_camera_overlays(frame["points"], images, calibrations, shades, FRONT)


def ring_of(root: Path) -> np.ndarray:
    """The beam of each point: the fifth column of the file."""
    (path,) = root.glob("samples/LIDAR_TOP/*.bin")
    return np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, 4]


def take_pictures(path: Path) -> None:
    """The viewer's page as a browser shows it, and the scan alone."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        print("No Chromium on this machine: segmented_scan.png and viewer.png stay as they are; run `make browser`.")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(path.as_uri())
        page.wait_for_function("window.viewer")
        keep(Image.open(BytesIO(page.screenshot())), "viewer.png")
        page.set_viewport_size({"width": 1600, "height": 640})
        page.add_style_tag(content=POSTER)
        page.evaluate("camera => { Object.assign(viewer.camera, camera); viewer.draw(); }", CLOSE)
        keep(Image.open(BytesIO(page.screenshot())), "segmented_scan.png")
        browser.close()


def keep(image: Image.Image, name: str) -> None:
    """256 colours are enough, and a third of the bytes."""
    image = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=0)
    image.save(FIGURES / name, optimize=True)
    print(f"{name}: {(FIGURES / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
