"""The routes of exported files and of imports."""

import errno
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File
from typing import Annotated, BinaryIO

from anyio.to_thread import run_sync
from fastapi import Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import Name
from service.datasets.upload import check_disk
from service.errors import Invalid, StorageFull, UnsupportedMedia
from service.exports.transfers import Format, Imported, Transfers, options_of
from service.http import strict_route
from service.http.dependencies import BlobsDep, EngineDep, ReadSession, ScratchDep, SettingsDep
from service.http.etags import etag_of, not_modified
from service.http.responses import json_response
from service.jobs.waiting import WakeDep
from service.registry import versions
from service.registry.representation import version_body
from service.registry.serving import ServingDep
from service.storage import references
from service.storage.database import writing

ZIP, ONNX = "application/zip", "application/octet-stream"
#: what clients call a ZIP file
ZIPS = frozenset({ZIP, "application/x-zip-compressed", "application/octet-stream"})
SUFFIXES: dict[Format, tuple[str, str]] = {"bundle": ("zip", ZIP), "onnx": ("onnx", ONNX)}
CHUNK = 1024 * 1024  # bytes that are read or written at a time
BINARY = {"schema": {"type": "string", "format": "binary"}}

router = strict_route.router()


def _transfers(request: Request) -> Transfers:
    found: Transfers = request.app.state.transfers
    return found


TransfersDep = Annotated[Transfers, Depends(_transfers)]
ModelName = Annotated[Name, Path(description="The name of a model.")]


# ---- leaving ------------------------------------------------------------------------------------


@router.get(
    "/models/{name}/versions/{version}/artifact",
    response_class=StreamingResponse,
    responses={200: {"content": {ZIP: BINARY, ONNX: BINARY}}},
    operation_id="get_model_artifact",
)
@strict_route.has_etag
def get_artifact(
    request: Request,
    transfers: TransfersDep,
    blobs: BlobsDep,
    session: ReadSession,
    name: ModelName,
    version: Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")],
    kind: Annotated[
        Format,
        Query(
            alias="format",
            description="`bundle`: a ZIP file that another Descent imports, with a script that "
            "predicts without any. `onnx`: a graph from the columns' values to the prediction.",
        ),
    ] = "bundle",
) -> Response:
    """Download a version as a bundle or an ONNX file."""
    row = versions.find_version(session, name, version)
    options = options_of(session, row, kind)
    etag = etag_of(row.sha256, options)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    file = transfers.export(blobs, row.sha256, options)
    suffix, media_type = SUFFIXES[kind]
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-{version}.{suffix}"',
        "Content-Length": str(_size(file)),
        "ETag": etag,
    }
    return StreamingResponse(_chunks(file), media_type=media_type, headers=headers)


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


# ---- coming -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Destination:
    """Adds an imported version to the registry."""

    engine: EngineDep
    blobs: BlobsDep
    serving: ServingDep
    wake: WakeDep

    def store(self, request: Request, name: str, found: Imported) -> Response:
        with (
            references.stored(self.engine, self.blobs, found.checkpoint) as held,
            writing(self.engine) as session,
        ):
            references.keep(session, held)
            row = versions.adopt(session, held, name, found.document)
            response = _created(session, name, row.version)
            strict_route.keep_response(request, session, response)
        self.serving.follow(name)
        self.wake()  # a worker has to verify it
        return response


@router.post(
    "/models/{name}/versions",
    status_code=201,
    response_model=schemas.ModelVersion,
    openapi_extra={"requestBody": {"required": True, "content": {ZIP: BINARY}}},
    operation_id="import_model_version",
)
@strict_route.streams_body
async def import_version(
    request: Request,
    name: ModelName,
    destination: Annotated[Destination, Depends()],
    scratch: ScratchDep,
    settings: SettingsDep,
    transfers: TransfersDep,
) -> Response:
    """Import a bundle as the next version of a model, if its golden rows predict the same."""
    _check_media_type(request)
    with scratch.folder() as folder:
        await run_sync(check_disk, folder, settings.ready_disk_bytes)
        sha256 = await _receive(request, folder / "received")
        if (replayed := await strict_route.begin_upload(request, sha256)) is not None:
            return replayed
        found = await run_sync(transfers.check, folder / "received", folder, sha256)
        return await run_sync(destination.store, request, name, found)


def _check_media_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in ZIPS:
        raise UnsupportedMedia(f"Send the bundle as {ZIP}, got {given[:100]!r}.")
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedMedia(f"A bundle cannot be compressed once more, got {encoding[:40]!r}.")


async def _receive(request: Request, path: File) -> str:
    """Write the body to a file and return its SHA-256."""
    digest, held = hashlib.sha256(), bytearray()
    with path.open("xb") as file:
        async for chunk in strict_route.body_chunks(request, "bundle"):
            digest.update(chunk)
            held += chunk
            if len(held) >= CHUNK:
                await run_sync(_write, file, bytes(held))
                held.clear()
        await run_sync(_write, file, bytes(held))
    return digest.hexdigest()


def _write(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise


def _created(session: Session, name: str, number: int) -> Response:
    try:
        body = version_body(versions.find_version(session, name, number), {}, None)
    except ValidationError as error:  # its metrics, say; nothing is kept that cannot be told
        raise Invalid(
            f"The bundle's training.json cannot be read at {error.errors()[0]['loc']}.",
            code="bundle_invalid",
        ) from error
    location = f"/api/v1/models/{name}/versions/{number}"
    return json_response(body, 201, {"Location": location})
