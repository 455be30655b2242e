from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin import rows

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Tab:
    """A browser tab, logged in, that notes what the site must not do."""

    def __init__(self, page: Any, base: str) -> None:
        self.page, self.base = page, base
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(15_000)
        page.on("request", self._request)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("console", self._console)

    def _request(self, request: Any) -> None:
        # Ace makes small images and workers of its own as data: and blob: URLs.
        if not request.url.startswith((self.base + "/", "data:", "blob:")):
            self.foreign.append(request.url)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "favicon" not in str(message.location):
            self.complaints.append(message.text)

    def open(self, path: str) -> None:
        self.page.goto(self.base + path, wait_until="load")
        self.page.wait_for_function(
            "[...document.querySelectorAll('.django-ace-widget')].every(widget => widget.editor)"
        )

    def login(self, name: str) -> None:
        self.open("/admin/login/")
        self.page.fill("[name=username]", name)
        self.page.fill("[name=password]", "coffee")
        self.page.click("[type=submit]")
        self.page.wait_for_url("**/admin/")

    def write(self, field: str, text: str) -> None:
        """Type into one of the editors."""
        self.page.evaluate(
            "([id, text]) => document.getElementById(id).parentElement"
            ".querySelector('.django-ace-widget').editor.setValue(text, -1)",
            ["id_" + field, text],
        )

    def wait_for_marks(self, field: str, lines: list[int]) -> None:
        """Wait until exactly these lines (1-based) of an editor have an error mark."""
        self.page.wait_for_function(
            "([id, lines]) => JSON.stringify([...new Set(document.getElementById(id).parentElement"
            ".querySelector('.django-ace-widget').editor.session.getAnnotations()"
            ".map(mark => mark.row + 1))]) === JSON.stringify(lines)",
            arg=["id_" + field, lines],
        )

    def photograph(self, name: str, height: int = 1000) -> None:
        """Save what the window shows, where somebody wants the pictures."""
        if folder := os.environ.get("SCREENSHOTS_DIR"):
            self.page.set_viewport_size({"width": 1440, "height": height})
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def tab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, live_server: Any) -> Iterator[Tab]:
    """A tab of headless Chromium on the live site; afterwards no foreign request and no error may have been."""
    sync_api = importlib.import_module("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM_PATH") or shutil.which("chromium")
    if not chromium:
        pytest.fail("The browser tests need Chromium: install it, or set CHROMIUM_PATH to it.")
    # playwright's sync API runs an event loop in this thread, in which Django refuses to use the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    rows.make_user("ada", superuser=True)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(
            viewport={"width": 1440, "height": 1000}, color_scheme=getattr(request, "param", "light")
        )
        tab = Tab(page, live_server.url)
        tab.login("ada")
        yield tab
        browser.close()
    assert tab.foreign == []
    assert tab.complaints == []
