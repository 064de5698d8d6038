"""Fixtures: a parser in this process, and an API that needs no worker and no PostgreSQL."""

from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.service.datasets.tables import Parse, parser
from tests.serving import Serve


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    return parser(tmp_path)


@pytest.fixture
def api(sqlite_url: str, serve: Serve, tmp_path: Path) -> httpx.Client:
    """Return a client of the API on SQLite, with small limits."""
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=sqlite_url,
        max_upload_bytes=12 * 1024 * 1024,
        max_json_table_bytes=100_000,
        max_gzip_ratio=100,
        max_columns=1000,
    )
    client = serve(settings)
    client.timeout = 60
    return client
