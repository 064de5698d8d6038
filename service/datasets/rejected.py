"""The one way in which a file is refused. Knows nothing of HTTP or of the database."""

from dataclasses import dataclass
from typing import Any

from descent.codes import ErrorCode

MAX_ERRORS = 10  # items of one refusal that are spelled out
SHOWN = 40  # characters of a cell that a message repeats


class Rejected(Exception):
    """The file cannot be read as a table; `code` and `errors` say where and why."""

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
class Place:
    """Where in a file something is wrong, as far as it is known."""

    #: of the data, from 1: neither a header nor an empty line is counted
    row: int | None = None
    column: str | None = None
    #: of the file, from 1, as editors count
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


def error_item(code: ErrorCode, detail: str, place: Place) -> dict[str, Any]:
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
    place = Place(row, column, line, is_columnar)
    return Rejected(code, detail, [error_item(code, detail, place)])


def shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
