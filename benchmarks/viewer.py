"""The viewer's page in headless Chromium, and plotly's if that is installed: frames of an orbit, by turns in one run.

    make browser && .venv/bin/pip install plotly
    python benchmarks/viewer.py --output out/viewer.json

Each page shows the same synthetic scan, 1280 × 800. A frame is timed from the new camera position to its finished
picture on the page, with Chromium's frame limit off; there is no graphics card in it, and the table says who drew.
"""

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from uov_hf.data import load_frames
from uov_hf.pictures.viewer import write_viewer
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-frame-rate-limit", "--disable-gpu-vsync"]
# How a page is ready, turns to an angle, waits for its picture, and colours by intensity or class: one row per viewer.
OWN = {
    "ready": "() => window.viewer",
    "turn": "(angle) => { viewer.camera.yaw = angle; viewer.draw(); }",
    "finish": "() => viewer.renderer.finish()",
    "recolor": """(name) => {
        const select = document.getElementById("coloring");
        select.value = viewer.colorings.findIndex((coloring) => coloring.name === name);
        select.dispatchEvent(new Event("change"));
    }""",
    "renderer": "() => viewer.renderer.name",
}
PLOTLY_SCENE = "document.querySelector('.plotly-graph-div')._fullLayout.scene._scene"
PLOTLY = {
    "ready": f"() => document.querySelector('.plotly-graph-div')?._fullLayout && {PLOTLY_SCENE}?.glplot",
    "turn": f"(angle) => {PLOTLY_SCENE}.camera.lookAt("
    "[0.7 * Math.cos(angle), 0.7 * Math.sin(angle), 0.35], [0, 0, -0.1], [0, 0, 1])",
    "finish": f"() => {{ const gl = {PLOTLY_SCENE}.glplot.gl;"
    " gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); }",
    "recolor": """(name) => {
        const page = document.querySelector('.plotly-graph-div');
        const visible = page.data.map((trace) => (trace.name === "intensity") === (name === "intensity"));
        return Plotly.restyle(page, { visible });
    }""",
    "renderer": f"() => {{ const gl = {PLOTLY_SCENE}.glplot.gl, info = gl.getExtension('WEBGL_debug_renderer_info');"
    " return gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER); }",
}
TIME = """async ({ turn, finish, recolor, numFrames }) => {
  const [turnTo, wait, colorBy] = [turn, finish, recolor].map((code) => eval(code));
  const timed = async (change) => {
    const start = performance.now();
    await change();
    await new Promise(requestAnimationFrame);
    wait();
    return performance.now() - start;
  };
  const frames = [], switches = [];
  for (let i = 0; i < 3; i++) await timed(() => turnTo(i));
  for (let i = 0; i < numFrames; i++) frames.push(await timed(() => turnTo((2 * Math.PI * i) / numFrames)));
  for (const name of ["intensity", "class", "intensity", "class"]) switches.push(await timed(() => colorBy(name)));
  return { frames, switches };
}"""


def main() -> None:
    args = parse_args()
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        raise SystemExit("No Chromium on this machine: run `make browser`.")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        pages = write_pages(Path(folder), *make_scan(Path(folder), args.num_points))
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        results = {name: {"megabytes": round(path.stat().st_size / 1e6, 2)} for name, (path, _, _) in pages.items()}
        samples = {name: {"load": [], "frames": [], "switches": []} for name in pages}
        for _ in range(args.rounds):
            for name, (path, fragment, driver) in pages.items():
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                page.set_default_timeout(300_000)
                renderer = measure(page, path.as_uri() + fragment, driver, args.num_frames, samples[name])
                results[name]["renderer"] = renderer
                page.close()
        machine = {"browser": f"Chromium {browser.version}", "cpu": platform.machine(), "num_points": args.num_points}
        browser.close()
    for name, sample in samples.items():
        results[name] |= summarise(sample)
    print(to_markdown(machine, results))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"machine": machine, "viewers": results}, indent=2))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_points", type=int, default=120_000)
    parser.add_argument("--num_frames", type=int, default=72, help="of the orbit")
    parser.add_argument("--rounds", type=int, default=3, help="how often each page is opened, by turns")
    parser.add_argument("--output", type=Path, help="where to write the results as JSON")
    return parser.parse_args()


