"""A visit to the page, which records the requests and the console messages of the browser.

The end of a visit checks: no request to another host, no breach of the Content-Security-Policy, no
unexpected error or warning, no cookie, and an empty local storage.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
#: Features to disable. The first two would render the address bar's suggestions as two pages per
#: window: half a second of CPU. The others repeat Playwright's list, which this one replaces: they
#: send requests to other hosts or delay the first paint.
OFF = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
    "AimEnabled", "HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch",
    "SpareRendererForSitePerProcess",
)  # fmt: skip
ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    f"--disable-features={','.join(OFF)}",
]
PATIENCE = 40_000  # milliseconds; enough for a busy machine, a longer wait fails the test
WIDE = (1280, 900)
#: The browser's own message for an error response; the page shows the error itself.
REFUSED = re.compile(r"Failed to load resource")
#: Collects breaches of the policy, deprecations and interventions.
LISTEN = """
window.breaches = [];
window.reports = [];
new ReportingObserver((reports) => {
  for (const { type, body } of reports) window.reports.push(`${type}: ${body.message ?? ""}`);
}, { types: ["deprecation", "intervention"], buffered: true }).observe();
addEventListener("securitypolicyviolation", (event) => {
  window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass
class Visit:
    """A browser context with its requests and console messages."""

    url: str
    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, address: str) -> None:
        self.page.goto(f"{self.url}/{address}")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def visiting(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = WIDE,
    refusals: bool = False,
    **options: Any,
) -> Iterator[Visit]:
    """Open a fresh context; `refusals` allows error responses of the service."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, accept_downloads=True, **options
    )
    context.set_default_timeout(PATIENCE)
    context.add_init_script(LISTEN)
    visit = Visit(url, context.new_page())
    context.on("request", lambda request: visit.requests.append(request.url))
    context.on("console", lambda message: _complain(visit, message, refusals=refusals))
    context.on("weberror", lambda error: visit.complaints.append(str(error.error)))
    yield visit
    judge(context, visit)
    context.close()


def _complain(visit: Visit, message: ConsoleMessage, *, refusals: bool) -> None:
    if message.type not in {"error", "warning"}:
        return
    if refusals and REFUSED.search(message.text):
        return
    visit.complaints.append(message.text)


def judge(context: BrowserContext, visit: Visit) -> None:
    host = urlsplit(visit.url).netloc
    for url in visit.requests:
        parts = urlsplit(url)
        assert parts.scheme in {"data", "blob"} or parts.netloc == host, url
    assert visit.complaints == []
    assert visit.page.evaluate("[...window.breaches, ...window.reports]") == []
    assert context.cookies() == []
    assert visit.page.evaluate("Object.keys(localStorage)") == []
