"""The routes of models and their versions. Computes no prediction."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Path, Request, Response

from descent import schemas
from descent.spec import Name
from service.errors import Conflict
from service.http import strict_route
from service.http.dependencies import ReadSession, WriteSession
from service.http.etags import cached, etag_of, not_modified
from service.http.paging import NewestFirst, PageParams
from service.http.responses import json_response
from service.registry import alias_routes, proofs, versions
from service.registry.representation import version_body
from service.registry.serving import ServingDep, follow_change
from service.registry.tables import Model, ModelVersion

router = strict_route.router()
router.include_router(alias_routes.router)

ModelName = Annotated[Name, Path(description="The name of a model.")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")]

MODELS = NewestFirst("models", Model, Model.created_at, Model.name)

# ---- models --------------------------------------------------------------------------------------


@router.get("/models", response_model=schemas.Page[schemas.Model], operation_id="list_models")
def list_models(request: Request, session: ReadSession, page: PageParams) -> Response:
    """List models, newest first."""

    def bodies(rows: Sequence[Model]) -> list[schemas.Model]:
        names = [row.name for row in rows]
        newest = versions.newest_versions(session, names)
        aliases = versions.aliases_of(session, names)
        return [_model(row, newest.get(row.name), aliases[row.name]) for row in rows]

    return MODELS.page(request, session, page, bodies)


@router.get("/models/{name}", response_model=schemas.Model, operation_id="get_model")
@strict_route.has_etag
def get_model(
    request: Request, response: Response, session: ReadSession, name: ModelName
) -> schemas.Model | Response:
    """Read a model with its latest version and its aliases."""
    row = versions.find_model(session, name)
    newest = versions.newest_versions(session, [name])
    body = _model(row, newest.get(name), versions.aliases_of(session, [name])[name])
    return cached(request, response, body)


@router.delete("/models/{name}", status_code=204, operation_id="delete_model")
def delete_model(serving: ServingDep, session: WriteSession, name: ModelName) -> None:
    """Delete a model with all its versions and aliases."""
    versions.unregister_model(session, name)
    follow_change(serving, session, name)


# ---- versions ------------------------------------------------------------------------------------


@router.get(
    "/models/{name}/versions",
    response_model=schemas.Page[schemas.ModelVersion],
    operation_id="list_model_versions",
)
def list_versions(
    request: Request, session: ReadSession, page: PageParams, name: ModelName
) -> Response:
    """List the versions of a model, newest first."""
    versions.find_model(session, name)

    def bodies(rows: Sequence[ModelVersion]) -> list[schemas.ModelVersion]:
        aliases = versions.aliases_of(session, [name])[name]
        proved = proofs.of_versions(session, name, [row.version for row in rows])
        return [version_body(row, aliases, proved.get(row.version)) for row in rows]

    listed = NewestFirst(f"versions {name}", ModelVersion, ModelVersion.version)
    return listed.page(request, session, page, bodies, ModelVersion.model_name == name)


@router.get(
    "/models/{name}/versions/{version}",
    response_model=schemas.ModelVersion,
    operation_id="get_model_version",
)
@strict_route.has_etag
def get_version(
    request: Request, response: Response, session: ReadSession, name: ModelName, version: Number
) -> schemas.ModelVersion | Response:
    """Read a version: its signature, metrics, lineage and proof.

    The proof says whether rows that were sent through every way of asking the version (JSON, CSV,
    Arrow, tensors, ONNX, the reloaded bundle) were answered what training computes.
    """
    row = versions.find_version(session, name, version)
    aliases = versions.aliases_of(session, [name])[name]
    proof = proofs.of_versions(session, name, [version]).get(version)
    return cached(request, response, version_body(row, aliases, proof))


@router.delete(
    "/models/{name}/versions/{version}", status_code=204, operation_id="delete_model_version"
)
def delete_version(
    serving: ServingDep, session: WriteSession, name: ModelName, version: Number
) -> None:
    """Delete a version that no alias names."""
    versions.unregister(session, name, version)
    follow_change(serving, session, name)


@router.get(
    "/models/{name}/versions/{version}/parameters",
    response_model=schemas.Parameters | dict[str, schemas.Parameters],
    operation_id="get_model_parameters",
)
@strict_route.has_etag
def get_parameters(
    request: Request, session: ReadSession, name: ModelName, version: Number
) -> Response:
    """Read the weights and biases of a linear model beside the closed-form solution.

    Keyed by target, or by class, where there are several.
    """
    row = versions.find_version(session, name, version)
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
    return json_response(row.parameters, headers={"ETag": etag})


# ---- bodies --------------------------------------------------------------------------------------


def _model(row: Model, newest: int | None, aliases: dict[str, int]) -> schemas.Model:
    return schemas.Model(
        name=row.name, latest_version=newest, aliases=aliases, created_at=row.created_at
    )
