"""The routes by which models leave and come: artifacts and imports."""

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path as File
from typing import Annotated, BinaryIO

from anyio.to_thread import run_sync
from fastapi import Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import Name
from service import http, references
from service.database import writing
from service.datasets.upload import check_disk
from service.dependencies import Parts, PartsDep, ReadSession, etag_of, not_modified
from service.errors import Invalid, StorageFull, UnsupportedMedia
from service.inference import registry
from service.inference.transfers import Format, Imported, Transfers, options_of
from service.inference.wire import version_body

ZIP, ONNX = "application/zip", "application/octet-stream"
#: what clients call a ZIP file
ZIPS = frozenset({ZIP, "application/x-zip-compressed", "application/octet-stream"})
SUFFIXES: dict[Format, tuple[str, str]] = {"bundle": ("zip", ZIP), "onnx": ("onnx", ONNX)}
CHUNK = 1024 * 1024  # bytes that are read or written at a time
BINARY = {"schema": {"type": "string", "format": "binary"}}

router = http.router()

ModelName = Annotated[Name, Path(description="The name of a model.")]


# ---- leaving ------------------------------------------------------------------------------------


@router.get(
    "/models/{name}/versions/{version}/artifact",
    response_class=StreamingResponse,
    responses={200: {"content": {ZIP: BINARY, ONNX: BINARY}}},
    operation_id="get_model_artifact",
)
@http.has_etag
def get_artifact(
    request: Request,
    parts: PartsDep,
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
    """Download a version to take it elsewhere."""
    row = registry.find_version(session, name, version)
    options = options_of(session, row, kind)
    etag = etag_of(row.sha256, options)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    transfers: Transfers = parts.transfers
    file = transfers.export(parts.blobs, row.sha256, options)
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


@router.post(
    "/models/{name}/versions",
    status_code=201,
    response_model=schemas.ModelVersion,
    openapi_extra={"requestBody": {"required": True, "content": {ZIP: BINARY}}},
    operation_id="import_model_version",
)
@http.streams_body
async def import_version(request: Request, parts: PartsDep, name: ModelName) -> Response:
    """Import a bundle as the next version of a model, once its golden rows come out the same."""
    _check_media_type(request)
    with parts.ingester.folder() as folder:
        await run_sync(check_disk, folder, parts.settings.ready_disk_bytes)
        sha256 = await _receive(request, folder / "received")
        if (replayed := await http.begin_upload(request, sha256)) is not None:
            return replayed
        transfers: Transfers = parts.transfers
        found = await run_sync(transfers.check, folder / "received", folder, sha256)
        return await run_sync(_store, request, parts, name, found)


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
        async for chunk in http.body_chunks(request, "bundle"):
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


def _store(request: Request, parts: Parts, name: str, found: Imported) -> Response:
    with (
        references.stored(parts.engine, parts.blobs, found.checkpoint) as held,
        writing(parts.engine) as session,
    ):
        references.keep(session, held)
        row = registry.adopt(session, held, name, found.document)
        response = _created(session, name, row.version)
        http.keep_response(request, session, response)
    parts.directory.follow(name)
    parts.wake()  # somebody has to prove it
    return response


def _created(session: Session, name: str, number: int) -> JSONResponse:
    try:
        body = version_body(registry.find_version(session, name, number), {}, None)
    except ValidationError as error:  # its metrics, say; nothing is kept that cannot be told
        raise Invalid(
            f"The bundle's training.json cannot be read at {error.errors()[0]['loc']}.",
            code="bundle_invalid",
        ) from error
    location = f"/api/v1/models/{name}/versions/{number}"
    return JSONResponse(body.model_dump(mode="json"), 201, {"Location": location})
