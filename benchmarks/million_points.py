"""Measures the time until a curve of a million points is drawn, and the frame time while it pans.

Creates such a run in an empty database, serves it, and opens it in the installed Chromium.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from service.runs import lifecycle, metrics
from service.storage.database import create_database, migrate, writing
from tests.service.rows import add_run
from tests.serving import running_service

ROWS = 1_000_000
BATCH = 20_000
OPENINGS = 5
OPEN_TARGET = 1.0  # seconds
FRAME_TARGET = 1000 / 30  # milliseconds
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
#: Pans a zoomed plot by wheel events, one a frame; returns milliseconds per frame.
PAN = """async () => {
  const plot = document.querySelector('.plot');
  plot.focus();
  for (const key of ['+', '+'])
    plot.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const over = plot.querySelector('.u-over');
  const frames = [];
  let last = performance.now();
  for (let count = 0; count < 120; count += 1) {
    const deltaX = count < 60 ? 20 : -20;
    over.dispatchEvent(new WheelEvent('wheel', { deltaX, bubbles: true, cancelable: true }));
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last);
    last = performance.now();
  }
  return frames;
}"""


def make_run(folder: Path) -> str:
    """Store a finished run, with its rows as a worker stores them."""
    engine = create_database(f"sqlite:///{folder / 'descent.sqlite3'}")
    migrate(engine)
    with writing(engine) as session:
        run_id = add_run(session).id
        lifecycle.claim(session, "worker", lease_s=3600.0)
        lifecycle.started(session, run_id, 1, {"device": "cpu"})
    for first in range(1, ROWS, BATCH):
        with writing(engine) as session:
            metrics.append(session, run_id, 1, rows(first), {})
    with writing(engine) as session:
        lifecycle.succeed(session, run_id, 1, {})
    engine.dispose()
    return run_id


def rows(first: int) -> list[dict[str, Any]]:
    return [
        {
            "seq": seq,
            "epoch": (seq + 1) // 2,
            "step": (seq + 1) // 2,
            "split": "train" if seq % 2 else "validation",
            "name": "loss",
            "value": 100 / seq**0.5 + (seq * 7919 % 1000) / 1000,
            "at_s": seq * 1e-4,
        }
        for seq in range(first, first + BATCH)
    ]


def opened(browser: Browser, url: str, run_id: str) -> tuple[Page, float]:
    """Return a page that shows the run's curve, and the seconds from a click until it is drawn.

    Each page is new, because a browser with the curve in its cache only revalidates it.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{url}/#/datasets")
    page.wait_for_selector("text=Drop a table here")
    began = time.perf_counter()
    page.evaluate("hash => { location.hash = hash; }", f"#/runs/{run_id}")
    page.wait_for_selector(".u-legend .u-value")
    return page, time.perf_counter() - began


def main() -> None:
    if not CHROMIUM:
        sys.exit("No Chromium was found: install one, or name it in CHROMIUM.")
    with tempfile.TemporaryDirectory() as name:
        run_id = make_run(Path(name))
        with running_service(Path(name), "--no-worker") as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
            )
            pages = [opened(browser, url, run_id) for _ in range(OPENINGS)]
            frames = pages[-1][0].evaluate(PAN)
            path = f"{url}/api/v1/runs/{run_id}/metrics"
            answer = httpx.get(path, params={"max_points": 2400, "layout": "columns"})
            browser.close()
    seconds, frame = (
        statistics.median(seconds for _page, seconds in pages),
        statistics.median(frames),
    )
    print(f"{ROWS} rows, answered thinned in {answer.elapsed.total_seconds():.2f} s")
    print(f"opened   median {seconds:.2f} s of {OPENINGS}, target {OPEN_TARGET:.0f} s")
    print(f"panned   median {frame:.1f} ms a frame, target {FRAME_TARGET:.1f} ms")
    sys.exit(seconds > OPEN_TARGET or frame > FRAME_TARGET)


if __name__ == "__main__":
    main()
