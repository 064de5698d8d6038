"""A search over settings: submitted from the form, followed live, and compared in its plots."""

import contextlib
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from descent import Client
from descent.errors import Conflict, NotFound
from tests.browser.conftest import Opens, Site
from tests.browser.pictures import picture
from tests.browser.test_views import PHONE, SETTLED, faults

pytestmark = pytest.mark.slow

TRIALS = 16
LONG = 1_000_000  # epochs; such a member trains until it is stopped


@pytest.fixture(scope="module")
def searched(site: Site) -> str:
    """Return the id of a sweep of four trials that has ended, one of which failed."""
    with Client(site.url) as client:
        sweep = client.submit_sweep(
            site.scores,
            "Final",
            {"optimizer.learning_rate": {"grid": [1e-3, 1e-2, 0.1, 1e4]}},
            model={"type": "linear"},
            optimizer={"type": "sgd"},
            epochs=20,
            split={"type": "none"},
            early_stopping=None,
            name="rates",
        )
        sweep.wait()
        return sweep.id


@pytest.fixture
def endless(site: Site) -> Iterator[str]:
    """Return the id of a sweep that trains until it is stopped."""
    with Client(site.url) as client:
        seeds = {"seed": {"grid": [1, 2]}}
        options = {"epochs": LONG, "early_stopping": None, "name": "endless"}
        sweep = client.submit_sweep(site.scores, "Final", seeds, **options)
        yield sweep.id
        with contextlib.suppress(NotFound, Conflict):  # the test has deleted it, or has ended it
            sweep.cancel()


def state(page: Page) -> Locator:
    return page.locator("main h1 + .tag")


def marked(page: Page) -> Locator:
    """Return the sentence about the highlighted trial."""
    return page.locator(".parallel + p")


def test_settings_are_tried_from_the_form_and_ranked(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/new?dataset={site.flowers}")
        page.get_by_label("Epochs", exact=True).fill("40")
        page.get_by_role("textbox", name="Hidden layers").fill("8")
        offer = page.get_by_role("region", name="Not sure?")
        expect(offer).to_contain_text("4 | 8 | 16")
        expect(offer).to_contain_text(re.compile(r"0\.001 . 0\.1, log-uniform"))
        offer.get_by_role("button", name="Try settings").click()
        rows = page.locator("table.leaderboard tbody tr")
        expect(rows).to_have_count(TRIALS)
        expect(state(page)).to_have_text("running")
        expect(state(page)).to_have_text("succeeded", timeout=4 * 40_000)
        values = [float(text) for text in page.locator("tbody td:nth-child(3)").all_inner_texts()]
        assert len(values) == TRIALS
        assert values == sorted(values)
        curves = page.get_by_role("img", name=re.compile(f"over the epochs of {TRIALS} trials"))
        expect(curves.locator("polyline")).to_have_count(TRIALS + 1)
        rates = page.get_by_role("img", name=re.compile(f"Loss of {TRIALS} trials over"))
        expect(rates.locator("circle")).to_have_count(TRIALS + 1)
        picture(page, "sweep", height=1500)
        best = rows.first.get_by_role("link")
        name = best.inner_text()
        progress = page.get_by_role("region", name="Progress")
        expect(progress.get_by_role("link", name=name, exact=True)).to_be_visible()
        best.click()
        back = page.get_by_role("link", name="Sweep", exact=True)
        expect(back.locator("..")).to_contain_text(name.lower())
        back.click()
        expect(rows).to_have_count(TRIALS)


def test_the_plots_of_a_sweep_are_read_with_the_keyboard_alone(
    visit: Opens, site: Site, searched: str
) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/sweeps/{searched}")
        plot = page.get_by_role("group", name=re.compile("Parallel coordinates of 4 trials"))
        plot.focus()
        page.keyboard.press("Home")
        first = page.locator("table.leaderboard tbody tr").first
        best = first.get_by_role("link").inner_text()
        expect(marked(page)).to_have_text(re.compile(f"^{best}: learning rate "))
        expect(first).to_have_class("marked")
        page.keyboard.press("ArrowDown")
        expect(first).not_to_have_class("marked")
        expect(page.locator("p[role=status]")).to_have_text(marked(page).inner_text())
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(f"rates · {best.split()[1]}")


def test_a_trial_that_is_pointed_at_stands_out_in_each_plot(
    visit: Opens, site: Site, searched: str
) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/sweeps/{searched}")
        row = page.locator("table.leaderboard tbody tr").nth(1)
        name = row.get_by_role("link").inner_text()
        circle = page.get_by_role("img", name=re.compile("^Loss of")).locator("circle.marked")
        curve = page.get_by_role("img", name=re.compile("over the epochs")).locator(".marked")
        places = [circle.get_attribute("cx"), curve.get_attribute("points")]
        row.hover()
        expect(marked(page)).to_have_text(re.compile(f"^{name}: "))
        expect(circle).not_to_have_attribute("cx", places[0] or "")
        expect(curve).not_to_have_attribute("points", places[1] or "")


def test_a_sweep_is_paused_resumed_and_cancelled(visit: Opens, site: Site, endless: str) -> None:
    # A request on its way may be answered after the deletion.
    with visit(site.url, refusals=True) as visited:
        page = visited.page
        visited.go(f"#/sweeps/{endless}")
        expect(state(page)).to_have_text("running")
        page.get_by_role("button", name="Pause").click()
        expect(state(page)).to_have_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(state(page)).to_have_text("running")
        page.get_by_role("button", name="Cancel").click()
        expect(state(page)).to_have_text("cancelled")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="Sweeps")).to_be_visible()
        expect(page.get_by_role("link", name="endless")).to_have_count(0)


def test_a_learning_rate_is_found_and_taken_over_to_the_form(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/new?dataset={site.flowers}")
        page.get_by_role("button", name="Find a learning rate").click()
        expect(page.get_by_role("heading", name="Loss over learning rate")).to_be_visible()
        curve = page.get_by_role("img", name=re.compile("^Loss over the learning rate from"))
        expect(curve.locator(".best")).to_be_visible()
        assert faults(page) == []
        taken = page.get_by_role("link", name=re.compile("^Use "))
        rate = taken.inner_text().removeprefix("Use ")
        taken.click()
        field = page.get_by_label("Learning rate", exact=True)
        expect(field).not_to_have_value("")
        assert float(field.input_value()) == pytest.approx(float(rate), rel=1e-3)
        expect(page.get_by_label("Register as")).to_have_value("iris")


@pytest.mark.parametrize("address", ["#/sweeps", "#/sweeps/{sweep}"])
def test_a_view_of_sweeps_is_accessible_on_desktop_and_phone(
    visit: Opens, site: Site, searched: str, address: str
) -> None:
    with visit(site.url, color_scheme="light") as visited:
        page = visited.page
        visited.go("#/runs")
        page.get_by_role("link", name="Sweeps", exact=True).click()
        expect(page.get_by_role("link", name="rates", exact=True)).to_be_visible()
        visited.go(address.format(sweep=searched))
        expect(
            page.get_by_role("heading", name="rates").or_(page.get_by_role("table"))
        ).not_to_have_count(0)
        expect(page.get_by_text("Loading…")).to_have_count(0)
        assert faults(page) == []
        page.set_viewport_size({"width": PHONE, "height": 800})
        page.emulate_media(color_scheme="dark")
        page.evaluate(SETTLED)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE
