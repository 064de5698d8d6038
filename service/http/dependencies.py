"""The dependencies that routes of every room share: settings, engine, blobs and sessions."""

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.settings import Settings
from service.storage.blobs import BlobStore
from service.storage.database import reading, writing
from service.storage.scratch import Scratch

AFTER_COMMIT = "after_commit"  # the key of a session's callbacks in its `info`


def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


def engine(request: Request) -> Engine:
    found: Engine = request.app.state.engine
    return found


def blobs(request: Request) -> BlobStore:
    found: BlobStore = request.app.state.blobs
    return found


def scratch(request: Request) -> Scratch:
    found: Scratch = request.app.state.scratch
    return found


SettingsDep = Annotated[Settings, Depends(settings)]
EngineDep = Annotated[Engine, Depends(engine)]
BlobsDep = Annotated[BlobStore, Depends(blobs)]
ScratchDep = Annotated[Scratch, Depends(scratch)]


def read_session(engine: EngineDep) -> Iterator[Session]:
    with reading(engine) as session:
        yield session


def write_session(engine: EngineDep, request: Request) -> Iterator[Session]:
    with writing(engine) as session:
        # An idempotent request's response is stored in the same transaction.
        request.state.session = session
        yield session
        reach("api.commit")
    reach("api.committed")
    for call in session.info.get(AFTER_COMMIT, ()):
        call()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Call `call` after the WriteSession has committed and returned its connection."""
    session.info.setdefault(AFTER_COMMIT, []).append(call)


# scope="function": the session commits before the response is sent, so that the client sees a
# failed COMMIT as an error, not as a success.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]
