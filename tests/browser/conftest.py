"""One browser per test module, and one service with datasets, runs and models per process."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, expect

from descent import Client
from descent.demo import LINE
from tests.browser.visit import CHROMIUM, PATIENCE, Visit, chromium, visiting
from tests.serving import RunService

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "descent" / "data"

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no Chromium is installed"))


@dataclass(frozen=True)
class Site:
    """A service with two datasets, two versions of a linear model, and a network."""

    url: str
    line: str
    net: str
    scores: str
    flowers: str


class Opens(Protocol):
    """Opens a service in a fresh browser context."""

    def __call__(self, url: str, **options: Any) -> AbstractContextManager[Visit]: ...


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Opens:
    return partial(visiting, browser)


@pytest.fixture(scope="session")
def site(run_service: RunService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_service(tmp_path_factory.mktemp("browsed")) as url:
        yield furnished(url)


def furnished(url: str) -> Site:
    with Client(url) as client:
        scores = client.upload(DATA / "scores.csv")
        flowers = client.upload(DATA / "iris.csv")
        line = LINE | {"epochs": 400, "register_as": "scores"}
        submitted = [
            client.submit(scores, "Final", **line, name="a line"),
            client.submit(scores, "Final", **line | {"epochs": 300}, name="a line again"),
            client.submit(
                flowers,
                "column_5",
                features=["column_3", "column_4"],
                model={"type": "mlp", "hidden": [8]},
                epochs=60,
                register_as="flowers",
                name="flowers",
            ),
        ]
        runs = [run.wait() for run in submitted]
    return Site(url, line=runs[0].id, net=runs[2].id, scores=scores.id, flowers=flowers.id)
