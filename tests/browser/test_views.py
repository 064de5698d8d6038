"""Each view: accessible by screen reader and keyboard, light and dark, on desktop and phone."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opens, Site
from tests.browser.visit import Visit
from tests.test_page import BUDGET

pytestmark = pytest.mark.slow

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = 380  # pixels
#: address, and a text that the loaded view shows
VIEWS = {
    "": "Drop a table here",
    "#/datasets/{scores}": "First rows",
    "#/new?dataset={scores}": "Custom layers",
    "#/runs": "a line again",
    "#/runs/{line}": "Feature importance",
    "#/runs/{net}": "Confusion",
    "#/runs?compare={line},{net}": "Metrics and settings",
    "#/understand": "Choose a run",
    "#/understand/{line}": "Loss surface",
    "#/understand/{net}": "Weights and activations",
    "#/models": "version 2",
    "#/models/scores": "Downloads",
    "#/models/flowers": "Downloads",
    "#/system": "Name of the new key",
    "#/nowhere": "Page not found",
}


#: Resolves when the view is redrawn for a new size: one frame measures, the next one draws.
SETTLED = """async () => {
  for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
}"""


def shown(visit: Visit, site: Site, address: str) -> None:
    visit.go(address.format(line=site.line, net=site.net, scores=site.scores))
    expect(visit.page.locator("main")).to_contain_text(VIEWS[address])
    expect(visit.page.get_by_text("Loading…")).to_have_count(0)


def faults(page: Page) -> list[Any]:
    """Return the accessibility violations that axe finds, of any impact."""
    assert AXE.exists(), "`make page` installs axe"
    page.evaluate(AXE.read_text())
    found: list[Any] = page.evaluate(
        """axe.run({ resultTypes: ["violations"] }).then(({ violations }) => violations.map(
           ({ id, impact, nodes }) => [id, impact, nodes.map(({ html }) => html.slice(0, 90))]))"""
    )
    return found


@pytest.mark.parametrize("address", VIEWS)
def test_a_view_is_accessible_on_desktop_and_phone(visit: Opens, site: Site, address: str) -> None:
    with visit(site.url, color_scheme="light") as visited:
        shown(visited, site, address)
        page = visited.page
        for summary in page.locator("main details > summary").all():
            summary.click()
        assert faults(page) == []
        page.set_viewport_size({"width": PHONE, "height": 800})
        page.emulate_media(color_scheme="dark")
        page.evaluate(SETTLED)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


def test_the_first_view_is_there_with_few_bytes(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        shown(visited, site, "")
        total = visited.page.evaluate(
            """["navigation", "resource"].flatMap((type) => performance.getEntriesByType(type))
                 .filter(({ name }) => !name.includes("/api/"))
                 .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"""
        )
        assert 10_000 < total <= BUDGET


def test_the_page_keeps_to_good_practice(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        answer = visited.page.goto(site.url)
        assert answer is not None
        text = answer.text()
        assert text.startswith("<!doctype html>")
        assert '<meta charset="utf-8">' in text[:1024]
        assert '<html lang="en">' in text
        assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
        assert '<meta name="description"' in text
        for address in VIEWS:
            shown(visited, site, address)
            assert visited.page.evaluate("isSecureContext && document.title.length > 0")
            unsized = "img:not([width][height]), img:not([alt])"
            expect(visited.page.locator(unsized)).to_have_count(0)
