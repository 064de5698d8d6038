"""The page of a succeeded run, and the management of its model."""

import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opens, Site
from tests.browser.pictures import picture

pytestmark = pytest.mark.slow


def test_the_slider_shows_the_line_of_each_epoch(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/understand/{site.line}")
        slider = page.get_by_role("slider", name="Epoch", exact=True)
        last = told(page, 400)
        picture(page, "understand", height=1300)
        slider.focus()
        page.keyboard.press("Home")
        assert told(page, 0) != last
        page.keyboard.press("ArrowRight")
        assert told(page, 1) != last
        page.get_by_role("button", name="Play").click()
        expect(
            page.get_by_role("img", name=re.compile(r"^Epoch ([2-9]\d|[1-3]\d\d):"))
        ).to_be_visible()
        slider.focus()
        page.keyboard.press("End")
        assert told(page, 400) == last


def test_a_boundary_is_drawn_between_classes(visit: Opens, site: Site) -> None:
    with visit(site.url, color_scheme="dark") as visited:
        page = visited.page
        visited.go(f"#/understand/{site.net}")
        map_ = page.get_by_role("img", name=re.compile("the classes over column_3 and column_4"))
        expect(map_).to_be_visible()
        expect(page.get_by_role("heading", name="Decision boundary")).to_be_visible()
        expect(page.get_by_role("region", name="Weights and activations")).to_be_visible()
        picture(page, "boundary-dark", height=1100)
        last = map_.evaluate("(canvas) => canvas.toDataURL()")
        page.get_by_role("slider", name="Epoch", exact=True).focus()
        page.keyboard.press("Home")
        assert map_.evaluate("(canvas) => canvas.toDataURL()") != last


def told(page: Page, epoch: int) -> tuple[str, str]:
    """Return the plot of the line at an epoch: its label and its pixels."""
    fit = page.get_by_role("img", name=re.compile(f"^Epoch {epoch}: predictions over Quiz"))
    expect(fit).to_be_visible()
    name = (fit.get_attribute("aria-label") or "").partition(": ")[2]
    return name, fit.evaluate("(canvas) => canvas.toDataURL()")


def test_learning_rates_too_small_right_and_too_large_are_told_apart(
    visit: Opens, site: Site
) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/understand/{site.line}")
        page.get_by_role("button", name="Train all three").click()
        rates = page.get_by_role("region", name="Compare learning rates")
        for kind, verdict in VERDICTS.items():
            expect(rates.get_by_role("heading", name=kind)).to_be_visible()
            expect(rates.get_by_text(verdict)).to_be_visible()
        expect(rates.get_by_role("img", name="Path over w and b, 40 steps.")).to_have_count(3)
        picture(page, "rates", height=2400, of=rates)
        visited.go("#/runs")
        expect(page.get_by_role("table")).to_contain_text("learning rate too small")
        picture(page, "runs")


#: the sentence below each of the three
VERDICTS = {
    "too small": re.compile("too small to make progress|has not converged"),
    "right": re.compile(r"The loss went from [\d.]+ to [\d.]+\.$"),
    "too large": re.compile("the steps overshoot and training diverges"),
}


def test_an_alias_is_moved_and_moved_back(visit: Opens, site: Site) -> None:
    alias = f"{site.url}/api/v1/models/scores/aliases/champion"
    with visit(site.url) as visited:
        page = visited.page
        visited.go("#/models/scores")
        rows = page.locator("table.versions tbody tr")
        for place, version in ((1, 1), (0, 2)):
            rows.nth(place).get_by_role("button", name="Set as champion").click()
            expect(rows.nth(place).locator(".tag.active")).to_have_text("champion")
            assert httpx.get(alias).json()["version"] == version
        page.get_by_role("button", name="Undo").click()
        expect(rows.nth(1).locator(".tag.active")).to_have_text("champion")
        assert httpx.get(alias).json()["version"] == 1


def test_a_run_is_renamed_and_a_deletion_is_asked_about(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/runs/{site.net}")
        page.get_by_role("button", name="Rename").click()
        name = page.get_by_role("textbox", name="Name of this run")
        name.fill("blossoms")
        name.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("blossoms")
        page.get_by_role("button", name="Delete").click()
        question = page.get_by_role("dialog", name="Delete this run?")
        expect(question).to_be_visible()
        page.keyboard.press("Escape")
        expect(question).to_be_hidden()
        assert httpx.get(f"{site.url}/api/v1/runs/{site.net}").status_code == 200
