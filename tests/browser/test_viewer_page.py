"""The viewer's page in a real browser, offline: clicks change the picture, with both renderers."""

import base64

import numpy as np
import pytest

from uov_hf.pictures.viewer import write_viewer


CLASS_NAMES = ["car", "road", "tree <b>"]
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
BACKGROUND, GREY = (0x11, 0x13, 0x17), (90, 96, 105)
RED, GREEN, BLUE = map(tuple, COLORS.tolist())
# Four blobs of 200 points around the origin; the last one has no class.
SEGMENTATION = np.repeat([0, 1, 2, 255], 200)
POINTS = np.random.default_rng(0).normal(0, 1, (800, 4)).astype(np.float32) + np.repeat(
    [[-5, 0, 0, 1], [5, 0, 0, 2], [0, 5, 0, 3], [0, -5, 0, 4]], 200, axis=0
)
INTENSITY_RANGE = np.percentile(POINTS[:, 3], (1, 99))
GROUND_TRUTH = np.repeat([0, 0, 255, 2], 200)
WIDTH, HEIGHT = 480, 300
# Arrays come back as base64: playwright takes numbers one by one.
ENCODE = """(array) => {
  let text = "";
  for (const byte of new Uint8Array(array.buffer, array.byteOffset, array.byteLength)) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}"""
PIXELS = """() => {
  const scene = document.getElementById("scene");
  const copy = Object.assign(document.createElement("canvas"), { width: scene.width, height: scene.height });
  viewer.draw();
  copy.getContext("2d").drawImage(scene, 0, 0);
  return copy.getContext("2d").getImageData(0, 0, scene.width, scene.height).data;
}"""


@pytest.fixture(params=["canvas", "webgl"])
def open_viewer(request, page, complaints, tmp_path):
    """Opens a scan's page; nothing may go wrong on it until the test ends."""
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def open_page(points=POINTS, **arguments):
        path = write_viewer(tmp_path / "viewer.html", points, **arguments)
        page.goto(f"{path.as_uri()}#renderer={request.param}")
        page.wait_for_function("window.viewer")
        page.evaluate("document.getElementById('panel').open = false")  # it covers a part of the picture
        return page

    yield open_page
    assert complaints == []


def full(**changes):
    given = {"segmentation": SEGMENTATION, "class_names": CLASS_NAMES, "colors": COLORS, "intensity": POINTS[:, 3]}
    return given | {"ground_truth": GROUND_TRUTH, "scores": np.linspace(0, 1, 800, dtype=np.float32)} | changes


def array_of(page, expression, dtype=np.uint8):
    """A typed array of the page."""
    return np.frombuffer(base64.b64decode(page.evaluate(f"({ENCODE})({expression})")), dtype)


def picture_of(page):
    return array_of(page, f"({PIXELS})()").reshape(HEIGHT, WIDTH, 4)[..., :3]


def colors_in(page):
    colors, counts = np.unique(picture_of(page).reshape(-1, 3), axis=0, return_counts=True)
    return dict(zip(map(tuple, colors.tolist()), counts.tolist(), strict=True))


def legend_of(page):
    rows = page.locator("#legend button").all()
    return {row.locator("span").text_content(): row.locator("data").text_content() for row in rows}


def press(page, name, shift=False):
    row = page.locator("#legend button", has=page.get_by_text(name, exact=True))
    row.dispatch_event("click", {"shiftKey": shift})
    return row.get_attribute("aria-pressed")


def color_by(page, name):
    page.evaluate("document.getElementById('panel').open = true")
    page.get_by_label("Colour by").select_option(name)
    page.evaluate("document.getElementById('panel').open = false")


def test_every_class_is_seen_in_its_color_and_counted(open_viewer):
    page = open_viewer(**full(title="A <i>scan</i>"))
    assert page.title() == "A <i>scan</i>"
    assert legend_of(page) == {"car": "200", "road": "200", "tree <b>": "200", "unlabelled": "200"}
    seen = colors_in(page)
    assert set(seen) == {BACKGROUND, RED, GREEN, BLUE, GREY}
    assert min(seen.values()) > 100


def test_the_legend_hides_and_shows_a_class_or_one_alone(open_viewer):
    page = open_viewer(**full())
    before = picture_of(page)
    assert press(page, "car") == "false"
    assert set(colors_in(page)) == {BACKGROUND, GREEN, BLUE, GREY}
    assert press(page, "car") == "true"
    assert np.array_equal(picture_of(page), before)

    assert press(page, "road", shift=True) == "true"
    assert set(colors_in(page)) == {BACKGROUND, GREEN}
    press(page, "unlabelled", shift=True)
    assert set(colors_in(page)) == {BACKGROUND, GREY}
    press(page, "unlabelled", shift=True)
    assert len(colors_in(page)) == 5
    page.locator("#none").dispatch_event("click")
    assert set(colors_in(page)) == {BACKGROUND}
    page.locator("#all").dispatch_event("click")
    assert len(colors_in(page)) == 5


def test_every_coloring_is_another_picture_with_counts_of_its_own(open_viewer):
    page = open_viewer(**full())
    names = page.locator("#coloring option").all_text_contents()
    assert names == ["class", "score", "intensity", "ground truth", "error", "height"]
    pictures = {}
    for name in names:
        color_by(page, name)
        pictures[picture_of(page).tobytes()] = name
    assert len(pictures) == 6

    color_by(page, "error")
    assert legend_of(page) == {"right": "200", "wrong": "400", "ignored": "200"}
    press(page, "wrong", shift=True)
    assert set(colors_in(page)) == {BACKGROUND, (240, 60, 50)}
    color_by(page, "ground truth")
    assert legend_of(page) == {"car": "400", "tree <b>": "200", "ignored": "200"}


