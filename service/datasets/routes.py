"""The routes of datasets: upload, read, read again in another way, delete, rows and bytes."""

from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Annotated, Any, Literal
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Engine, literal, select
from sqlalchemy.orm import Session

from descent import schemas
from service.datasets import messages, rejected, upload
from service.datasets.charsets import ENCODINGS
from service.datasets.columnar import read_rows
from service.datasets.formats import SUFFIXES, TEXTS
from service.datasets.preview import Previews, changed, known_encoding
from service.datasets.versions import (
    GONE,
    Dataset,
    DatasetVersion,
    Parse,
    lock_parses,
    ready_version,
    remove,
    table_digest,
)
from service.errors import Busy, NotFound, invalid_at
from service.http.resources import (
    BlobsDep,
    EngineDep,
    NewestFirst,
    PageParams,
    ReadSession,
    ScratchDep,
    SettingsDep,
    WriteSession,
    check_match,
    decode_cursor,
    encode_cursor,
    etag_of,
    json_response,
    json_unless_known,
    not_modified,
    page_response,
)
from service.http.strict_route import (
    authenticate,
    begin_upload,
    has_etag,
    heeds_match,
    keep_response,
    not_idempotent,
    streams_body,
)
from service.http.strict_route import router as strict_router
from service.jobs import life
from service.jobs.events import Watcher
from service.jobs.waiting import Wait, WatcherDep
from service.settings import Settings
from service.storage.blobs import begun
from service.storage.database import reading, writing

MAX_SKIPPED = 1000  # lines above a table
TURN_S = 60.0  # seconds that a request for other types waits for a worker
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "space": " "}

DATASETS = NewestFirst("datasets", Dataset, Dataset.created_at, Dataset.id)
#: A literal in the statement, because SQLite compares it with the condition of a partial index.
NOT_GONE = Dataset.state != literal(GONE, literal_execute=True)


def _previews(request: Request) -> Previews:
    previews: Previews = request.app.state.previews
    return previews


PreviewsDep = Annotated[Previews, Depends(_previews)]

router = strict_router("/datasets", tags=["datasets"])

Delimiter = Literal[",", ";", "\t", "|", " ", "comma", "semicolon", "tab", "pipe", "space"]
UPLOAD_DOC: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in messages.MEDIA_TYPES
                if media_type != messages.JSON
            },
            messages.JSON: {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/DatasetColumns"},
                        {"$ref": "#/components/schemas/DatasetRows"},
                    ],
                    # Generators of clients cannot tell an object from a list by its type.
                    "description": "A list of objects, the rows, is accepted too.",
                }
            },
            messages.MULTIPART: {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    }
}


# ---- upload -------------------------------------------------------------------------------------


