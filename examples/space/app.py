"""A web app: upload a lidar scan, type words, and see what every point is; runs as a Space of the Hub, or at home.

    HF_MODEL_ID=out/demo/uov python examples/space/app.py

`HF_MODEL_ID` is a folder or an id on the Hub, by default what `make demo` leaves. The scans to begin with are rendered
when the app starts.
"""

import html
import os
import tempfile
from pathlib import Path

import gradio as gr
import numpy as np
from transformers.utils.logging import disable_progress_bar

from uov_hf import PointCloudSegmentationPipeline
from uov_hf.pictures.viewer import render_viewer
from uov_hf.point_files import READERS, check_finite, read_points
from uov_hf.segmenting import class_colors, load_segmenter
from uov_hf.synthetic import generate_street


MODEL = os.environ.get("HF_MODEL_ID", "out/demo/uov")
MAX_POINTS = 1_000_000
INTENSITY_SCALES = {"guess it": None, "0 … 255 (nuScenes)": 255.0, "0 … 1 (KITTI)": 1.0, "0 … 65535 (.las)": 65535.0}
FRAME = 'style="width: 100%; height: 640px; border: 0; border-radius: 8px"'
ALERT = "padding: 16px; border: 2px solid #b91c1c; border-radius: 8px; font-size: 16px; overflow-wrap: anywhere"
NO_SCAN = "Upload a scan first, or take one of the examples below."
INTRODUCTION = """
# What is every point of this scan?

Upload a lidar scan, type words with commas between them, and press **Segment**. Without words it answers in the
classes of its checkpoint `{model}`: {classes}.
"""


def make_app(segmenter: PointCloudSegmentationPipeline, example_scans: list[Path]) -> gr.Blocks:
    """The page, and what its button does."""

    def show(scan: str | None, words: str, intensity: str, threshold: float, refine: bool):
        if scan is None:
            return complain(NO_SCAN), []
        try:
            return segment(segmenter, Path(scan), words, INTENSITY_SCALES[intensity], threshold, refine)
        except (ValueError, OSError, ImportError) as error:
            # Where the upload lies on the server is nobody's business.
            return complain(str(error).replace(f"{Path(scan).parent}{os.sep}", "")), []

    keep = (3600, 3600)  # seconds: uploads are looked for every hour, and deleted when they are as old
    with gr.Blocks(title="LiDAR segmentation in your words", delete_cache=keep) as app:
        gr.Markdown(introduce(segmenter))
        with gr.Accordion("Words of this checkpoint", open=False):
            gr.Markdown(describe_vocabulary(segmenter))
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                scan = gr.File(label=f"Scan ({', '.join(READERS)})", file_types=list(READERS), type="filepath")
                words = gr.Textbox(label="Words", placeholder="car, road, tree")
                intensity = gr.Dropdown(list(INTENSITY_SCALES), label="Scale of the intensity", filterable=False)
                threshold = gr.Slider(0, 1, 0, step=0.05, label="Points less sure than this get no label")
                refine = gr.Checkbox(label="Clean the answer (approximate flat interaction)")
                button = gr.Button("Segment", variant="primary")
                gr.Examples([[str(path)] for path in example_scans], [scan], label="Scans of a synthetic street")
            with gr.Column(scale=3):
                viewer = gr.HTML(label="The scan", min_height=640)
                table = gr.Dataframe(headers=["word", "points", "share"], label="What was found", interactive=False)
        inputs = [scan, words, intensity, threshold, refine]
        gr.on([button.click, words.submit], show, inputs, [viewer, table], api_name="segment")
    return app


def segment(
    segmenter: PointCloudSegmentationPipeline,
    scan: Path,
    words: str,
    intensity_max: float | None,
    threshold: float,
    refine: bool,
) -> tuple[str, list[list]]:
    """The page with the scan, framed, and the rows of the table.

    Raises:
        ValueError: The scan is broken or too large, or the checkpoint refuses a word.
    """
    points = read_points(scan, max_points=MAX_POINTS)
    check_finite(points, scan)
    asked = {"candidate_labels": words} if words.strip() else {}
    answer = segmenter(
        points, intensity_max=intensity_max, threshold=threshold, refine="afi" if refine else None, **asked
    )
    segmentation, names = answer["segmentation"], answer["labels"]
    page = render_viewer(
        points,
        segmentation,
        names,
        class_colors(names),
        scores=answer["scores"],
        intensity=points[:, 3] if points.shape[1] > 3 else None,
        title=f"{scan.name}: {len(points):,} points",
    )
    # A page of its own, which can do nothing but run its script: neither sees nor changes this one.
    frame = f'<iframe title="The scan in 3D" sandbox="allow-scripts" srcdoc="{html.escape(page)}" {FRAME}></iframe>'
    return frame, count_points(segmentation, names)


def complain(message: str) -> str:
    """What went wrong, where the scan would be: it stays until it is read."""
    return f'<p role="alert" style="{ALERT}">{html.escape(message)}</p>'


def count_points(segmentation: np.ndarray, names: list[str]) -> list[list]:
    """A row for each word that occurs, the most frequent first; points without a label last."""
    counts = np.bincount(segmentation, minlength=256)
    found = sorted(((int(counts[row]), name) for row, name in enumerate(names)), reverse=True)
    found.append((int(counts[255]), "(no label)"))
    return [
        [name.replace("_", " "), count, f"{count / max(len(segmentation), 1):.1%}"] for count, name in found if count
    ]


def introduce(segmenter: PointCloudSegmentationPipeline) -> str:
    """What to do here."""
    classes = [str(name).replace("_", " ") for name in segmenter.model.config.id2label.values()]
    return INTRODUCTION.format(classes=", ".join(classes), model=Path(MODEL).name if Path(MODEL).exists() else MODEL)


def describe_vocabulary(segmenter: PointCloudSegmentationPipeline) -> str:
    """What the checkpoint can be asked."""
    model = segmenter.model
    if model.classifier is not None:
        return "Its classes, and no others: its head is linear."
    if model.config.has_teachers_text_tower:
        return "Any: it carries the text tower of its teacher."
    return f"Its classes, and: {', '.join(prompt.strip() for prompt in dict.fromkeys(model.config.prompts))}."


def render_scans(folder: Path) -> list[Path]:
    """Scans of two towns that no checkpoint was trained on, unless somebody chose this very seed."""
    generate_street(folder, num_scenes=2, frames_per_scene=1, seed=2026, image_size=(9, 16))
    scans = sorted((folder / "samples" / "LIDAR_TOP").iterdir())
    return [scan.rename(folder / f"street-{number}.pcd.bin") for number, scan in enumerate(scans, 1)]


if __name__ == "__main__":
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        app = make_app(load_segmenter(MODEL), render_scans(Path(folder)))
        app.launch(allowed_paths=[folder], max_file_size="64mb")
