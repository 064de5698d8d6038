"""Measures the time from an event of a running run until Chromium shows it on the screen.

The whole service runs on this machine, training included. An event is on the screen with the first
frame whose newest epoch is the event's own or a later one.
"""

import datetime as dt
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Page, sync_playwright

from descent import Client
from tests.serving import running_service

EVENTS = 200
TARGET = 0.25  # seconds, the 95th percentile
ROWS = 2_000  # one epoch takes some hundredths of a second
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
TRAINING: dict[str, Any] = {
    "model": {"type": "mlp", "hidden": [64, 64]},
    "epochs": 9_000,
    "early_stopping": None,
}
#: Records the epoch that each frame shows, until it has seen enough: [epoch, milliseconds] of each.
SEEN = """async (wanted) => {
  const seen = new Map();
  while (seen.size < wanted) {
    await new Promise(requestAnimationFrame);
    await new Promise((resolve) => setTimeout(resolve)); // it is painted by now
    const shown = document.querySelector(".u-legend .u-value").textContent.replaceAll(",", "");
    if (/^\\d+$/.test(shown) && !seen.has(shown)) seen.set(shown, Date.now());
  }
  return [...seen].map(([epoch, at]) => [Number(epoch), at / 1000]);
}"""


def table(folder: Path) -> Path:
    path = folder / "table.csv"
    lines = (f"{row % 97},{row % 89},{row % 83},{row % 79}" for row in range(ROWS))
    path.write_text("\n".join(["a,b,c,y", *lines]))
    return path


def committed(url: str, run_id: str) -> list[tuple[int, float]]:
    """Return the newest epoch of each event, and the time just before its commit."""
    found: list[tuple[int, float]] = []
    query: dict[str, Any] = {"limit": 200, "after": 0}
    while True:
        answer = httpx.get(f"{url}/api/v1/runs/{run_id}/events", params=query)
        page = answer.raise_for_status().json()
        for event in page["data"]:
            if event["event"] == "metrics":
                at = dt.datetime.fromisoformat(event["created_at"]).timestamp()
                found.append((event["data"]["rows"][-1]["epoch"], at))
        if not page["has_more"]:
            return found
        query["after"] = page["next_cursor"]


def watched(page: Page, url: str, run_id: str) -> list[tuple[int, float]]:
    page.goto(f"{url}/#/runs/{run_id}")
    page.wait_for_selector(".u-legend .u-value")
    seen: list[tuple[int, float]] = [tuple(each) for each in page.evaluate(SEEN, EVENTS)]
    return seen


def main() -> None:
    if not CHROMIUM:
        sys.exit("No Chromium was found: install one, or name it in CHROMIUM.")
    with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url:
        with Client(url) as client, sync_playwright() as playwright:
            run = client.submit(client.upload(table(Path(name))), "y", **TRAINING)
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            seen = watched(page, url, run.id)
            browser.close()
            run.cancel()
        events = committed(url, run.id)
    delays = sorted(
        next(shown for later, shown in seen if later >= epoch) - at
        for epoch, at in events
        if seen[0][0] < epoch <= seen[-1][0]
    )
    median, p95 = statistics.median(delays), delays[int(len(delays) * 0.95)]
    print(f"{len(delays)} events of {ROWS} rows' epochs, {len(seen)} frames")
    print(f"shown    median {median:.3f} s, p95 {p95:.3f} s, most {delays[-1]:.3f} s")
    sys.exit(p95 > TARGET)


if __name__ == "__main__":
    main()
