"""Takes a received file in: its bytes become a blob, and a job is queued that parses them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.datasets import refusals
from service.datasets.tables import Dataset, Parse
from service.datasets.upload import JSON, NDJSON, TYPED, Received
from service.datasets.versions import ready_version
from service.ids import new_id
from service.jobs import life
from service.storage import references
from service.storage.blobs import BlobStore
from service.storage.database import writing

#: A file of at most so many bytes and columns is small: parsing it takes well below a second.
SMALL_BYTES = 1024 * 1024
SMALL_COLUMNS = 100
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')


@dataclass(frozen=True)
class Upload:
    """What a client sent."""

    name: str
    received: Received
    #: delimiter, header, missing_values
    options: dict[str, Any]
    caller: str


def accept(
    engine: Engine, blobs: BlobStore, upload: Upload, note: Callable[[Session, Dataset], None]
) -> Parse:
    """Store the bytes and queue their parse. The received file may be removed after this.

    `note` writes what belongs into the same transaction.
    """
    received = upload.received
    reach("ingest.received")
    is_small = _is_small(received.path, received.size, received.media_type)
    with (
        references.stored(engine, blobs, received.path, received.sha256) as held,
        writing(engine) as session,
    ):
        reach("ingest.stored")
        dataset = Dataset(
            id=new_id("ds"),
            name=upload.name,
            state="ingesting",
            media_type=received.media_type,
            sha256=received.sha256,
            bytes=received.size,
            options=upload.options,
        )
        session.add(dataset)
        session.flush()
        parse = Parse(
            id=new_id(Parse.prefix),
            dataset_id=dataset.id,
            version=1,
            options=upload.options,
            caller=upload.caller,
            is_small=is_small,
        )
        life.enqueue(session, parse)
        note(session, dataset)
        references.keep(session, held)
    reach("ingest.accepted")
    return parse


def retype(engine: Engine, dataset_id: str, types: Mapping[str, str], caller: str) -> Parse | None:
    """Queue another parse of the bytes, with other types, as the next version.

    Returns None where the columns have these types.
    """
    with writing(engine) as session:
        current = ready_version(session, dataset_id, None)
        dataset = session.get_one(Dataset, dataset_id)
        known = {column["name"] for column in current.columns}
        if unknown := sorted(set(types) - known):
            raise refusals.unknown_columns(unknown)
        if all(c["type"] == types.get(c["name"], c["type"]) for c in current.columns):
            return None
        parse = Parse(
            id=new_id(Parse.prefix),
            dataset_id=dataset_id,
            version=current.version + 1,
            options=current.options | {"types": {**(current.options.get("types") or {}), **types}},
            caller=caller,
            is_small=(dataset.bytes or 0) <= SMALL_BYTES and len(known) <= SMALL_COLUMNS,
        )
        return life.enqueue(session, parse)


def _is_small(path: Path, size: int, media_type: str) -> bool:
    """Guess from size and width whether a file takes little work; its parser finds out."""
    if size > SMALL_BYTES:
        return False
    if media_type in TYPED:  # only their readers know how many there are
        return True
    content = path.read_bytes()
    if media_type in {JSON, NDJSON}:
        return len(set(_KEY.findall(content))) <= SMALL_COLUMNS
    first = content.lstrip().partition(b"\n")[0]
    return max(first.count(delimiter) for delimiter in (b",", b";", b"\t", b"|")) < SMALL_COLUMNS
