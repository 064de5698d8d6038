"""Fixtures: a parser in this process, and an API that needs no worker and no PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.engines import Engines
from tests.service.datasets.tables import Parse, parser
from tests.serving import TLS, serving


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    return parser(tmp_path)


@pytest.fixture
def api(sqlite_url: str, engines: Engines, tmp_path: Path) -> Iterator[httpx.Client]:
    """Return a client of the API on SQLite, with small limits."""
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=sqlite_url,
        max_upload_bytes=12 * 1024 * 1024,
        max_json_table_bytes=100_000,
        max_gzip_ratio=100,
        max_columns=1000,
    )
    with (
        engines.of(sqlite_url) as engine,
        serving(create_app(settings, engine)) as url,
        httpx.Client(base_url=url, timeout=60, verify=TLS) as client,
    ):
        yield client
