"""The whole workflow of a user with a table and no documentation."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import DATA, Opens, Site
from tests.browser.pictures import picture
from tests.serving import running_service

pytestmark = pytest.mark.slow

#: Counts the distinct epochs that the legend of the plot has shown, in an attribute for `expect`.
WATCH = """
const epochs = new Set();
new MutationObserver(() => {
  const shown = document.querySelector(".u-legend .u-value")?.textContent ?? "";
  if (/\\d/.test(shown)) epochs.add(shown);
  document.documentElement.dataset.epochs = epochs.size;
}).observe(document.body, { subtree: true, childList: true, characterData: true });
"""
DROP = """([element, name, text]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([text], name, { type: "text/csv" }));
  const all = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const kind of ["dragover", "drop"]) element.dispatchEvent(new DragEvent(kind, all));
}"""
SHOWN = "(canvas) => [canvas.getAttribute('aria-label'), canvas.toDataURL()]"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a service without any data."""
    with running_service(tmp_path_factory.mktemp("story")) as url:
        yield url


def test_a_table_is_dropped_a_line_is_learnt_and_predicts(visit: Opens, empty: str) -> None:
    with visit(empty) as visited:
        page = visited.page
        visited.go("")
        expect(page.get_by_role("heading", name="Drop a table here")).to_be_visible()
        picture(page, "start")
        place = page.locator(".drop").element_handle()
        page.evaluate(DROP, [place, "scores.csv", (DATA / "scores.csv").read_text()])
        expect(page.get_by_role("heading", name="scores")).to_be_visible()
        expect(page.locator("table.data")).to_contain_text("25.2")
        picture(page, "dataset")
        page.get_by_role("link", name="Train a model").click()
        expect(page.get_by_role("img", name="Network")).to_be_visible()
        picture(page, "new-run")
        page.evaluate(WATCH)
        page.get_by_role("button", name="Train", exact=True).click()
        watched(page)
        picture(page, "run")
        page.get_by_role("link", name="Predict").click()
        predicted(page)
        picture(page, "model")


def watched(page: Page) -> None:
    """Check that the curve and the fitted line change until the run has succeeded."""
    expect(page.locator(".plot")).to_be_visible()
    fit = page.get_by_role("img", name=re.compile("Epoch .*predictions over Quiz"))
    expect(fit).to_be_visible()
    before, painted = fit.evaluate(SHOWN)  # at once: epochs go on between two reads
    expect(page.locator("main .tag", has_text="succeeded")).to_be_visible()
    expect(fit).not_to_have_attribute("aria-label", before)
    assert fit.evaluate(SHOWN)[1] != painted
    expect(page.get_by_text("Slow-motion replay")).to_have_count(0)
    expect(page.locator("html")).to_have_attribute("data-epochs", re.compile(r"^([4-9]|\d\d+)$"))
    losses = [float(part) for part in re.findall(r"train from (\S+) to (\S+);", label(page))[0]]
    assert losses[1] < losses[0]


def label(page: Page) -> str:
    return page.locator(".plot").get_attribute("aria-label") or ""


def predicted(page: Page) -> None:
    """Move the slider and check that the prediction changes."""
    answer = page.locator(".predicted")
    expect(answer).to_have_text(re.compile(r"\d"))
    before = answer.inner_text()
    slider = page.get_by_role("slider", name="Quiz")
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    expect(answer).not_to_have_text(before)
    assert float(answer.inner_text()) > float(before)


def test_the_story_is_walked_with_the_keyboard_alone(visit: Opens, empty: str) -> None:
    with visit(empty) as visited:
        page = visited.page
        # Set before the page opens: Playwright does not wait until a listener is active.
        page.on("filechooser", lambda _chooser: None)
        visited.go("")
        expect(page.get_by_role("heading", name="Drop a table here")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        reach(page, page.get_by_role("button", name="Choose a file"))
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(DATA / "scores.csv")
        reach(page, page.get_by_role("link", name="Train a model"))
        page.keyboard.press("Enter")
        reach(page, page.get_by_role("radio", name="Multilayer perceptron"))
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("radio", name="Linear model")).to_be_checked()
        reach(page, page.get_by_role("button", name="Train", exact=True))
        page.keyboard.press("Space")
        reach(page, page.get_by_role("link", name="Predict"))
        page.keyboard.press("Enter")
        slider = page.get_by_role("slider", name="Quiz")
        answer = page.locator(".predicted")
        expect(answer).to_have_text(re.compile(r"\d"))
        before = answer.inner_text()
        reach(page, slider)
        page.keyboard.press("End")
        expect(answer).not_to_have_text(before)


def test_a_plot_and_a_slider_over_epochs_are_moved_by_keys(visit: Opens, site: Site) -> None:
    with visit(site.url) as visited:
        page = visited.page
        visited.go(f"#/runs/{site.line}")
        plot = page.locator(".plot")
        reach(page, plot)
        page.keyboard.press("+")
        expect(plot.get_by_role("button", name="Reset")).to_be_enabled()
        page.keyboard.press("Escape")
        expect(plot.get_by_role("button", name="Reset")).to_be_disabled()
        visited.go(f"#/understand/{site.line}")
        reach(page, page.get_by_role("slider", name="Epoch", exact=True))
        page.keyboard.press("Home")
        expect(page.get_by_role("img", name=re.compile("^Epoch 0:"))).to_be_visible()


#: Whether the focused element has a visible outline.
SEEN = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
}"""
MOST = 80  # elements of a view that can take the focus


def reach(page: Page, wanted: Locator) -> None:
    """Press Tab until the element has the focus; each element on the way shows its focus."""
    expect(wanted).to_be_visible()
    for _ in range(MOST):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            continue  # after the last element the focus leaves the page once
        assert page.evaluate(SEEN), page.evaluate("document.activeElement.outerHTML")
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    pytest.fail(f"Tab does not reach {wanted}")
