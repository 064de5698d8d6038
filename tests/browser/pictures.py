"""Pictures of the page for the documents, taken where DESCENT_PICTURES names a folder for them."""

import os
from pathlib import Path

from playwright.sync_api import Page

FOLDER = os.environ.get("DESCENT_PICTURES")


def picture(page: Page, name: str, *, height: int | None = None) -> None:
    """Write what the page shows, `height` pixels of it or as much as fits the window."""
    if FOLDER is None:
        return
    size = page.viewport_size
    assert size is not None
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    page.set_viewport_size({"width": size["width"], "height": height or size["height"]})
    page.screenshot(path=Path(FOLDER) / f"{name}.png", animations="disabled", scale="css")
    page.set_viewport_size(size)