def make_scan(folder: Path, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of a synthetic street, rendered densely enough."""
    root = generate_street(
        folder / "street",
        num_scenes=1,
        frames_per_scene=1,
        image_size=(16, 28),
        azimuth_steps=num_points // 20,
        splits={"test": 1},
    )
    frame = load_frames("nuscenes", "test", data_dir=root)[0]
    if len(frame["points"]) < num_points:
        raise SystemExit(f"The street gave {len(frame['points'])} points, fewer than {num_points}.")
    rows = np.sort(np.random.default_rng(0).permutation(len(frame["points"]))[:num_points])
    return frame["points"][rows], np.asarray(frame["labels"])[rows]


def write_pages(folder: Path, points: np.ndarray, labels: np.ndarray) -> dict[str, tuple[Path, str, dict[str, str]]]:
    """File, fragment of the address and driver of each viewer."""
    vocabulary = load_vocabulary("nuscenes")
    own = write_viewer(
        folder / "own.html", points, labels, vocabulary.class_names, vocabulary.colors, intensity=points[:, 3]
    )
    pages = {"viewer": (own, "", OWN), "viewer, WebGL": (own, "#renderer=webgl", OWN)}
    try:
        import plotly.graph_objects as go
    except ImportError:
        return pages
    style = {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2], "mode": "markers"}
    traces = []
    for label in np.unique(labels):
        chosen = {axis: style[axis][labels == label] for axis in "xyz"}
        color = "rgb(90,96,105)" if label == 255 else "rgb({},{},{})".format(*vocabulary.colors[label])
        traces.append(go.Scatter3d(**chosen, mode="markers", marker={"size": 1.8, "color": color}, name=str(label)))
    marker = {"size": 1.8, "color": points[:, 3], "colorscale": "Turbo"}
    traces.append(go.Scatter3d(**style, marker=marker, name="intensity", visible=False))
    figure = go.Figure(traces).update_layout(margin=dict.fromkeys("lrtb", 0), scene_aspectmode="data")
    figure.write_html(folder / "plotly.html", default_height="100vh")
    return pages | {"plotly": (folder / "plotly.html", "", PLOTLY)}


def measure(page: Page, address: str, driver: dict[str, str], num_frames: int, sample: dict[str, list[float]]) -> str:
    """Adds one round to a viewer's samples; returns who drew it."""
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_function(driver["ready"])
    page.evaluate(driver["finish"])
    sample["load"].append(time.perf_counter() - started)
    timed = page.evaluate(
        TIME, {key: driver[key] for key in ("turn", "finish", "recolor")} | {"numFrames": num_frames}
    )
    for key, values in timed.items():
        sample[key] += values
    return page.evaluate(driver["renderer"])


def summarise(sample: dict[str, list[float]]) -> dict[str, float]:
    return {
        "frame_ms": round(statistics.median(sample["frames"]), 1),
        "frame_ms_p95": round(float(np.percentile(sample["frames"], 95)), 1),
        "switch_ms": round(statistics.median(sample["switches"]), 1),
        "load_s": round(statistics.median(sample["load"]), 2),
    }


def to_markdown(machine: dict, results: dict[str, dict]) -> str:
    base = results["viewer"]["frame_ms"]
    lines = [
        f"{machine['num_points']:,} points, {machine['browser']}",
        "",
        "| page | drawn by | MB | first picture, s | frame, ms (95 %) | against ours | other colours, ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        frame = f"{row['frame_ms']} ({row['frame_ms_p95']})"
        cells = [name, row["renderer"], row["megabytes"], row["load_s"], frame, f"{row['frame_ms'] / base:.1f}×"]
        lines.append(f"| {' | '.join(map(str, cells))} | {row['switch_ms']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
