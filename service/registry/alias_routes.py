"""The routes of aliases. A move loads the new versions before it commits."""

from dataclasses import dataclass
from time import monotonic
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Depends, Path, Request, Response

from descent import schemas
from descent.spec import Name
from service.errors import PreconditionFailed
from service.http import strict_route
from service.http.dependencies import EngineDep, ReadSession, WriteSession
from service.http.etags import cached, check_match, etag_of
from service.http.paging import NewestFirst, PageParams
from service.jobs.waiting import WatcherDep
from service.registry import aliases, proofs, versions
from service.registry.aliases import Pointer, Pointing
from service.registry.serving import ServingDep, follow_change
from service.registry.tables import Alias, AliasMove
from service.storage.database import reading

router = strict_route.router()

ModelName = Annotated[Name, Path(description="The name of a model.")]
AliasName = Annotated[Name, Path(description="A name such as `champion`.")]
KEY = "key_"  # how the ids of API keys begin
PROOF_WAIT_S = 5.0  # seconds that a move waits for the proofs of its versions


def _pointer(name: ModelName, alias: AliasName) -> Pointer:
    return Pointer(name, alias)


PointerDep = Annotated[Pointer, Depends(_pointer)]


# ---- reading -------------------------------------------------------------------------------------


@router.get(
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


@router.get(
    "/models/{name}/aliases/{alias}", response_model=schemas.Alias, operation_id="get_model_alias"
)
@strict_route.has_etag
def get_alias(
    request: Request, response: Response, session: ReadSession, pointer: PointerDep
) -> schemas.Alias | Response:
    """Read what an alias points to."""
    row = versions.find_alias(session, *pointer)
    return cached(request, response, _alias(row), _etag(row))


@router.get(
    "/models/{name}/aliases/{alias}/history",
    response_model=schemas.Page[schemas.AliasMove],
    operation_id="list_model_alias_moves",
)
def list_moves(
    request: Request, session: ReadSession, page: PageParams, pointer: PointerDep
) -> Response:
    """List the moves of an alias, newest first. They go when the alias is deleted."""
    versions.find_alias(session, *pointer)
    listed = NewestFirst(f"moves {pointer.model} {pointer.alias}", AliasMove, AliasMove.revision)
    mine = (AliasMove.model_name == pointer.model, AliasMove.alias == pointer.alias)
    return listed.page(request, session, page, lambda rows: list(map(_move, rows)), *mine)


# ---- moving --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """Loads the versions that an alias shall point to, before it is moved."""

    engine: EngineDep
    serving: ServingDep
    watcher: WatcherDep

    def goal(self, pointer: Pointer) -> int:
        """Load the version that the alias goes back to, and return its number."""
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
        """Wait a few seconds for unfinished proofs, which a newly trained model has."""
        deadline = monotonic() + PROOF_WAIT_S
        while (waiting := await run_sync(self._pending, model, numbers)) is not None:
            if not await self.watcher.wait(*waiting, deadline - monotonic()):
                return  # the transaction that moves the alias raises the error

    def _pending(self, model: str, numbers: set[int]) -> tuple[str, int] | None:
        """Return a proof that has not ended, and the number of its last event."""
        with reading(self.engine) as session:
            proof = proofs.pending(session, model, numbers)
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
    await move.when_proved(pointer.model, wanted.heard())
    return wanted


@router.put(
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
    """Make an alias, or move it: then send its ETag as `If-Match`.

    Its version, and that of a canary, must be proved: rows were sent through every way of asking
    it, and each was answered what training computes. A proof that is being made is waited for some
    seconds; then, and where it has failed, the answer is 409 `proof_not_passed`.
    A canary answers its share of the requests; a shadow is only compared. Both end with the next
    move that does not name them.
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


@router.post(
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
    """Undo the last move of an alias that is not undone yet; each further call goes one back.

    The alias points to the version of before, without a canary and a shadow; it must be proved, as
    for every move. `If-Match` is heeded where it is sent.
    """
    row = aliases.rollback(
        session, pointer, version, lambda found: _check(request, found), _key_of(request)
    )
    follow_change(serving, session, pointer.model)
    response.headers["ETag"] = _etag(row)
    return _alias(row)


@router.delete("/models/{name}/aliases/{alias}", status_code=204, operation_id="delete_model_alias")
@strict_route.heeds_match
def delete_alias(
    request: Request, serving: ServingDep, session: WriteSession, pointer: PointerDep
) -> None:
    """Delete an alias and its history; the version stays. `If-Match` is heeded where sent."""
    aliases.remove(session, pointer, lambda found: _check(request, found))
    follow_change(serving, session, pointer.model)


def _check(request: Request, found: Alias | None, *, is_required: bool = False) -> None:
    if found is not None:
        check_match(request, _etag(found), is_required=is_required)
    elif "if-match" in request.headers:
        raise PreconditionFailed("There is no such alias any more.")


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
