"""The routes of models, their versions and aliases, and the bodies of their answers.

A move of an alias loads the new versions before it commits. Computes no prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Depends, Path, Request, Response

from descent import schemas
from descent.spec import Name
from service.errors import Conflict, PreconditionFailed
from service.http import strict_route
from service.http.resources import (
    EngineDep,
    NewestFirst,
    PageParams,
    ReadSession,
    WriteSession,
    cached,
    check_match,
    etag_of,
    json_unless_known,
)
from service.jobs.waiting import WatcherDep
from service.registry import aliases, versions
from service.registry.aliases import Pointer, Pointing
from service.registry.serving import ServingDep, follow_change
from service.registry.tables import Alias, AliasMove, Model, ModelVersion, Proof
from service.registry.versions import verdict
from service.storage.database import reading

alias_router = strict_route.router()
router = strict_route.router()

MODELS = NewestFirst("models", Model, Model.created_at, Model.name)

ModelName = Annotated[Name, Path(description="The name of a model.")]
AliasName = Annotated[Name, Path(description="A name such as `champion`.")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")]
KEY = "key_"  # the prefix of the ids of API keys
PROOF_WAIT_S = 5.0  # seconds that a move waits for the proofs of its versions


def _pointer(name: ModelName, alias: AliasName) -> Pointer:
    return Pointer(name, alias)


PointerDep = Annotated[Pointer, Depends(_pointer)]


# ---- reading aliases -----------------------------------------------------------------------------


@alias_router.get(
    "/models/{name}/aliases",
    response_model=schemas.Page[schemas.Alias],
    operation_id="list_model_aliases",
)
def list_aliases(
    request: Request, session: ReadSession, page: PageParams, name: ModelName
) -> Response:
    """List the aliases of a model, newest first."""
    versions.find_model(session, name)
    listed = NewestFirst(f"aliases {name}", Alias, Alias.created_at, Alias.alias)
    return listed.page(
        request, session, page, lambda rows: list(map(_alias, rows)), Alias.model_name == name
    )


@alias_router.get(
    "/models/{name}/aliases/{alias}", response_model=schemas.Alias, operation_id="get_model_alias"
)
@strict_route.has_etag
def get_alias(
    request: Request, response: Response, session: ReadSession, pointer: PointerDep
) -> schemas.Alias | Response:
    """Read an alias: the versions to which it points."""
    row = versions.find_alias(session, *pointer)
    return cached(request, response, _alias(row), _etag(row))


@alias_router.get(
    "/models/{name}/aliases/{alias}/history",
    response_model=schemas.Page[schemas.AliasMove],
    operation_id="list_model_alias_moves",
)
def list_moves(
    request: Request, session: ReadSession, page: PageParams, pointer: PointerDep
) -> Response:
    """List the moves of an alias, newest first. Deleting the alias deletes them."""
    versions.find_alias(session, *pointer)
    listed = NewestFirst(f"moves {pointer.model} {pointer.alias}", AliasMove, AliasMove.revision)
    mine = (AliasMove.model_name == pointer.model, AliasMove.alias == pointer.alias)
    return listed.page(request, session, page, lambda rows: list(map(_move, rows)), *mine)


# ---- moving aliases ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """Loads the versions that an alias will point to, before it moves."""

    engine: EngineDep
    serving: ServingDep
    watcher: WatcherDep

    def goal(self, pointer: Pointer) -> int:
        """Load the version to which the alias goes back, and return its number."""
        with reading(self.engine) as session:
            goal = aliases.before(session, pointer)
            aliases.check_exists(session, goal)
        self.warm(pointer.model, [goal.version])
        return goal.version

    def warm(self, model: str, numbers: list[int]) -> None:
        """Load these versions. Raises NotFound and ModelDamaged."""
        with reading(self.engine) as session:
            found = [versions.target_of_version(session, model, number) for number in numbers]
        for target in found:
            self.serving.warm(target.sha256)

    async def when_proved(self, model: str, numbers: set[int]) -> None:
        """Wait a few seconds for pending export verifications, as of a newly trained model."""
        deadline = monotonic() + PROOF_WAIT_S
        while (waiting := await run_sync(self._pending, model, numbers)) is not None:
            if not await self.watcher.wait(*waiting, deadline - monotonic()):
                return  # the transaction that moves the alias raises the error

    def _pending(self, model: str, numbers: set[int]) -> tuple[str, int] | None:
        """Return an unfinished export verification, and the number of its last event."""
        with reading(self.engine) as session:
            proof = versions.pending(session, model, numbers)
            return None if proof is None else (proof.id, proof.event_seq)


async def _wanted(
    move: Annotated[Preparation, Depends()], pointer: PointerDep, body: schemas.AliasPut
) -> Pointing:
    """Load the wanted versions before the transaction that moves the alias."""
    wanted = Pointing(
        version=body.version,
        canary_version=body.canary.version if body.canary else None,
        canary_percent=body.canary.percent if body.canary else None,
        shadow_version=body.shadow.version if body.shadow else None,
    )
    await run_sync(move.warm, pointer.model, wanted.versions())
    await move.when_proved(pointer.model, wanted.answering())
    return wanted


@alias_router.put(
    "/models/{name}/aliases/{alias}",
    response_model=schemas.Alias,
    responses={201: {"model": schemas.Alias}},
    operation_id="put_model_alias",
)
@strict_route.heeds_match
def put_alias(
    request: Request,
    response: Response,
    serving: ServingDep,
    pointer: PointerDep,
    wanted: Annotated[Pointing, Depends(_wanted)],
    session: WriteSession,
) -> schemas.Alias:
    """Create an alias, or move it; a move needs the ETag of the alias as `If-Match`.

    The export verification of its version, and of a canary, must have passed: every way of
    predicting gives the answers of the training code. The request waits up to 5 seconds for a
    pending verification. If it takes longer or has failed, the answer is 409 `proof_not_passed`.
    A canary answers its share of the requests; the answers of a shadow are only compared. Both end
    with the next move that does not name them.
    """

    def check(found: Alias | None) -> None:
        _check(request, found, is_required=True)

    row, is_new = aliases.point(session, pointer, wanted, check, _key_of(request))
    follow_change(serving, session, pointer.model)
    response.status_code = 201 if is_new else 200
    response.headers["ETag"] = _etag(row)
    return _alias(row)


async def _before(move: Annotated[Preparation, Depends()], pointer: PointerDep) -> int:
    """Load the version of the rollback before the transaction that moves the alias."""
    version = await run_sync(move.goal, pointer)
    await move.when_proved(pointer.model, {version})
    return version


@alias_router.post(
    "/models/{name}/aliases/{alias}/rollback",
    response_model=schemas.Alias,
    operation_id="roll_back_model_alias",
)
@strict_route.heeds_match
def roll_back(
    request: Request,
    response: Response,
    serving: ServingDep,
    pointer: PointerDep,
    version: Annotated[int, Depends(_before)],
    session: WriteSession,
) -> schemas.Alias:
    """Undo the last move of an alias that is not undone yet; each further call undoes one more.

    The alias then points to the earlier version, without a canary and a shadow. The export
    verification of that version must have passed, as for every move. `If-Match` is optional.
    """
    row = aliases.rollback(
        session, pointer, version, lambda found: _check(request, found), _key_of(request)
    )
    follow_change(serving, session, pointer.model)
    response.headers["ETag"] = _etag(row)
    return _alias(row)


@alias_router.delete(
    "/models/{name}/aliases/{alias}", status_code=204, operation_id="delete_model_alias"
)
@strict_route.heeds_match
def delete_alias(
    request: Request, serving: ServingDep, session: WriteSession, pointer: PointerDep
) -> None:
    """Delete an alias and its history; the version stays. `If-Match` is optional."""
    aliases.remove(session, pointer, lambda found: _check(request, found))
    follow_change(serving, session, pointer.model)


def _check(request: Request, found: Alias | None, *, is_required: bool = False) -> None:
    if found is not None:
        check_match(request, _etag(found), is_required=is_required)
    elif "if-match" in request.headers:
        raise PreconditionFailed("The alias no longer exists.")


def _key_of(request: Request) -> str | None:
    caller: str = request.state.caller
    return caller if caller.startswith(KEY) else None


# ---- bodies --------------------------------------------------------------------------------------


def _alias(row: Alias) -> schemas.Alias:
    return schemas.Alias(
        model=row.model_name,
        alias=row.alias,
        version=row.version,
        canary=_canary(row),
        shadow=_shadow(row),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _move(row: AliasMove) -> schemas.AliasMove:
    return schemas.AliasMove(
        revision=row.revision,
        how=row.how,
        version=row.version,
        canary=_canary(row),
        shadow=_shadow(row),
        key_id=row.key_id,
        moved_at=row.moved_at,
    )


def _canary(row: Alias | AliasMove) -> schemas.Canary | None:
    if row.canary_version is None or row.canary_percent is None:
        return None
    return schemas.Canary(version=row.canary_version, percent=row.canary_percent)


def _shadow(row: Alias | AliasMove) -> schemas.Shadow | None:
    return None if row.shadow_version is None else schemas.Shadow(version=row.shadow_version)


def _etag(row: Alias) -> str:
    # With the times, because an alias that was deleted and made again starts at revision 1.
    return etag_of(row.alias, row.revision, row.created_at, row.updated_at)


def version_body(
    row: ModelVersion, aliases: dict[str, int], proof: Proof | None
) -> schemas.ModelVersion:
    """Return the body of a version; `aliases` are those of its model."""
    is_trained_here = row.dataset_id is not None and row.dataset_version is not None
    return schemas.ModelVersion(
        model=row.model_name,
        version=row.version,
        aliases=[alias for alias, version in aliases.items() if version == row.version],
        run_id=row.run_id,
        checkpoint_id=row.checkpoint_id,
        dataset=schemas.DatasetVersionRef(id=row.dataset_id, version=row.dataset_version)
        if is_trained_here
        else None,
        imported=None if row.imported is None else schemas.Imported.model_validate(row.imported),
        config=row.config,
        signature=schemas.Signature.model_validate(row.signature),
        metrics={name: value for name, value in row.metrics.items() if name != "importance"},
        importance=row.metrics.get("importance"),
        bytes=row.bytes,
        sha256=row.sha256,
        proof=verdict(proof),
        proof_details=_details(proof),
        proof_error=proof and proof.error,
        created_at=row.created_at,
    )


def _details(proof: Proof | None) -> schemas.ProofDetails | None:
    if proof is None or proof.details is None:
        return None
    return schemas.ProofDetails.model_validate(proof.details | {"finished_at": proof.finished_at})


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
        proved = versions.of_versions(session, name, [row.version for row in rows])
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
    """Read a version: its signature, metrics, lineage and export verification.

    `proof` is `passed` if every way of predicting (JSON, CSV, Arrow, tensors, ONNX, the reloaded
    bundle) gave the answers of the training code.
    """
    row = versions.find_version(session, name, version)
    aliases = versions.aliases_of(session, [name])[name]
    proof = versions.of_versions(session, name, [version]).get(version)
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

    The keys are the targets, or the classes, if there are several.
    """
    row = versions.find_version(session, name, version)
    if row.parameters is None:
        kind = row.config.get("model", {}).get("type")
        raise Conflict(
            f"Version {version} of {name!r} is a {kind!r} model: only a linear model has "
            "parameters to show.",
            code="not_linear",
        )
    return json_unless_known(request, row.parameters, etag_of(name, version, row.parameters))


# ---- bodies --------------------------------------------------------------------------------------


def _model(row: Model, newest: int | None, aliases: dict[str, int]) -> schemas.Model:
    return schemas.Model(
        name=row.name, latest_version=newest, aliases=aliases, created_at=row.created_at
    )


router.include_router(alias_router)
