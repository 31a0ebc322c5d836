"""The browser that the other tests of this folder look through: it draws WebGL, and stays at home."""

DRAW = """() => {
  const gl = document.createElement("canvas").getContext("webgl2");
  gl.clearColor(1, 0.5, 0, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const pixel = new Uint8Array(4);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  return [...pixel];
}"""


def test_a_page_draws_webgl(page, complaints):
    page.set_content("<h1>here</h1>")
    assert page.inner_text("h1") == "here"
    assert page.evaluate(DRAW) == [255, 128, 0, 255]
    assert complaints == []


def test_what_goes_wrong_on_a_page_is_heard(page, complaints):
    page.set_content('<img src="https://example.org/x.png"><script>console.error("one"); throw Error("two")</script>')
    page.wait_for_load_state()
    assert "request: https://example.org/x.png" in complaints
    assert "console: one" in complaints and "exception: two" in complaints
