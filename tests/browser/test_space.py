"""The Space in a real browser: a scan and words give a view with a legend, and errors are readable."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from space_server import SPACE, running_space


MINUTE = 60_000  # in milliseconds


@pytest.fixture(scope="module")
def address(tiny_segmenter, tmp_path_factory):
    """Address of the app, with a checkpoint of the classes car, road and tree."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[space]'")
    with running_space(sys.executable, tiny_segmenter, tmp_path_factory.mktemp("space")) as address:
        yield address


@pytest.fixture
def space(page, address):
    """The app's page, ready to be used."""
    page.set_default_timeout(MINUTE)
    page.goto(address)
    page.get_by_role("button", name="Segment", exact=True).wait_for()
    return page


@pytest.fixture
def scan(tmp_path) -> Path:
    """A KITTI-like file: ground, and a box on it."""
    generator = np.random.default_rng(0)
    ground = generator.uniform([-20, -20, -1.8, 0], [20, 20, -1.7, 255], (4000, 4))
    box = generator.uniform([4, -1, -1.7, 0], [8, 1, 0, 255], (1000, 4))
    path = tmp_path / "yard.bin"
    np.concatenate([ground, box]).astype(np.float32).tofile(path)
    return path


def upload(page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)
    page.get_by_text(path.stem, exact=False).first.wait_for()


def segment(page, words: str = "") -> None:
    page.get_by_label("Words").fill(words)
    page.get_by_role("button", name="Segment", exact=True).click()


def test_words_that_were_typed_are_in_the_legend_of_the_scan(space, scan, complaints):
    upload(space, scan)
    segment(space, "road, tree")
    viewer = space.frame_locator("iframe[title='The scan in 3D']")
    viewer.get_by_text("yard.bin: 5,000 points").first.wait_for()
    viewer.locator("#legend").get_by_text(re.compile("road|tree")).first.wait_for()
    legend = viewer.locator("#legend").inner_text()
    assert re.search("road|tree", legend) and "car" not in legend
    space.get_by_text(re.compile(r"^\d+\.\d%$")).locator("visible=true").first.wait_for()
    assert is_drawn(viewer)
    if folder := os.environ.get("SCREENSHOTS"):
        space.screenshot(path=f"{folder}/space.png", full_page=True)
    assert not complaints


def is_drawn(viewer) -> bool:
    """Whether the canvas shows more than its background."""
    picture = viewer.locator("#scene").screenshot()
    return len(set(picture)) > 100 and len(picture) > 5000


def test_an_example_scan_is_segmented_into_the_classes_of_the_checkpoint(space):
    space.get_by_text("street-1.pcd.bin").first.click()
    space.get_by_text(re.compile(r"\d\sKB")).first.wait_for()
    segment(space)
    viewer = space.frame_locator("iframe[title='The scan in 3D']")
    viewer.get_by_text(re.compile(r"street-1\.pcd\.bin: [\d,]+ points")).first.wait_for()
    viewer.locator("#legend").get_by_text(re.compile("car|road|tree")).first.wait_for()
    assert re.search("car|road|tree", viewer.locator("#legend").inner_text())


def test_a_broken_file_and_a_refused_word_give_a_readable_error(space, scan, tmp_path):
    alert = space.get_by_role("alert")
    segment(space, "car")
    alert.get_by_text("Upload a scan first").wait_for()

    broken = tmp_path / "broken.bin"
    broken.write_bytes(b"\0" * 1001)
    upload(space, broken)
    segment(space, "car")
    alert.get_by_text(re.compile("^broken.bin: expected a whole number of points")).wait_for()

    space.reload()
    upload(space, scan)
    segment(space, "car, tuk-tuk")
    alert.get_by_text(re.compile("tuk-tuk.*text tower", re.DOTALL)).wait_for()
    if folder := os.environ.get("SCREENSHOTS"):
        space.screenshot(path=f"{folder}/space_refusal.png")
    assert "Traceback" not in alert.inner_text() and "/" not in alert.inner_text()


def test_the_version_that_a_space_gets_is_the_one_that_is_tested():
    gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install '.[space]'")
    assert f"\nsdk_version: {gradio.__version__}\n" in (SPACE / "README.md").read_text(encoding="utf-8")
