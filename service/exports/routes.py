"""The routes that export versions and import bundles, and the slots in which packing runs."""

import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path as File
from threading import BoundedSemaphore
from typing import Annotated, Any, BinaryIO, Literal

from anyio.to_thread import run_sync
from fastapi import Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import Name
from models.export.bundle import SCHEMA
from service.datasets import rejected, sandbox
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.datasets.upload import check_disk
from service.errors import Busy, Invalid, StorageFull, TooLarge, UnsupportedMedia
from service.http import strict_route
from service.http.resources import (
    BlobsDep,
    EngineDep,
    ReadSession,
    ScratchDep,
    SettingsDep,
    etag_of,
    json_response,
    not_modified,
)
from service.registry import versions
from service.registry.routes import version_body
from service.registry.serving import ModelDamaged, ServingDep, damage_named
from service.registry.tables import ModelVersion
from service.registry.versions import training_of
from service.settings import Settings
from service.storage import references
from service.storage.blobs import BlobStore
from service.storage.database import writing

Format = Literal["bundle", "onnx"]

TURNS = 2  # exports and imports at the same time: each may take the memory of a parser
PATIENCE_S = 10.0  # seconds that a request waits for a slot
TIMEOUT_S = 60.0  # seconds for one; the largest allowed file takes a few
EXPORTED, IMPORTED = "exported", "imported"  # names of the files in the folder of the process
#: codes of errors in the bundle itself; all others mean that the process exceeded its limits
BUNDLE_CODES = frozenset({"bundle_invalid", "bundle_changed", "bundle_too_new", "golden_mismatch"})
ZIP, ONNX = "application/zip", "application/octet-stream"
#: media types that clients send for a ZIP file
ZIPS = frozenset({ZIP, "application/x-zip-compressed", "application/octet-stream"})
SUFFIXES: dict[Format, tuple[str, str]] = {"bundle": ("zip", ZIP), "onnx": ("onnx", ONNX)}
CHUNK = 1024 * 1024  # bytes per read or write
BINARY = {"schema": {"type": "string", "format": "binary"}}

Folder = Callable[[], AbstractContextManager[File]]

router = strict_route.router()


# ---- packing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImportedBundle:
    """A bundle whose golden rows were verified, and its model as a checkpoint."""

    checkpoint: File
    #: the columns of the new version
    document: dict[str, Any]


class Transfers:
    """Exports and imports files, TURNS at the same time. `folder` makes a temporary folder."""

    def __init__(
        self, settings: Settings, folder: Folder, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._folder, self._patience_s = folder, patience_s
        self._turns = BoundedSemaphore(TURNS)
        self._max_bytes = settings.max_bundle_bytes
        self._limits = Limits(
            settings.parse_memory_bytes,
            min(TIMEOUT_S, settings.parse_timeout_s),
            timeout_setting=None,
        )

    def export(self, blobs: BlobStore, sha256: str, options: Mapping[str, Any]) -> BinaryIO:
        """Return the exported file, open and already unlinked."""
        with self._folder() as folder:
            with damage_named():
                source = blobs.fetch(sha256, folder)
            try:
                self._run(source, folder, options)
            except Rejected as refused:
                if refused.code == "checkpoint_corrupt":
                    raise ModelDamaged from refused
                if refused.status == 507:
                    raise rejected.as_error(refused) from refused
                raise Invalid(
                    f"This model has no export in that format: {refused.detail}",
                    code="not_supported",
                ) from refused
            return (folder / EXPORTED).open("rb")

    def check(self, file: File, folder: File, sha256: str) -> ImportedBundle:
        """Read a bundle and verify its golden rows. Raises Invalid or TooLarge."""
        options = {"do": "import", "max_bytes": self._max_bytes}
        try:
            document = self._run(file, folder, options)
        except Rejected as refused:
            if refused.code in {"too_large", "parse_out_of_memory"}:
                raise TooLarge(refused.detail, limit=self._max_bytes) from refused
            if refused.code in BUNDLE_CODES or refused.status == 507:
                raise rejected.as_error(refused) from refused
            raise Invalid(
                "The bundle cannot be read within the reader's limits of memory and time: it is"
                " damaged or malicious.",
                code="bundle_invalid",
            ) from refused
        lineage = {"sha256": sha256, "descent": document.pop("descent"), **document.pop("training")}
        return ImportedBundle(folder / IMPORTED, document | {"imported": lineage})

    def _run(self, source: File, folder: File, options: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(
            path=str(source),
            folder=str(folder),
            media_type="",
            options=dict(options),
            max_columns=0,
            parser=sandbox.PACKER,
        )
        with self.turn():
            return sandbox.run(task, self._limits)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a free slot. Raises Busy."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy("Other models are being exported or imported: try again in a moment.")
        try:
            yield
        finally:
            self._turns.release()


def options_of(session: Session, row: ModelVersion, kind: Format) -> dict[str, Any]:
    """Return the documents of an exported file. Equal options give equal files."""
    if kind == "onnx":
        properties = {
            "model": row.model_name,
            "version": str(row.version),
            "created_at": row.created_at.isoformat(),
            "descent": version("descent"),
        }
        return {"do": kind, "properties": properties}
    training = training_of(session, row)
    return {"do": kind, "training": training, "schema": SCHEMA, "descent": version("descent")}


def _transfers(request: Request) -> Transfers:
    found: Transfers = request.app.state.transfers
    return found


TransfersDep = Annotated[Transfers, Depends(_transfers)]

ModelName = Annotated[Name, Path(description="The name of a model.")]


# ---- export -------------------------------------------------------------------------------------


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
            description="`bundle`: a ZIP file that another Descent can import, with a script that "
            "predicts without Descent. `onnx`: a graph from the values of the columns to the "
            "prediction.",
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


# ---- import -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Destination:
    """Adds an imported version to the registry."""

    engine: EngineDep
    blobs: BlobsDep
    serving: ServingDep

    def store(self, request: Request, name: str, found: ImportedBundle) -> Response:
        with (
            references.stored(self.engine, self.blobs, found.checkpoint) as held,
            writing(self.engine) as session,
        ):
            references.keep(session, held)
            row = versions.adopt(session, held, name, found.document)
            response = _created(session, name, row.version)
            strict_route.keep_response(request, session, response)
        self.serving.follow(name)
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
    """Import a bundle as the next version of a model, if its golden rows give equal predictions."""
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
        raise UnsupportedMedia(f"A bundle cannot have a Content-Encoding, got {encoding[:40]!r}.")


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
    except (
        ValidationError
    ) as error:  # such as invalid metrics: store only versions that can be shown
        raise Invalid(
            f"The bundle's training.json cannot be read at {error.errors()[0]['loc']}.",
            code="bundle_invalid",
        ) from error
    location = f"/api/v1/models/{name}/versions/{number}"
    return json_response(body, 201, {"Location": location})
