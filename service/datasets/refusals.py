"""Why a file is refused after it was received, in words for its client."""

from typing import Any

from descent.codes import ErrorCode
from service.datasets.rejected import Place, Rejected, error_item, pointer
from service.errors import (
    BadRequest,
    Conflict,
    Invalid,
    ServiceError,
    StorageFull,
    field_error,
)
from service.jobs.deaths import DeathCode

#: how a job that parses is said to fail by the deaths of its process, by their code
DEATHS = {
    "worker_lost": "The process that parsed the file ended {streak} times ({words}): the file is"
    " damaged, or made to do this.",
    "out_of_memory": "The machine ran out of memory while it parsed the file, {streak} times"
    " ({words}): send a smaller file, or use a worker with more memory.",
    "stalled": "The process that parsed the file stood still, and ended {streak} times ({words}):"
    " the file is damaged, or made to do this.",
}
#: A file that ends its parser does so again: one more try shows that it was no accident.
MOST_DEATHS: dict[DeathCode, int] = {"worker_lost": 2, "out_of_memory": 2, "stalled": 1}


def as_error(refused: Rejected) -> ServiceError:
    """Return the error that a client sees for a file that was refused."""
    kinds: dict[int, type[ServiceError]] = {400: BadRequest, 409: Conflict, 507: StorageFull}
    kind = kinds.get(refused.status, Invalid)
    errors = refused.errors
    if kind is Invalid and not errors:
        errors = [error_item(refused.code, refused.detail, Place())]
    return kind(refused.detail, code=refused.code, errors=errors)


def from_problem(problem: dict[str, Any]) -> ServiceError:
    """Return the error that a client sees for the problem object of a parse that failed."""
    code: ErrorCode = "dataset_unparseable" if problem["code"] in DEATHS else problem["code"]
    refused = Rejected(
        code, problem["detail"], problem.get("errors"), status=problem.get("status", 422)
    )
    return as_error(refused)


def unknown_columns(names: list[str]) -> Invalid:
    errors = [
        field_error(
            pointer("columns", name), "unknown_column", f"There is no column {name[:80]!r}."
        )
        for name in names
    ]
    return Invalid(errors[0]["detail"], code="unknown_column", errors=errors)


def version_conflict() -> Conflict:
    return Conflict(
        "The dataset got another version meanwhile: read it and try again.",
        code="version_conflict",
    )