def read_options(
    delimiter: Delimiter | None = None,
    header: Literal["auto", "present", "absent"] = "auto",
    missing_values: Annotated[
        list[str] | None,
        Query(
            max_length=100, description="Cells that mean missing; repeat, or separate by commas."
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        Query(
            max_length=40,
            description="Encoding of a text, if it has no byte order mark: " + ", ".join(ENCODINGS),
        ),
    ] = None,
    skip_lines: Annotated[
        int | None,
        Query(ge=0, le=MAX_SKIPPED, description="Lines above the header, or above the first row."),
    ] = None,
    sheet: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=100,
            description="Name or number of a workbook's sheet; the first one by default.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Return the fields of `ReadOptions` that the query gives. Raises Invalid."""
    options: dict[str, Any] = {"header": header}
    if delimiter:
        options["delimiter"] = DELIMITERS.get(delimiter, delimiter)
    if missing_values is not None:
        options["missing_values"] = [cell for each in missing_values for cell in each.split(",")]
    options |= {"skip_lines": skip_lines} if skip_lines is not None else {}
    options |= {"sheet": sheet} if sheet is not None else {}
    if encoding is not None:
        options["encoding"] = known_encoding(encoding, "/query/encoding")
    return options


OptionsDep = Annotated[dict[str, Any], Depends(read_options)]


@router.post(
    "",
    status_code=201,
    response_model=schemas.Dataset,
    responses={202: {"model": schemas.Dataset, "description": "It is not parsed yet."}},
    openapi_extra=UPLOAD_DOC,
    operation_id="upload_dataset",
)
@streams_body
async def upload_dataset(
    request: Request,
    settings: SettingsDep,
    engine: EngineDep,
    blobs: BlobsDep,
    scratch: ScratchDep,
    watcher: WatcherDep,
    options: OptionsDep,
    name: Annotated[str | None, Query(min_length=1, max_length=upload.MAX_NAME)] = None,
    wait: Wait = 10.0,
) -> Response:
    """Upload a table; the body is the file. 201 when it is ready, 202 while it is not parsed.

    A worker parses it; without a worker, uploads are accepted and wait.
    """
    with scratch.folder() as folder:
        await run_sync(upload.check_disk, folder, settings.ready_disk_bytes)
        received = await upload.receive(
            request.stream(), dict(request.headers), folder / "received", _bounds(settings)
        )
        if received.charset and received.media_type in TEXTS:
            options.setdefault("encoding", known_encoding(received.charset, "/header/content-type"))
        if (replayed := await begin_upload(request, received.sha256)) is not None:
            return replayed
        shown_as = name or upload.name_of(received.filename)
        wanted = upload.Upload(shown_as, received, options, await authenticate(request))

        def note(session: Session, dataset: Dataset) -> None:
            keep_response(request, session, _accepted(_wire(session, dataset)))

        parse = await run_sync(upload.accept, engine, blobs, wanted, note)
    ended = await _ended(watcher, engine, parse, wait)
    if ended.state == "failed":
        await run_sync(_forget, engine, parse.dataset_id)
        raise rejected.from_problem(ended.error or {})
    body = await run_sync(_body, engine, parse.dataset_id)
    if ended.state not in life.TERMINAL:
        return _accepted(body)
    return json_response(body, 201, {"Location": _place(parse.dataset_id), "ETag": _etag(body)})


def _bounds(settings: Settings) -> upload.Bounds:
    return upload.Bounds(
        max_bytes=settings.max_upload_bytes,
        max_json_bytes=settings.max_json_table_bytes,
        max_ratio=settings.max_gzip_ratio,
        spare_bytes=settings.ready_disk_bytes,
    )


async def _ended(watcher: Watcher, engine: Engine, parse: Parse, wait_s: float) -> Parse:
    """Return a parse once it has ended, or its present state when the time is up."""
    deadline = monotonic() + wait_s
    while parse.state not in life.TERMINAL:
        if not await watcher.wait(parse.id, parse.event_seq, deadline - monotonic()):
            break
        parse = await run_sync(_look, engine, parse.id, parse.dataset_id)
    return parse


def _look(engine: Engine, parse_id: str, dataset_id: str) -> Parse:
    with reading(engine) as session:
        parse = session.get(Parse, parse_id)
    if parse is None:
        raise _absent(dataset_id)
    return parse


def _forget(engine: Engine, dataset_id: str) -> None:
    """Delete a rejected dataset, because the answer to its upload is the error."""
    with writing(engine) as session:
        remove(session, dataset_id)


def _accepted(body: dict[str, Any]) -> Response:
    return json_response(body, 202, {"Location": _place(body["id"])})


def _place(dataset_id: str) -> str:
    return f"/api/v1/datasets/{dataset_id}"


# ---- read ---------------------------------------------------------------------------------------


@router.get("", response_model=schemas.Page[schemas.Dataset], operation_id="list_datasets")
def list_datasets(request: Request, page: PageParams, session: ReadSession) -> Response:
    """List the datasets, newest first."""
    return DATASETS.page(request, session, page, partial(_wires, session), NOT_GONE)


@router.get("/{dataset_id}", response_model=schemas.Dataset, operation_id="get_dataset")
@has_etag
async def get_dataset(
    request: Request,
    dataset_id: str,
    engine: EngineDep,
    watcher: WatcherDep,
    wait: Wait = 0.0,
) -> Response:
    """Return a dataset; with `wait`, once it is ready or rejected."""
    deadline = monotonic() + wait
    body, parse = await run_sync(_body_and_parse, engine, dataset_id)
    has_this = "if-none-match" not in request.headers or not_modified(request, _etag(body))
    while wait and has_this and parse is not None and body["state"] == "ingesting":
        if not await watcher.wait(parse.id, parse.event_seq, deadline - monotonic()):
            break
        body, parse = await run_sync(_body_and_parse, engine, dataset_id)
    return json_unless_known(request, body, _etag(body))


def _body(engine: Engine, dataset_id: str) -> dict[str, Any]:
    with reading(engine) as session:
        return _wire(session, _dataset(session, dataset_id))


def _body_and_parse(engine: Engine, dataset_id: str) -> tuple[dict[str, Any], Parse | None]:
    """Return the body of a dataset, and the job that makes or made its first version."""
    with reading(engine) as session:
        body = _wire(session, _dataset(session, dataset_id))
        query = select(Parse).where(Parse.dataset_id == dataset_id, Parse.version == 1)
        return body, session.scalars(query).first()


def _dataset(session: Session, dataset_id: str) -> Dataset:
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.state == GONE:
        raise _absent(dataset_id)
    return dataset


def _absent(dataset_id: str) -> NotFound:
    return NotFound(f"There is no dataset {dataset_id[:60]!r}.")


def _wire(session: Session, dataset: Dataset) -> dict[str, Any]:
    return _wires(session, [dataset])[0]


def _wires(session: Session, datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Return the bodies of datasets, each with the columns of its newest version."""
    query = (
        select(DatasetVersion)
        .join(Dataset, Dataset.id == DatasetVersion.dataset_id)
        .where(Dataset.id.in_([dataset.id for dataset in datasets]))
        .where(DatasetVersion.version == Dataset.version)
    )
    newest = {version.dataset_id: version for version in session.scalars(query)}
    return [_body_of(dataset, newest.get(dataset.id)) for dataset in datasets]


def _body_of(dataset: Dataset, version: DatasetVersion | None) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "name": dataset.name,
        "state": dataset.state,
        "version": dataset.version,
        "rows": version.rows if version else None,
        "bytes": dataset.bytes,
        "sha256": dataset.sha256,
        "reading": version.reading if version else None,
        "columns": version.columns if version else [],
        "warnings": version.warnings if version else [],
        "error": _problem(dataset),
        "created_at": dataset.created_at,
    }


def _problem(dataset: Dataset) -> dict[str, Any] | None:
    """Return the reason of a rejection, without a request: the uploading one has ended."""
    if dataset.state != "rejected" or dataset.error is None:
        return None
    return dataset.error | {"instance": _place(dataset.id), "request_id": None}


def _etag(body: dict[str, Any]) -> str:
    # A version is immutable, so these fields include all changes.
    return etag_of(body["id"], body["state"], body["version"], body["name"])


# ---- change -------------------------------------------------------------------------------------


@router.patch("/{dataset_id}", response_model=schemas.Dataset, operation_id="retype_dataset")
@heeds_match
async def retype_dataset(
    request: Request,
    dataset_id: str,
    patch: schemas.DatasetPatch,
    engine: EngineDep,
    watcher: WatcherDep,
) -> Response:
    """Read columns or the file in another way; this makes the next version of the same bytes.

    A worker makes it; 503 if no worker begins within a minute. `POST …/preview` shows the first
    rows that it would have.
    """
    check_match(request, _etag(await run_sync(_body, engine, dataset_id)))
    caller = await authenticate(request)
    parse = await run_sync(upload.reread, engine, dataset_id, patch, caller)
    if parse is not None:
        await _reread(watcher, engine, parse)
    body = await run_sync(_body, engine, dataset_id)
    return json_response(body, headers={"ETag": _etag(body)})


@router.post(
    "/{dataset_id}/preview",
    response_model=schemas.DatasetPreview,
    operation_id="preview_dataset",
)
@not_idempotent
def preview_dataset(
    dataset_id: str,
    patch: schemas.DatasetPatch,
    engine: EngineDep,
    blobs: BlobsDep,
    previews: PreviewsDep,
) -> Response:
    """Return the first rows as another way of reading would give them; no version is made."""
    with reading(engine) as session:
        version = ready_version(session, dataset_id, None)
        dataset = session.get_one(Dataset, dataset_id)
    options = changed(version, patch) or version.options
    return json_response(previews.show(blobs, dataset, version, options))


async def _reread(watcher: Watcher, engine: Engine, parse: Parse) -> None:
    """Wait until the next version exists. Raises the reason if it cannot be made."""
    deadline = monotonic() + TURN_S
    while parse.state not in life.TERMINAL:
        await watcher.wait(parse.id, parse.event_seq, 1.0)
        parse = await run_sync(_look, engine, parse.id, parse.dataset_id)
        is_late = parse.state == "queued" and monotonic() > deadline
        if is_late or watcher.is_stopping.is_set():
            await run_sync(_withdraw, engine, parse.id)
            raise Busy("No worker has made the new version: try again.")
    if parse.state == "failed":
        raise rejected.from_problem(parse.error or {})


def _withdraw(engine: Engine, parse_id: str) -> None:
    with writing(engine) as session:
        life.cancel(session, Parse, parse_id)


@router.delete("/{dataset_id}", status_code=204, operation_id="delete_dataset")
@heeds_match
def delete_dataset(request: Request, dataset_id: str, session: WriteSession) -> Response:
    """Delete a dataset; 409 while an unfinished run or batch prediction needs it."""
    lock_parses(session, dataset_id)
    dataset = session.get(Dataset, dataset_id, with_for_update=True)
    if dataset is None or dataset.state == GONE:
        raise _absent(dataset_id)
    check_match(request, _etag(_wire(session, dataset)))
    if users := life.users_of(session, dataset_id=dataset_id):
        raise life.in_use(users, "this dataset")
    remove(session, dataset_id)
    return Response(status_code=204)


# ---- rows and bytes -----------------------------------------------------------------------------


@router.get(
    "/{dataset_id}/rows", response_model=schemas.DatasetRowsPage, operation_id="list_dataset_rows"
)
def list_dataset_rows(
    request: Request,
    dataset_id: str,
    page: PageParams,
    engine: EngineDep,
    blobs: BlobsDep,
    scratch: ScratchDep,
    columns: Annotated[
        list[str] | None, Query(description="Names; repeat, or separate by commas.")
    ] = None,
) -> Response:
    """Return rows as typed values, in the order of the file."""
    with reading(engine) as session:
        version = ready_version(session, dataset_id, None)
    names = [column["name"] for column in version.columns]
    wanted = _wanted(columns, names)
    kind = f"rows/{dataset_id}/{version.version}"
    (first,) = decode_cursor(kind, page.after, int) if page.after is not None else (0,)
    with scratch.folder() as folder:
        path = blobs.fetch(table_digest(version), folder)
        try:
            rows = read_rows(path, first, page.limit + 1, wanted)
        except FileNotFoundError as error:  # deleted and collected after `fetch`
            raise _absent(dataset_id) from error
    return page_response(
        request, rows, page, lambda _row: encode_cursor(kind, [first + page.limit]), list
    )


def _wanted(given: list[str] | None, names: list[str]) -> list[str]:
    if given is None:
        return names
    known = set(names)
    # A name may contain a comma.
    wanted = [name for each in given for name in ([each] if each in known else each.split(","))]
    for name in wanted:
        if name not in known:
            detail = f"There is no column {name[:80]!r}."
            raise invalid_at("/query/columns", "unknown_column", detail)
    return list(dict.fromkeys(wanted))


@router.get(
    "/{dataset_id}/content",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            }
        }
    },
    operation_id="get_dataset_content",
)
@has_etag
def get_dataset_content(
    request: Request, dataset_id: str, engine: EngineDep, blobs: BlobsDep
) -> Response:
    """Return the uploaded bytes, after decompression."""
    with reading(engine) as session:
        dataset = _dataset(session, dataset_id)
    if dataset.sha256 is None:
        raise NotFound(f"The dataset {dataset_id} has no bytes.")
    etag = f'"{dataset.sha256}"'
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    suffix = next((s for s, kind in SUFFIXES.items() if kind == dataset.media_type), ".json")
    file_name = quote(dataset.name + suffix, safe="")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{file_name}",
        "Content-Length": str(dataset.bytes),
        "ETag": etag,
    }
    chunks = begun(blobs.open(dataset.sha256))
    return StreamingResponse(chunks, media_type=dataset.media_type, headers=headers)
