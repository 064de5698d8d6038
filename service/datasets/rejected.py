"""The refusal of a file or of its columns, as an exception and as the error of a client."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from descent.codes import ErrorCode
from service.errors import (
    BadRequest,
    Conflict,
    DeathCode,
    Invalid,
    ServiceError,
    StorageFull,
    TooLarge,
    field_error,
)

MAX_ERRORS = 10  # items of one refusal that the answer lists
SHOWN = 40  # characters of a cell that a message repeats
LISTED = 20  # names that a message lists
NAME_SHOWN = 80  # characters of each of these names

#: code of the last death of its process → the error of a failed parse
DEATHS = {
    "worker_lost": "The process that parsed the file died {streak} times ({words}): the file is"
    " damaged or malicious.",
    "out_of_memory": "The machine ran out of memory while it parsed the file, {streak} times"
    " ({words}): send a smaller file, or use a worker with more memory.",
    "stalled": "The process that parsed the file stalled, and died {streak} times ({words}):"
    " the file is damaged or malicious.",
}
#: A file that kills its parser does so again; a second attempt excludes an accident.
MOST_DEATHS: dict[DeathCode, int] = {"worker_lost": 2, "out_of_memory": 2, "stalled": 1}


class Rejected(Exception):
    """The file cannot be read as a table; `code` and `errors` give the place and the reason."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        errors: list[dict[str, Any]] | None = None,
        *,
        status: int = 422,
    ) -> None:
        self.code, self.detail, self.errors, self.status = code, detail, errors or [], status
        super().__init__(detail)

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "detail": self.detail,
            "errors": self.errors,
            "status": self.status,
        }


@dataclass(frozen=True)
class CellPlace:
    """The place of a fault in a file, as far as it is known."""

    #: row of the data, from 1, without the header and empty lines
    row: int | None = None
    column: str | None = None
    #: line of the file, from 1
    line: int | None = None
    #: whether the file gives one list for each column, as JSON may
    is_columnar: bool = False

    def to_json(self) -> dict[str, Any]:
        known = {"row": self.row, "column": self.column, "line": self.line}
        return {"pointer": self._pointer()} | {
            name: value for name, value in known.items() if value is not None
        }

    def _pointer(self) -> str:
        index = [] if self.row is None else [self.row - 1]
        name = [] if self.column is None else [self.column]
        if self.is_columnar or not index:
            return pointer("columns", *name, *index) if name else ""
        return pointer("rows", *index, *name)


def pointer(*parts: str | int) -> str:
    """Return the JSON pointer to a part of the table."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def error_item(code: ErrorCode, detail: str, place: CellPlace) -> dict[str, Any]:
    return {"code": code, "detail": detail} | place.to_json()


def cell_error(
    code: ErrorCode,
    detail: str,
    *,
    row: int | None = None,
    column: str | None = None,
    line: int | None = None,
    is_columnar: bool = False,
) -> Rejected:
    """Return a refusal that points to one cell, row or column."""
    place = CellPlace(row, column, line, is_columnar)
    return Rejected(code, detail, [error_item(code, detail, place)])


def unclosed_quote(row: int) -> Rejected:
    return cell_error(
        "unclosed_quote",
        f"A quoted cell of row {row} is never closed: the file ends inside it.",
        row=row,
    )


def shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def as_error(refused: Rejected) -> ServiceError:
    """Return the error that a client sees for a file that was refused."""
    kinds: dict[int, type[ServiceError]] = {
        400: BadRequest,
        409: Conflict,
        413: TooLarge,
        507: StorageFull,
    }
    kind = kinds.get(refused.status, Invalid)
    errors = refused.errors
    if kind is Invalid and not errors:
        errors = [error_item(refused.code, refused.detail, CellPlace())]
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


def free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or the first of `name_2`, `name_3`, … that is not taken."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:NAME_SHOWN]) for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
