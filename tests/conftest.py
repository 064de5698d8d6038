"""Fixtures: real databases, a real server in a thread, and the whole service as a process."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from models.failpoints import VARIABLE
from service import logs
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.columns import new_id
from service.storage.database import create_database, migrate
from tests.engines import Engines
from tests.postgres import Databases, database, execute, own_server
from tests.serving import TLS, RunService, Serve, app_of, forked_service, serving
from tests.storage import KINDS, Place, running_s3
from tests.warm import Parent

TEMPLATE = "template_descent"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow files first, so that no process runs a long one while the others are idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--both-databases", action="store_true", help="every test on PostgreSQL too")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the database on SQLite, and on PostgreSQL too if its SQL may differ."""
    if "database_url" in metafunc.fixturenames:
        is_both = metafunc.config.getoption("--both-databases")
        is_both = is_both or metafunc.definition.get_closest_marker("both_databases") is not None
        kinds = ["sqlite", "postgresql"] if is_both else ["sqlite"]
        metafunc.parametrize("database_url", kinds, indirect=True)


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """Log as the service does: structlog's default formats tracebacks, which takes seconds."""
    logs.configure("warning")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an SQLite file with the newest schema, as a template."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    engine = create_database(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Start PostgreSQL once; its template database has the newest schema."""
    with own_server() as server:
        url = server.url
        # No test cuts the power, so no sync is needed.
        execute(url, "ALTER SYSTEM SET fsync = off")
        execute(url, "SELECT pg_reload_conf()")
        execute(url, f"CREATE DATABASE {TEMPLATE}")
        engine = create_database(database(url, TEMPLATE))
        migrate(engine)
        engine.dispose()
        yield url


@pytest.fixture(scope="session")
def postgres(postgres_url: str) -> Iterator[Databases]:
    databases = Databases(postgres_url, TEMPLATE)
    yield databases
    databases.close()


MakeDatabase = Callable[[str, Path], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def make_database(request: pytest.FixtureRequest, sqlite_template: Path) -> MakeDatabase:
    """Return a function from a kind and a folder to the URL of a fresh database."""

    @contextlib.contextmanager
    def make(kind: str, folder: Path) -> Iterator[str]:
        if kind == "postgresql":
            postgres: Databases = request.getfixturevalue("postgres")
            with postgres.one() as url:
                yield url
            return
        path = folder / "data" / "descent.sqlite3"
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(sqlite_template, path)
        yield f"sqlite:///{path}"

    return make


@pytest.fixture
def sqlite_url(make_database: MakeDatabase, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a fresh SQLite database with the newest schema."""
    with make_database("sqlite", tmp_path) as url:
        yield url


@pytest.fixture
def fresh_postgres_url(make_database: MakeDatabase, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a fresh PostgreSQL database with the newest schema."""
    with make_database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh, migrated database; see `pytest_generate_tests` for its kind."""
    name = {"sqlite": "sqlite_url", "postgresql": "fresh_postgres_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url)


@pytest.fixture(scope="session")
def engines() -> Engines:
    return Engines()


@pytest.fixture
def engine(database_url: str, engines: Engines) -> Iterator[Engine]:
    with engines.of(database_url) as engine:
        yield engine


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Start an S3 server once; returns the URL of its bucket."""
    with running_s3() as url:
        yield url


MakePlace = Callable[[str, Path], Place]


@pytest.fixture(scope="session")
def make_place(request: pytest.FixtureRequest) -> MakePlace:
    """Return a function from a kind and a data folder to an empty place for blobs."""

    def make(kind: str, folder: Path) -> Place:
        if kind == "local":
            return Place(f"file://{folder.absolute()}/blobs")
        bucket: str = request.getfixturevalue("s3_url")
        return Place(f"{bucket}/{new_id('test')}")

    return make


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, make_place: MakePlace, tmp_path: Path) -> Place:
    """Return an empty place for blobs: the test runs once on each kind of store."""
    return make_place(request.param, tmp_path / "data")


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    """Return the store of the service of `client`."""
    return LocalBlobs(tmp_path / "data" / "blobs")


@pytest.fixture
def client(settings: Settings, serve: Serve) -> httpx.Client:
    """Return a client of the API in a real server, whose worker only parses uploads."""
    return serve(settings)


@pytest.fixture
def serve(engines: Engines) -> Iterator[Serve]:
    """Return a function that starts the API with the given settings and returns a client."""
    with contextlib.ExitStack() as stack:

        def start(settings: Settings) -> httpx.Client:
            engine = stack.enter_context(engines.of(settings.resolved_database_url))
            url = stack.enter_context(serving(app_of(settings, engine)))
            return stack.enter_context(httpx.Client(base_url=url, timeout=30, verify=TLS))

        yield start


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Start the parent process from which services and workers fork."""
    parent = Parent(os.environ, tmp_path_factory.mktemp("warm") / "log")
    yield parent
    parent.end()


@pytest.fixture(scope="session")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that `breakable` reads at its failpoints."""
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="session")
def breakable(failpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Start a process like `warm` whose failpoints are switched on."""
    log = tmp_path_factory.mktemp("breakable") / "log"
    parent = Parent(os.environ | {VARIABLE: str(failpoints)}, log)
    yield parent
    parent.end()


@pytest.fixture(scope="session")
def run_service(warm: Parent) -> RunService:
    """Return a function that runs the whole service in a folder and yields its URL."""
    return partial(forked_service, warm)


@pytest.fixture(scope="session")
def service_url(run_service: RunService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the whole service, worker included; return its URL."""
    with run_service(tmp_path_factory.mktemp("service")) as url:
        yield url


@pytest.fixture
def service(service_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service_url, timeout=60, verify=TLS) as client:
        yield client
