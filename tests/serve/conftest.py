"""A real browser for the tests of the page."""

import os
import shutil
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")  # not longer: while it runs, its event loop occupies the main thread
def browser() -> Iterator[object]:
    """Headless Chromium; skipped with a word where it is not installed, never in CI."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        assert "CI" not in os.environ, "CI needs the package chromium"
        pytest.skip("needs a browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()
