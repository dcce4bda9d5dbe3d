"""The pictures of README and docs, made from what is there: `make pictures RUN=runs/latest`.

    python -m tests.pictures --run runs/latest                    # writes docs/pictures/{report,chat,panels}.png
    python -m tests.pictures --run runs/latest --look FOLDER      # also dark and at a phone's width, to look at

Needs Chromium and Prometheus (Debian's packages). The chat page is a real one: the run's model is served, an example is
asked, and the picture is taken when the answer has streamed to its end. The panels are the dashboard's, of synthetic
traffic in a real Prometheus. `docs/pictures/sources.json` keeps the hash of what a picture shows; tests/test_docs.py
says when that has changed. The dashboard's pictures come from a trial on a real Kubeflow
(docs/log.md) and are not made here.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.serving.browser import CHROMIUM, Page, browser

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs/pictures"
SOURCES = {
    "report.png": (
        "clinical_r1/templates/train.html.j2",
        "clinical_r1/templates/base.html.j2",
        "clinical_r1/templates/style.css",
    ),
    "panels.png": ("serving/monitoring/panels.yaml", "tests/serving/panel_sheet.py"),
    "chat.png": ("serving/gateway/page/index.html", "serving/gateway/page/chat.css", "serving/gateway/page/chat.js"),
}
"""What each picture shows."""
WIDE, SHEET, PHONE = (1200, 900), (1360, 900), (390, 844)
LIMIT_SECONDS = 120.0


def digest(names: tuple[str, ...]) -> str:
    """First 16 hex digits of the SHA-256 over the files."""
    return hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in names)).hexdigest()[:16]


@asynccontextmanager
async def served(model: Path) -> AsyncIterator[str]:
    """The chat page's address, of a server of this model that ends with the block."""
    command = [sys.executable, "-m", "pipelines.cli.main", "serve", str(model), "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            async for line in process.stdout:
                if found := re.search(rb"http://127\.0\.0\.1:\d+", line):
                    yield found[0].decode()
                    return
        raise SystemExit(f"error: {model} could not be served: try `clinical-r1 serve {model}`")
    finally:
        process.terminate()
        await process.wait()


def panel_sheet(folder: Path) -> Path:
    """The dashboard's panels from a real Prometheus under synthetic traffic, drawn by their own test."""
    target = folder / "panels.html"
    command = [sys.executable, "-m", "pytest", "-q", "tests/serving/test_dashboard.py", "-k", "every_query"]
    environment = {**os.environ, "PANEL_SHEET": str(target), "PANEL_SECONDS": "60"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600, stdout=subprocess.DEVNULL)
    if not target.is_file():
        raise SystemExit("error: no prometheus on the PATH: install Debian's package (apt-get install prometheus)")
    return target


async def take(run: Path, panels: Path, look: Path | None) -> None:
    """All pictures, and with `look` each page dark and at a phone's width too."""
    async with browser() as page, served(run / "model") as chat:
        pages = {"report": (run / "report.html").resolve().as_uri(), "chat": chat + "/", "panels": panels.as_uri()}
        for name, url in pages.items():
            views = [(SHEET if name == "panels" else WIDE, False, PICTURES / f"{name}.png")]
            if look is not None:
                views += [(WIDE, True, look / f"{name}-dark.png"), (PHONE, False, look / f"{name}-phone.png")]
            for size, dark, path in views:
                await show(page, url, size, dark)
                if name == "chat":
                    await page.until("document.body.dataset.ready === 'yes'")
                    await page.js("document.getElementById('example').click(); document.getElementById('send').click()")
                    ended = "['done', 'cut'].includes(document.querySelector('.n-state')?.dataset.state)"
                    await page.until(ended, seconds=LIMIT_SECONDS)
                path.parent.mkdir(parents=True, exist_ok=True)
                await page.picture(path)
                print(path)


async def show(page: Page, url: str, size: tuple[int, int], dark: bool) -> None:
    """Go to a page in this size and scheme, and wait until it is drawn."""
    width, height = size
    await page.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=size == PHONE
    )
    await page.call("Emulation.setScrollbarsHidden", hidden=True)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    await page.call("Emulation.setEmulatedMedia", features=[scheme])
    await page.open(url)
    await page.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")


def main() -> int:
    """Takes the pictures and keeps the hashes of what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs/latest", help="a finished run's folder")
    parser.add_argument("--look", type=Path, help="a folder for the dark and narrow views")
    given = parser.parse_args()
    if not (given.run / "report.html").is_file():
        print(f"error: {given.run}: no report.html: name a finished run, or make one (make run)", file=sys.stderr)
        return 2
    if CHROMIUM is None:
        print("error: no chromium on the PATH: install Debian's package (apt-get install chromium)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(take(given.run, panel_sheet(Path(folder)), given.look))
    hashes = {name: digest(files) for name, files in SOURCES.items()}
    (PICTURES / "sources.json").write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
