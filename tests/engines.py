"""Shared engines of tests: an engine caches compiled statements, and a test runs few."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Dialect, Engine, event, make_url

from service.storage import database
from service.storage.database import create_database


class Engines:
    """Engines of the service; a free engine is connected to another database."""

    def __init__(self) -> None:
        self._free: dict[str, list[Engine]] = defaultdict(list)

    @contextmanager
    def of(self, url: str) -> Iterator[Engine]:
        """Give an engine for exclusive use; close its connections at the end."""
        wanted = make_url(url)
        free = self._free[wanted.get_backend_name()]
        engine = free.pop() if free else _mobile(create_database(url))
        engine.url = wanted.set(drivername=engine.url.drivername)
        # A thread of the test before may have connected to that test's database once more.
        engine.dispose()
        try:
            yield engine
        finally:
            database.ring_on_commit(engine, lambda _channel: None)
            engine.dispose()
            free.append(engine)


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Record the statements that an engine executes meanwhile: SQL and its values."""
    found: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, text: str, values: Any, *_: object) -> None:
        found.append((text, values))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _mobile(engine: Engine) -> Engine:
    """Let an engine connect to its current URL."""

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Dialect, _record: object, arguments: list[Any], named: dict[str, Any]
    ) -> None:
        arguments[:], own = dialect.create_connect_args(engine.url)
        named.update(own)

    return engine
