"""A browser without a window, where the machine has one."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"there is no browser here ({', '.join(NAMES)})")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


FRAME = """<!doctype html><body><script>
addEventListener("message", ({ data: [name, value] }) => document.body.setAttribute(`data-told-${name}`, value));
</script><iframe src="probe.html" width="WIDTH" height="900" style="border:0"></iframe></body>"""
TELL = "const tell = (name, value) => parent.postMessage([name, String(value)], '*');"


def open_page(page: Path, script: str, width: int = 1280, *flags: str) -> dict[str, str]:
    """What a script says that runs behind the page's own: it may call `tell(name, value)`.

    Args:
        page: an HTML file.
        script: JavaScript.
        width: of the window that the page sees, a frame, since browsers have windows of 500 CSS pixels at least.
        flags: further ones of the browser.
    """
    probe, frame = page.with_name("probe.html"), page.with_name("frame.html")
    html = page.read_text(encoding="utf-8").replace("</body>", f"<script>{{{TELL}{script}}}</script></body>")
    probe.write_text(html, encoding="utf-8")
    frame.write_text(FRAME.replace("WIDTH", str(width)))
    profile = f"--user-data-dir={page.with_name('profile')}"
    command = [
        str(BROWSER),
        *FLAGS,
        profile,
        "--virtual-time-budget=2000",
        *flags,
        "--dump-dom",
        frame.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = Told()
    told.feed(done.stdout)
    return told.found


class Told(HTMLParser):
    """Collects what scripts told."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs if re.match("data-told-", name)}
        self.found |= {name.removeprefix("data-told-"): value for name, value in told.items()}
