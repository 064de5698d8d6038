"""Aliases: each move is one transaction with an entry in the history, and can be rolled back.

An alias points to a version. A canary may answer a share of the requests in its place, and a
shadow may get copies of the requests; its answers are discarded.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import NamedTuple

from sqlalchemy.orm import Session

from service.errors import Conflict
from service.registry import versions
from service.registry.tables import Alias, AliasMove, ModelVersion
from service.registry.versions import find_alias, find_model, find_version
from service.storage.columns import utc_now

#: Raises if the caller's precondition does not hold for an alias, or for its absence.
Check = Callable[[Alias | None], None]


class Pointer(NamedTuple):
    """The model and the name of an alias."""

    model: str
    alias: str


@dataclass(frozen=True)
class Pointing:
    """The versions that an alias points to."""

    version: int
    canary_version: int | None = None
    canary_percent: float | None = None
    shadow_version: int | None = None

    def versions(self) -> list[int]:
        """Return every version that gets requests, each once."""
        named = (self.version, self.canary_version, self.shadow_version)
        return list(dict.fromkeys(number for number in named if number is not None))

    def answering(self) -> set[int]:
        """Return the versions whose answers clients get."""
        return (
            {self.version} if self.canary_version is None else {self.version, self.canary_version}
        )


class Moved(NamedTuple):
    """An alias after a move."""

    alias: Alias
    is_new: bool


# ---- reading -------------------------------------------------------------------------------------


def pointing(row: Alias | AliasMove) -> Pointing:
    return Pointing(row.version, row.canary_version, row.canary_percent, row.shadow_version)


def before(session: Session, pointer: Pointer) -> AliasMove:
    """Return the move that a rollback takes the alias back to.

    A rollback undoes the last move that is not undone yet. A move that kept the version counts as
    one with the move before it, unless the alias has a canary or a shadow now: then the rollback
    removes that.
    """
    alias = find_alias(session, *pointer)
    row = session.get_one(AliasMove, (*pointer, alias.revision))
    while row.before is not None:
        row = session.get_one(AliasMove, (*pointer, row.before))
        if pointing(alias) != Pointing(row.version):
            return row
    raise Conflict(
        f"The alias {alias.alias!r} pointed to no other version before version {alias.version}: "
        "move it with PUT.",
        code="nothing_to_roll_back",
    )


# ---- moving --------------------------------------------------------------------------------------


def point(
    session: Session, pointer: Pointer, wanted: Pointing, check: Check, key_id: str | None = None
) -> Moved:
    """Point an alias to versions. `check` gets the present alias, or None."""
    find_model(session, pointer.model, lock=True)
    for number in wanted.versions():
        find_version(session, pointer.model, number)
    found = session.get(Alias, pointer)
    check(found)
    _check_promotable(session, pointer.model, wanted)
    if found is None:
        found = Alias(
            model_name=pointer.model, alias=pointer.alias, revision=1, created_at=utc_now()
        )
        _move(session, found, wanted, AliasMove(how="put", key_id=key_id, before=None))
        return Moved(found, is_new=True)
    if pointing(found) != wanted:
        move = AliasMove(how="put", key_id=key_id, before=found.revision)
        found.revision += 1
        _move(session, found, wanted, move)
    return Moved(found, is_new=False)


def rollback(
    session: Session, pointer: Pointer, expected: int, check: Check, key_id: str | None = None
) -> Alias:
    """Point an alias to its previous version, without canary and shadow.

    `expected` is the version that the caller has already loaded for the rollback.
    """
    find_model(session, pointer.model, lock=True)
    alias = find_alias(session, *pointer)
    check(alias)
    goal = before(session, pointer)
    check_exists(session, goal)
    if goal.version != expected:
        raise Conflict(
            f"The alias {alias.alias!r} was moved meanwhile and would go back to version "
            f"{goal.version}: read it, then roll it back again.",
            code="moved_meanwhile",
        )
    wanted = Pointing(goal.version)
    _check_promotable(session, pointer.model, wanted)
    alias.revision += 1
    _move(session, alias, wanted, AliasMove(how="rollback", key_id=key_id, before=goal.before))
    return alias


def check_exists(session: Session, goal: AliasMove) -> None:
    """Raise Conflict if the version of the rollback was deleted."""
    if session.get(ModelVersion, (goal.model_name, goal.version)) is None:
        raise Conflict(
            f"The alias {goal.alias!r} pointed to version {goal.version} before, which was "
            "deleted since: move it with PUT.",
            code="version_deleted",
        )


def remove(session: Session, pointer: Pointer, check: Check) -> None:
    """Delete an alias and the history of its moves."""
    find_model(session, pointer.model, lock=True)
    found = find_alias(session, *pointer)
    check(found)
    session.delete(found)
    session.flush()
    versions.changed(session, pointer.model)


# ---- private -------------------------------------------------------------------------------------


def _check_promotable(session: Session, model: str, wanted: Pointing) -> None:
    """Raise Conflict unless all answering versions are verified; a shadow need not be."""
    versions.check_passed(session, model, wanted.answering())


def _move(session: Session, alias: Alias, wanted: Pointing, move: AliasMove) -> None:
    move.model_name, move.alias, move.revision = alias.model_name, alias.alias, alias.revision
    move.moved_at = alias.updated_at = utc_now()
    for row in (alias, move):
        row.version, row.canary_version, row.canary_percent, row.shadow_version = astuple(wanted)
    session.add(alias)
    session.flush()
    session.add(move)
    session.flush()
    versions.changed(session, alias.model_name)
