"""The routes of models, their versions and aliases. How rows are predicted is not known here."""

from datetime import datetime
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import Name
from service import http
from service.blobs import BlobStore
from service.dependencies import (
    PageParams,
    Parts,
    PartsDep,
    ReadSession,
    WriteSession,
    after_commit,
    cached,
    check_match,
    decode_cursor,
    encode_cursor,
    etag_of,
    link_next,
    not_modified,
    page_of,
)
from service.errors import Conflict, PreconditionFailed
from service.inference import contract_routes, predictions, registry, transfer_routes
from service.inference.cache import describe
from service.inference.wire import version_body
from service.tables import Alias, Checkpoint, Model, Run

router = http.router(tags=["models"])
router.include_router(predictions.router)
router.include_router(contract_routes.router)
router.include_router(transfer_routes.router)

ModelName = Annotated[Name, Path(description="The name of a model.")]
AliasName = Annotated[Name, Path(description="A name such as `champion`.")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")]


class Pointer(NamedTuple):
    """An alias as a path names it."""

    model: str
    alias: str


def _pointer(name: ModelName, alias: AliasName) -> Pointer:
    return Pointer(name, alias)


PointerDep = Annotated[Pointer, Depends(_pointer)]

# ---- models --------------------------------------------------------------------------------------


@router.get("/models", response_model=schemas.Page[schemas.Model], operation_id="list_models")
def list_models(
    request: Request, response: Response, session: ReadSession, page: PageParams
) -> dict[str, Any]:
    """List models, newest first."""
    after = decode_cursor("models", page.after, datetime, str) if page.after else None
    found = registry.list_models(session, page.limit + 1, (after[0], after[1]) if after else None)
    envelope = page_of(found, page.limit, lambda row: encode_cursor("models", _place(row)))
    names = [model.name for model in envelope["data"]]
    newest = registry.newest_versions(session, names)
    aliases = registry.aliases_of(session, names)
    link_next(request, response, envelope["next_cursor"])
    data = [_model(row, newest.get(row.name), aliases[row.name]) for row in envelope["data"]]
    return envelope | {"data": data}


@router.get("/models/{name}", response_model=schemas.Model, operation_id="get_model")
@http.has_etag
def get_model(
    request: Request, response: Response, session: ReadSession, name: ModelName
) -> schemas.Model | Response:
    """Read a model with its latest version and its aliases."""
    row = registry.find_model(session, name)
    newest = registry.newest_versions(session, [name])
    body = _model(row, newest.get(name), registry.aliases_of(session, [name])[name])
    return cached(request, response, body)


@router.delete("/models/{name}", status_code=204, operation_id="delete_model")
def delete_model(parts: PartsDep, session: WriteSession, name: ModelName) -> None:
    """Delete a model with all its versions and aliases."""
    registry.unregister_model(session, name)
    _follow(parts, session, name)


# ---- versions ------------------------------------------------------------------------------------


@router.get(
    "/models/{name}/versions",
    response_model=schemas.Page[schemas.ModelVersion],
    operation_id="list_model_versions",
)
def list_versions(
    request: Request, response: Response, session: ReadSession, page: PageParams, name: ModelName
) -> dict[str, Any]:
    """List the versions of a model, newest first."""
    kind = f"versions {name}"
    before = decode_cursor(kind, page.after, int)[0] if page.after else None
    found = registry.list_versions(session, name, page.limit + 1, before)
    envelope = page_of(found, page.limit, lambda row: encode_cursor(kind, [row.version]))
    aliases = registry.aliases_of(session, [name])[name]
    link_next(request, response, envelope["next_cursor"])
    return envelope | {"data": [version_body(row, aliases) for row in envelope["data"]]}


@router.get(
    "/models/{name}/versions/{version}",
    response_model=schemas.ModelVersion,
    operation_id="get_model_version",
)
@http.has_etag
def get_version(
    request: Request, response: Response, session: ReadSession, name: ModelName, version: Number
) -> schemas.ModelVersion | Response:
    """Read a version: its signature, metrics and lineage."""
    row = registry.find_version(session, name, version)
    aliases = registry.aliases_of(session, [name])[name]
    return cached(request, response, version_body(row, aliases))


@router.delete(
    "/models/{name}/versions/{version}", status_code=204, operation_id="delete_model_version"
)
def delete_version(
    parts: PartsDep, session: WriteSession, name: ModelName, version: Number
) -> None:
    """Delete a version that no alias points to."""
    registry.unregister(session, name, version)
    _follow(parts, session, name)


@router.get(
    "/models/{name}/versions/{version}/parameters",
    response_model=schemas.Parameters | dict[str, schemas.Parameters],
    operation_id="get_model_parameters",
)
@http.has_etag
def get_parameters(
    request: Request, session: ReadSession, name: ModelName, version: Number
) -> Response:
    """Read the weights and biases of a linear model beside the closed-form solution.

    Keyed by target, or by class, where there are several.
    """
    row = registry.find_version(session, name, version)
    if row.parameters is None:
        kind = row.config.get("model", {}).get("type")
        raise Conflict(
            f"Version {version} of {name!r} is a {kind!r} model: only a linear model has "
            "parameters to show.",
            code="not_linear",
        )
    etag = etag_of(name, version, row.parameters)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return JSONResponse(row.parameters, headers={"ETag": etag})


# ---- aliases -------------------------------------------------------------------------------------


@router.get(
    "/models/{name}/aliases/{alias}", response_model=schemas.Alias, operation_id="get_model_alias"
)
@http.has_etag
def get_alias(
    request: Request, response: Response, session: ReadSession, name: ModelName, alias: AliasName
) -> schemas.Alias | Response:
    """Read the version that an alias points to."""
    row = registry.find_alias(session, name, alias)
    return cached(request, response, _alias(row), _alias_etag(row))


@router.put(
    "/models/{name}/aliases/{alias}",
    response_model=schemas.Alias,
    responses={201: {"model": schemas.Alias}},
    operation_id="put_model_alias",
)
@http.heeds_match
def put_alias(
    request: Request,
    response: Response,
    parts: PartsDep,
    session: WriteSession,
    pointer: PointerDep,
    body: schemas.AliasPut,
) -> schemas.Alias:
    """Make an alias, or move it: then send its ETag as `If-Match`."""

    def check(found: Alias | None) -> None:
        _check_alias(request, found, is_required=True)

    row, is_new = registry.point_alias(session, *pointer, body.version, check)
    _follow(parts, session, pointer.model)
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = _alias_etag(row)
    return _alias(row)


@router.delete("/models/{name}/aliases/{alias}", status_code=204, operation_id="delete_model_alias")
@http.heeds_match
def delete_alias(
    request: Request, parts: PartsDep, session: WriteSession, name: ModelName, alias: AliasName
) -> None:
    """Delete an alias; the version stays. `If-Match` is heeded where it is sent."""
    registry.remove_alias(session, name, alias, lambda found: _check_alias(request, found))
    _follow(parts, session, name)


def _check_alias(request: Request, found: Alias | None, *, is_required: bool = False) -> None:
    if found is not None:
        check_match(request, _alias_etag(found), is_required=is_required)
    elif "if-match" in request.headers:
        raise PreconditionFailed("There is no such alias any more.")


# ---- registering ---------------------------------------------------------------------------------


@router.post(
    "/runs/{run_id}/checkpoints/{checkpoint_id}/register",
    status_code=201,
    response_model=schemas.ModelVersion,
    operation_id="register_checkpoint",
)
def register_checkpoint(
    response: Response,
    parts: PartsDep,
    session: WriteSession,
    run_id: str,
    checkpoint_id: str,
    body: schemas.CheckpointRegister,
) -> schemas.ModelVersion:
    """Publish a checkpoint of a run as the next version of a model."""
    run = registry.find_run(session, run_id)
    checkpoint = registry.find_checkpoint(session, run, checkpoint_id)
    document = _document(session, parts.blobs, run, checkpoint)
    row = registry.register(
        session, run=run, checkpoint=checkpoint, model=body.model, document=document
    )
    _follow(parts, session, body.model)
    response.headers["Location"] = f"/api/v1/models/{body.model}/versions/{row.version}"
    return version_body(row, {})


def _document(
    session: Session, blobs: BlobStore, run: Run, checkpoint: Checkpoint
) -> dict[str, Any]:
    known = registry.version_of_checkpoint(session, checkpoint.id)
    if known is not None:
        return {name: getattr(known, name) for name in ("signature", "metrics", "parameters")}
    is_result = checkpoint.id == run.best_checkpoint_id and run.evaluation is not None
    metrics = run.evaluation if is_result else checkpoint.metrics
    return describe(blobs, checkpoint.sha256) | {"metrics": metrics}


def _follow(parts: Parts, session: Session, name: str) -> None:
    """Have this process answer by the change as soon as it is committed."""
    after_commit(session, lambda: parts.directory.follow(name))


# ---- bodies --------------------------------------------------------------------------------------


def _model(row: Model, newest: int | None, aliases: dict[str, int]) -> schemas.Model:
    return schemas.Model(
        name=row.name, latest_version=newest, aliases=aliases, created_at=row.created_at
    )


def _alias(row: Alias) -> schemas.Alias:
    return schemas.Alias(
        model=row.model_name,
        alias=row.alias,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _alias_etag(row: Alias) -> str:
    # The times too: an alias that was deleted and made again begins with revision 1 again.
    return etag_of(row.alias, row.revision, row.created_at, row.updated_at)


def _place(row: Model) -> tuple[datetime, str]:
    return row.created_at, row.name
