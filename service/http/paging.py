"""Lists in pages: the cursor, the envelope and the `Link` header."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response

from service.errors import Invalid

MAX_PAGE = 200  # rows of one page
Row = TypeVar("Row")


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None


def page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of a page.")] = 50,
    after: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> Page:
    return Page(limit, after)


PageParams = Annotated[Page, Depends(page)]


def encode_cursor(kind: str, values: Sequence[str | float | datetime]) -> str:
    """Return an opaque cursor that only the list `kind` reads. `kind` may name a filter too."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    document = json.dumps(plain, separators=(",", ":"))
    text = _seal(kind, document) + document
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(kind: str, text: str, *types: type) -> list[Any]:
    """Return the values of a cursor, as the types they had; raise Invalid for a foreign one."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        seal, document = decoded[:8], decoded[8:]
        if seal != _seal(kind, document):
            raise _foreign(text)
        values = json.loads(document)
        pairs = zip(values, types, strict=True) if types else ()
        return [_typed(value, type_) for value, type_ in pairs] if types else list(values)
    except (ValueError, TypeError, binascii.Error) as error:
        raise _foreign(text) from error


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401  a value of a cursor
    if kind is datetime:
        return datetime.fromisoformat(value)
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _seal(kind: str, document: str) -> str:
    return hashlib.sha256(f"{kind}\n{document}".encode()).hexdigest()[:8]


def _foreign(text: str) -> Invalid:
    detail = f"after={text[:60]!r} is no cursor of this list: leave it out to start again."
    error = {"pointer": "/query/after", "code": "invalid_cursor", "detail": detail}
    return Invalid(detail, code="invalid_cursor", errors=[error])


def page_of(rows: Sequence[Row], limit: int, cursor_of: Callable[[Row], str]) -> dict[str, Any]:
    """Return the envelope of a list from up to `limit` + 1 rows."""
    shown = list(rows[:limit])
    has_more = len(rows) > limit
    cursor = cursor_of(shown[-1]) if has_more else None
    return {"data": shown, "has_more": has_more, "next_cursor": cursor}


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Set `Link: rel="next"` where there is a next page."""
    if cursor is not None:
        query = request.url.include_query_params(after=cursor).query
        prefix, path = request.scope.get("root_path", ""), request.url.path
        path = path if path.startswith(prefix) else prefix + path
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'
