"""Loads a page in a real browser: Chromium without a window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)
# The page in a frame as wide as a phone, a tablet or a desktop, and what a script finds there once it has loaded.
FRAME = """<!doctype html><body style="margin:0"><iframe width="{width}" height="900" style="border:0"></iframe>
<pre id="found"></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {{
  const page = frame.contentDocument;
  const look = (page) => {{ {script} }};
  document.querySelector("#found").textContent = JSON.stringify(look(page));
}};
frame.srcdoc = {page};
</script>"""


def look(page: str, width: int, script: str, folder: Path) -> Any:
    """What `script`, the body of a JavaScript function of the document `page`, returns for a page at this width.

    Skips the test if there is no Chromium, and fails it if the page's own scripts print an error.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    path = folder / "frame.html"
    source = json.dumps(page).replace("</", "<\\/")
    path.write_text(FRAME.format(width=width, script=script, page=source), encoding="utf-8")
    command = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    errors = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert not errors, errors
    found = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert found and found[1], ended.stderr[-2000:]
    return json.loads(unescape(found[1]))
