"""Screenshots of the page for the docs, written to the folder in PICTURES, if it is set."""

import os
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page

FOLDER = os.environ.get("PICTURES")

COLORS = 256  # enough for the page; halves the file size


def picture(page: Page, name: str, *, height: int | None = None, of: Locator | None = None) -> None:
    """Write a screenshot of a window of this height, or of one element."""
    if FOLDER is None:
        return
    size = page.viewport_size
    assert size is not None
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    page.set_viewport_size({"width": size["width"], "height": height or size["height"]})
    path = Path(FOLDER) / f"{name}.png"
    (of or page).screenshot(path=path, animations="disabled", scale="css")
    page.set_viewport_size(size)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)
