"""Frame times of the viewer's page in headless Chromium, by each of its two renderers, by turns in one run.

    make browser
    python benchmarks/viewer.py

Both show the same synthetic scan, 1280 × 800. A frame is timed from the new camera position to its finished picture on
the page, with Chromium's frame limit off. Headless Chromium has no graphics card, so WebGL runs on SwiftShader.
"""

import shutil
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from common import describe_machine, make_parser, table, timed
from playwright.sync_api import Page, sync_playwright

from uov_hf.data import load_frames
from uov_hf.pictures.viewer import write_viewer
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-frame-rate-limit", "--disable-gpu-vsync"]
RENDERERS = {"default": "", "WebGL": "#renderer=webgl"}  # and the fragment of the address that selects it
# Turns the camera and changes the colours; returns the milliseconds of each frame and of each change of colours.
TIME = """async (numFrames) => {
  const timed = async (change) => {
    const start = performance.now();
    change();
    await new Promise(requestAnimationFrame);
    viewer.renderer.finish();
    return performance.now() - start;
  };
  const turn = (angle) => { viewer.camera.yaw = angle; viewer.draw(); };
  const color = (name) => {
    const select = document.getElementById("coloring");
    select.value = viewer.colorings.findIndex((coloring) => coloring.name === name);
    select.dispatchEvent(new Event("change"));
  };
  const frames = [], colors = [];
  for (let i = 0; i < 3; i++) await timed(() => turn(i));
  for (let i = 0; i < numFrames; i++) frames.push(await timed(() => turn((2 * Math.PI * i) / numFrames)));
  for (const name of ["intensity", "class", "intensity", "class"]) colors.push(await timed(() => color(name)));
  return { frames, colors };
}"""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--num_points", type=int, default=120_000)
    parser.add_argument("--num_frames", type=int, default=72, help="of the orbit")
    parser.add_argument("--rounds", type=int, default=3, help="how often each page is opened, by turns")
    args = parser.parse_args()
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        raise SystemExit("No Chromium on this machine: run `make browser`.")
    samples = {name: {"drawn by": [], "load": [], "frames": [], "colors": []} for name in RENDERERS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = write_page(Path(folder), args.num_points)
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for _ in range(args.rounds):
            for name, fragment in RENDERERS.items():
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(300_000)
                for key, values in measure(page, path.as_uri() + fragment, args.num_frames).items():
                    samples[name][key] += values
                page.close()
        size, version = path.stat().st_size / 1e6, browser.version
        browser.close()
    print(f"{describe_machine()}; Chromium {version}; {args.num_points:,} points in a page of {size:.2f} MB\n")
    header = ["renderer", "drawn by", "first picture, s", "frame, ms (95 %)", "other colours, ms"]
    print(table(header, [[name, *describe(sample)] for name, sample in samples.items()]))


def write_page(folder: Path, num_points: int) -> Path:
    """The page of a synthetic street, which is rendered densely enough."""
    root = generate_street(
        folder / "street", 1, 1, image_size=(16, 28), azimuth_steps=num_points // 20, splits={"test": 1}
    )
    frame = load_frames("nuscenes", "test", data_dir=root)[0]
    if len(frame["points"]) < num_points:
        raise SystemExit(f"The street gave {len(frame['points'])} points, fewer than {num_points}.")
    rows = np.sort(np.random.default_rng(0).permutation(len(frame["points"]))[:num_points])
    points, labels = frame["points"][rows], np.asarray(frame["labels"])[rows]
    vocabulary = load_vocabulary("nuscenes")
    return write_viewer(
        folder / "page.html", points, labels, vocabulary.class_names, vocabulary.colors, intensity=points[:, 3]
    )


def measure(page: Page, address: str, num_frames: int) -> dict[str, list]:
    """One round: who drew, seconds to the first picture, milliseconds of frames and of changes of colours."""

    def load():
        page.goto(address)
        page.wait_for_function("() => window.viewer")
        page.evaluate("() => viewer.renderer.finish()")

    seconds, _ = timed(load)
    drawn_by = page.evaluate("() => viewer.renderer.name")
    return {"drawn by": [drawn_by], "load": [seconds], **page.evaluate(TIME, num_frames)}


def describe(sample: dict[str, list]) -> list[str]:
    frame = f"{median(sample['frames']):.0f} ({np.percentile(sample['frames'], 95):.0f})"
    return [sample["drawn by"][0], f"{median(sample['load']):.1f}", frame, f"{median(sample['colors']):.0f}"]


if __name__ == "__main__":
    main()