def test_values_of_hidden_classes_are_hidden_too(open_viewer):
    page = open_viewer(**full())
    color_by(page, "intensity")
    several = len(colors_in(page))
    press(page, "car", shift=True)
    assert 2 <= len(colors_in(page)) < several
    assert [page.locator(end).text_content() for end in ("#low", "#high")] == [f"{end:.3g}" for end in INTENSITY_RANGE]


def test_a_scan_without_labels_is_shown_by_height(open_viewer):
    page = open_viewer(POINTS[:, :3])
    assert page.locator("#coloring option").all_text_contents() == ["height"]
    assert legend_of(page) == {} and len(colors_in(page)) > 20


def test_the_page_holds_what_it_was_given(open_viewer):
    rng = np.random.default_rng(1)
    points = rng.normal(0, 20, (120_000, 4)).astype(np.float32)
    points[7] = np.nan
    labels = rng.choice([0, 1, 2, 255], len(points))
    scores = rng.random(len(points), dtype=np.float32)
    scores[9] = np.nan
    page = open_viewer(points, **full(segmentation=labels, ground_truth=labels[::-1], scores=scores, intensity=None))
    kept = np.arange(len(points)) != 7
    positions = array_of(page, "viewer.positions", np.float32).reshape(-1, 3) + page.evaluate("viewer.scan.origin")
    assert np.abs(positions - points[kept, :3]).max() < 0.0006
    held = "viewer.colorings.find(({ name }) => name === '%s').%s"
    assert np.array_equal(array_of(page, held % ("class", "shades")), labels[kept])
    assert np.array_equal(array_of(page, held % ("ground truth", "shades")), labels[::-1][kept])
    assert np.array_equal(array_of(page, held % ("score", "values"), np.float32), scores[kept], equal_nan=True)
    assert sum(int(count.replace(",", "")) for count in legend_of(page).values()) == 119_999
    assert sum(count for color, count in colors_in(page).items() if color != BACKGROUND) > 10_000


def test_mouse_and_keyboard_move_the_camera_and_reset_brings_it_back(open_viewer):
    page = open_viewer(**full())
    pictures = [picture_of(page)]
    page.mouse.move(200, 150)
    page.mouse.down()
    page.mouse.move(280, 170)
    page.mouse.up()
    pictures.append(picture_of(page))
    page.mouse.wheel(0, -300)
    page.wait_for_function("viewer.camera.distance < 0.8 * 1.5 * viewer.scan.radius")
    pictures.append(picture_of(page))
    for key in ("ArrowLeft", "Shift+ArrowUp", "+"):
        page.locator("#scene").press(key)
        pictures.append(picture_of(page))
    assert all((one != other).any() for one, other in zip(pictures, pictures[1:], strict=False))
    page.locator("#scene").press("0")
    assert np.array_equal(picture_of(page), pictures[0])


def test_two_fingers_zoom_and_one_turns(open_viewer):
    page = open_viewer(**full())
    touch = page.context.new_cdp_session(page)

    def fingers(kind, *places):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    start = page.evaluate("({...viewer.camera})")
    fingers("touchStart", (300, 200))
    fingers("touchMove", (340, 200))
    turned = page.evaluate("({...viewer.camera})")
    assert turned["yaw"] != start["yaw"] and turned["distance"] == start["distance"]
    fingers("touchStart", (340, 200), (360, 200))
    fingers("touchMove", (340, 200), (460, 200))
    fingers("touchEnd")
    assert page.evaluate("viewer.camera.distance") < 0.5 * start["distance"]


def test_the_page_shows_the_class_of_the_point_under_the_mouse(open_viewer):
    points = np.array([[0.0, 0, 0, 7], [9, 9, 0, 3], [-9, -9, 0, 3]])
    labels = {"segmentation": np.array([2, 0, 0]), "ground_truth": np.array([1, 255, 0])}
    page = open_viewer(points, **full(intensity=points[:, 3], scores=np.array([0.25, 1, 1]), **labels))
    row, column = np.argwhere((picture_of(page) == BLUE).all(-1)).mean(axis=0)
    page.mouse.move(column, row)
    values = "class: tree <b>;score: 0.25;intensity: 7;ground truth: road;error: wrong;height: 0"
    assert page.locator("#tip").text_content().split("\n") == [*values.split(";"), "x, y, z: 0.00, 0.00, 0.00 m"]
    page.mouse.move(470, 290)
    assert page.locator("#tip").is_hidden()


def test_both_renderers_draw_the_same_scan(page, tmp_path):
    path = write_viewer(tmp_path / "viewer.html", POINTS, **full())
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    seen = []
    for renderer in ("canvas", "webgl"):
        page.goto("about:blank")
        page.goto(f"{path.as_uri()}#renderer={renderer}")
        page.wait_for_function("window.viewer")
        seen.append((picture_of(page), page.evaluate("viewer.renderer.name")))
    (canvas, canvas_name), (webgl, webgl_name) = seen
    assert canvas_name == "z-buffer in JavaScript" and webgl_name.startswith("WebGL2 on ")
    drawn = (canvas != BACKGROUND).any(-1) | (webgl != BACKGROUND).any(-1)
    assert (canvas == webgl).all(-1)[drawn].mean() > 0.5  # squares of whole pixels against those of any size
    assert abs((canvas != BACKGROUND).any(-1).sum() / (webgl != BACKGROUND).any(-1).sum() - 1) < 0.2


def test_the_panel_is_reached_and_used_with_the_keyboard_alone(open_viewer):
    page = open_viewer(**full())
    page.evaluate("document.getElementById('panel').open = true")
    page.get_by_label("Colour by").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "car200"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    assert RED not in colors_in(page)
    assert page.get_by_label("Point size").is_visible() and page.get_by_role("button", name="Reset view").is_visible()
