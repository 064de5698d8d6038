"""How a table travels to the service: as the file that it is, as Parquet, or as JSON."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from descent import frames
from descent.media_types import headers_of
from descent.predictions import Table, table_body
from descent.progress import Screen, transfer
from descent.transport import API, Call, Tell, Watched

NAME = "dataset"  # of what has no name of its own


@contextmanager
def upload_call(
    source: str | Path | bytes | Table,
    name: str | None,
    content_type: str | None,
    options: Mapping[str, str],
    where: Screen,
) -> Iterator[Call]:
    """Yield the request that uploads a table; what it needs is there until the end."""
    path = f"{API}/datasets"
    if isinstance(source, bytes):
        headers = {"Content-Type": content_type or "text/csv"}
        params = {"name": name or NAME, **options}
        yield Call("POST", path, params=params, content=lambda: source, headers=headers)
    elif isinstance(source, str | Path):
        file = Path(source)
        headers = headers_of(file, content_type)
        with file_content(file, where, "Uploading") as content:
            params = {"name": name or file.name.split(".")[0], **options}
            yield Call("POST", path, params=params, content=content, headers=headers)
    elif kind := frames.kind_of(source):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / (name or NAME)
            with file.open("wb") as target:
                written_as = frames.write(source, kind, target)
            with file_content(file, where, "Uploading") as content:
                params = {"name": name or NAME, **options}
                headers = {"Content-Type": written_as}
                yield Call("POST", path, params=params, content=content, headers=headers)
    else:
        yield Call("POST", path, params=options, json={"name": name or NAME, **table_body(source)})


@contextmanager
def file_content(file: Path, where: Screen, verb: str) -> Iterator["OpenFile"]:
    """Yield what opens a file for each try to send it, and shows how far that is."""
    with transfer(f"{verb} {file.name}", where) as tell:
        yield OpenFile(file, tell)


class OpenFile:
    """Opens a file to be sent. Called again, it is read from its beginning again."""

    def __init__(self, file: Path, tell: Tell) -> None:
        self._file = file
        self._tell = tell

    def __call__(self) -> Watched:
        return Watched(cast("BinaryIO", self._file.open("rb")), self._tell)
