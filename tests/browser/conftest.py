"""A page of the system's Chromium, headless and cut off from the network; `make test-browser` installs both."""

import shutil
import subprocess

import pytest


CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGL on the CPU, the same on every machine.
SOFTWARE_WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
AT_HOME = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost", "ws://127.0.0.1")


def find_browser() -> str | None:
    """The first that prints its version: Ubuntu's `chromium-browser` only prints that a snap must be installed."""
    for executable in filter(None, map(shutil.which, CHROMIUMS)):
        try:
            subprocess.run([executable, "--version"], capture_output=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return executable
    return None


@pytest.fixture(scope="session")
def playwright_api():
    """The module `playwright.sync_api`; a test that asks for it skips where playwright is missing."""
    return pytest.importorskip("playwright.sync_api", reason="playwright is not installed: run `make test-browser`")


@pytest.fixture(scope="module")  # playwright keeps an event loop running, which other tests must not meet
def browser(playwright_api):
    """Debian's `chromium`, or Chrome, driven by playwright."""
    executable = find_browser()
    if executable is None:
        pytest.skip(f"no browser on this machine, none of {', '.join(CHROMIUMS)}: run `make test-browser`")
    with playwright_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=SOFTWARE_WEBGL)
        except playwright_api.Error as error:
            pytest.skip(f"{executable} cannot be started: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """An empty page, 1280 × 800, that reaches this machine only; `page.goto(path.as_uri())` opens a file."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.route(lambda url: not url.startswith(AT_HOME), lambda route: route.abort())
    context.set_default_timeout(120_000)  # a busy machine draws slowly without a graphics card
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def complaints(page):
    """What goes wrong on the page, as it happens: exceptions, console errors, requests for other machines."""
    found = []
    page.on("pageerror", lambda error: found.append(f"exception: {error}"))
    page.on("console", lambda message: message.type == "error" and found.append(f"console: {message.text}"))
    page.on("request", lambda request: request.url.startswith(AT_HOME) or found.append(f"request: {request.url}"))
    return found
