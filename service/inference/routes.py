"""The routes of models and their versions. How rows are predicted is not known here."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import Name
from service import http
from service.blobs import BlobStore
from service.dependencies import (
    PageParams,
    PartsDep,
    ReadSession,
    WriteSession,
    after_commit,
    cached,
    decode_cursor,
    encode_cursor,
    etag_of,
    follow_change,
    link_next,
    not_modified,
    page_of,
)
from service.errors import Conflict
from service.inference import (
    alias_routes,
    contract_routes,
    evaluation_routes,
    predictions,
    registry,
    transfer_routes,
)
from service.inference.cache import describe
from service.inference.wire import version_body
from service.proofs import lifecycle as proofs
from service.tables import Checkpoint, Model, Run

router = http.router(tags=["models"])
router.include_router(predictions.router)
router.include_router(alias_routes.router)
router.include_router(contract_routes.router)
router.include_router(transfer_routes.router)
router.include_router(evaluation_routes.router)

ModelName = Annotated[Name, Path(description="The name of a model.")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")]

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
    follow_change(parts, session, name)


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
    proved = proofs.of_versions(session, name, [row.version for row in envelope["data"]])
    rows = envelope["data"]
    return envelope | {
        "data": [version_body(row, aliases, proved.get(row.version)) for row in rows]
    }


@router.get(
    "/models/{name}/versions/{version}",
    response_model=schemas.ModelVersion,
    operation_id="get_model_version",
)
@http.has_etag
def get_version(
    request: Request, response: Response, session: ReadSession, name: ModelName, version: Number
) -> schemas.ModelVersion | Response:
    """Read a version: its signature, metrics, lineage and proof.

    The proof says whether rows that were sent through every way of asking the version (JSON, CSV,
    Arrow, tensors, ONNX, the reloaded bundle) were answered what training computes.
    """
    row = registry.find_version(session, name, version)
    aliases = registry.aliases_of(session, [name])[name]
    proof = proofs.of_versions(session, name, [version]).get(version)
    return cached(request, response, version_body(row, aliases, proof))


@router.delete(
    "/models/{name}/versions/{version}", status_code=204, operation_id="delete_model_version"
)
def delete_version(
    parts: PartsDep, session: WriteSession, name: ModelName, version: Number
) -> None:
    """Delete a version that no alias names."""
    registry.unregister(session, name, version)
    follow_change(parts, session, name)


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
    follow_change(parts, session, body.model)
    response.headers["Location"] = f"/api/v1/models/{body.model}/versions/{row.version}"
    after_commit(session, parts.wake)  # somebody has to prove it
    return version_body(row, {}, None)


def _document(
    session: Session, blobs: BlobStore, run: Run, checkpoint: Checkpoint
) -> dict[str, Any]:
    known = registry.version_of_checkpoint(session, checkpoint.id)
    if known is not None:
        return {name: getattr(known, name) for name in ("signature", "metrics", "parameters")}
    is_result = checkpoint.id == run.best_checkpoint_id and run.evaluation is not None
    metrics = run.evaluation if is_result else checkpoint.metrics
    return describe(blobs, checkpoint.sha256) | {"metrics": metrics}


# ---- bodies --------------------------------------------------------------------------------------


def _model(row: Model, newest: int | None, aliases: dict[str, int]) -> schemas.Model:
    return schemas.Model(
        name=row.name, latest_version=newest, aliases=aliases, created_at=row.created_at
    )


def _place(row: Model) -> tuple[datetime, str]:
    return row.created_at, row.name
