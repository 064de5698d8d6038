"""The API key, error messages, and a service that stops and restarts."""

import contextlib
import csv
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from descent import Client
from tests.browser.conftest import DATA, Opens, Site
from tests.serving import RunService

pytestmark = pytest.mark.slow

KEY = "a-key-that-is-long-enough-0123456789"
ROWS = 4000  # enough for epochs that are long enough to watch


class Locked:
    """A service that requires a key and can be restarted at its address."""

    def __init__(self, run_service: RunService, folder: Path) -> None:
        self._run_service, self._folder = run_service, folder
        self._running = contextlib.ExitStack()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = str(probe.getsockname()[1])
        self.start()

    def start(self) -> None:
        variables = {"DESCENT_PORT": self.port, "DESCENT_API_KEY": KEY}
        self.url = self._running.enter_context(self._run_service(self._folder, **variables))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def locked(run_service: RunService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    service = Locked(run_service, tmp_path_factory.mktemp("locked"))
    try:
        yield service
    finally:
        service.stop()


def unlock(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_and_stays_in_the_tab(visit: Opens, locked: Locked) -> None:
    with Client(locked.url, KEY) as client:
        client.upload(DATA / "scores.csv")
    with visit(locked.url, refusals=True) as visited:
        page = visited.page
        visited.go("")
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        unlock(page, "a-key-that-is-not-one")
        expect(dialog.get_by_role("alert")).to_contain_text("key")
        unlock(page, KEY)
        expect(dialog).to_be_hidden()
        expect(page.get_by_role("link", name="scores", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_role("link", name="scores", exact=True)).to_be_visible()
        assert KEY in page.evaluate("Object.values(sessionStorage)")
        assert KEY not in "".join(visited.requests)
        assert KEY not in page.content()


def test_the_page_shows_the_error_messages_of_the_service(visit: Opens, site: Site) -> None:
    with visit(site.url, refusals=True) as visited:
        page = visited.page
        visited.go(f"#/new?dataset={site.scores}")
        page.get_by_label("Learning rate", exact=True).fill("-1")
        body = {"dataset": site.scores, "target": "Final", "optimizer": {"learning_rate": -1}}
        said = httpx.post(f"{site.url}/api/v1/runs/validate", json=body).json()["errors"][0]
        sentence = said["detail"].partition(": ")[2] or said["detail"]
        expect(page.get_by_label("Learning rate", exact=True)).to_have_attribute(
            "aria-invalid", "true"
        )
        expect(page.locator("small.wrong")).to_contain_text(sentence, ignore_case=True)
        visited.go("#/runs/run_1")
        refused = httpx.get(f"{site.url}/api/v1/runs/run_1").json()
        expect(page.get_by_role("alert")).to_contain_text(refused["detail"])
        visited.go("")
        wrong: FilePayload = {
            "name": "wrong.csv",
            "mimeType": "text/csv",
            "buffer": b"a,b\n1,2\n3,4,5\n",
        }
        page.get_by_label("A table to upload").set_input_files(wrong)
        expect(page.get_by_role("alert")).to_contain_text("Row 2 has 3 cells where 2 are expected")
        expect(page.get_by_role("alert").get_by_role("listitem")).to_have_count(0)


def test_a_curve_goes_on_when_the_service_is_back(
    visit: Opens, locked: Locked, tmp_path: Path
) -> None:
    with Client(locked.url, KEY) as client:
        run = client.submit(client.upload(table(tmp_path)), "y", **SLOW)
        with visit(locked.url, refusals=True) as visited:
            page = visited.page
            visited.go(f"#/runs/{run.id}")
            unlock(page, KEY)
            reached(page, 10)
            page.evaluate("window.isSame = true")
            locked.stop()
            expect(page.get_by_text("Connection lost")).to_be_visible()
            locked.start()
            expect(page.get_by_text("Connection lost")).to_be_hidden()
            reached(page, last_epoch(page) + 10)
            page.get_by_role("button", name="Cancel").click()
            expect(page.locator("main .tag", has_text="cancelled")).to_be_visible()
            drawn = downloaded(page)
            assert page.evaluate("window.isSame")
            visited.complaints = [each for each in visited.complaints if "ERR_CONN" not in each]
        run.wait(check=False)
    assert asked(locked.url, f"runs/{run.id}")["attempt"] == 2
    assert len({row[1] for row in drawn}) == 2
    assert drawn == stored(locked.url, run.id)
    assert [row[0] for row in drawn] == list(range(1, len(drawn) + 1))


SLOW: dict[str, Any] = {
    "model": {"type": "mlp", "hidden": [64, 64]},
    "batch_size": 32,
    "epochs": 5000,
    "early_stopping": None,
}


def table(folder: Path) -> Path:
    path = folder / "slow.csv"
    lines = (f"{row % 97},{row % 89},{row % 83},{row % 79}" for row in range(ROWS))
    path.write_text("\n".join(["a,b,c,y", *lines]))
    return path


def last_epoch(page: Page) -> int:
    return int(page.locator(".u-legend .u-value").first.inner_text().replace(",", ""))


def reached(page: Page, epoch: int) -> None:
    """Wait until the curve reaches this epoch; an epoch takes some hundredths of a second."""
    shown = page.locator(".u-legend .u-value").first
    expect(shown).to_have_text(re.compile(r"\d"))
    while last_epoch(page) < epoch:
        expect(shown).not_to_have_text(shown.inner_text())


Row = tuple[int, str, str, int, float]


def downloaded(page: Page) -> list[Row]:
    page.get_by_text("Values as a table").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = csv.DictReader(Path(download.value.path()).read_text().splitlines())
    return sorted(
        (int(row["seq"]), row["split"], row["name"], int(row["epoch"]), float(row["value"]))
        for row in rows
    )


def stored(url: str, run_id: str) -> list[Row]:
    rows: list[Row] = []
    while True:
        after = rows[-1][0] if rows else 0
        page = asked(url, f"runs/{run_id}/metrics", after=after, limit=10_000)["data"]
        if not page:
            return rows
        rows += [
            (row["seq"], row["split"], row["name"], row["epoch"], row["value"]) for row in page
        ]


def asked(url: str, path: str, **query: int) -> Any:
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.get(f"{url}/api/v1/{path}", params=query, headers=headers)
    return answer.raise_for_status().json()
