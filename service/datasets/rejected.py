"""The one way in which a file is refused. Knows nothing of HTTP or of the database."""

from typing import Any

MAX_ERRORS = 10  # items of one refusal that are spelled out
SHOWN = 40  # characters of a cell that a message repeats


class Rejected(Exception):
    """The file cannot be read as a table; `code` and `errors` say where and why."""

    def __init__(
        self,
        code: str,
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


def cell_error(
    code: str, detail: str, *, row: int | None = None, column: str | None = None
) -> Rejected:
    """Return a refusal that points to one cell, row or column."""
    item: dict[str, Any] = {"code": code, "detail": detail}
    if row is not None:
        item["row"] = row
    if column is not None:
        item["column"] = column
    return Rejected(code, detail, [item])


def shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
