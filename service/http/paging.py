"""Lists in pages: the order by a key, the cursor, the envelope and the `Link` header."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Request, Response
from sqlalchemy import ColumnElement, Select, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from service.errors import Invalid, invalid_at
from service.http.responses import json_response

MAX_PAGE = 200  # rows of one page
Row = TypeVar("Row")


@dataclass(frozen=True)
class Page:
    """The part of a list that a request wants."""

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


@dataclass(frozen=True)
class OneOf:
    """The filter "this column has one of these values"."""

    column: InstrumentedAttribute[Any]
    values: Sequence[Any]


class NewestFirst(Generic[Row]):
    """A list of rows, newest first.

    Its columns are unique together. An index must end with them and begin with the columns of the
    list's conditions: then a page costs the same however long the list is.
    """

    def __init__(self, kind: str, table: type[Row], *columns: InstrumentedAttribute[Any]) -> None:
        #: the name of the list in its cursors
        self.kind = kind
        self._table = table
        self._names = [column.key for column in columns]
        self._types = [column.type for column in columns]

    def page(
        self,
        request: Request,
        session: Session,
        page: Page,
        bodies: Callable[[Sequence[Row]], Sequence[object]],
        *conditions: ColumnElement[bool],
        one_of: OneOf | None = None,
    ) -> Response:
        """Answer with the page that `page` asks for, of the rows that meet the conditions.

        `bodies` makes the bodies of all rows of the page at once, so that it needs no query for
        each of them.
        """
        query = select(self._table).where(*conditions)
        if page.after is not None:
            place = decode_cursor(
                self.kind, page.after, *(type_.python_type for type_ in self._types)
            )
            query = query.where(tuple_(*self._of(self._table)) < tuple_(*place, types=self._types))
        values = list(dict.fromkeys(one_of.values)) if one_of else []
        if one_of and len(values) == 1:
            query = query.where(one_of.column == values[0])
        query = self._first(query, self._table, page.limit + 1)
        if one_of and len(values) > 1:
            query = self._merged(query, one_of.column, values, page.limit + 1)
        return page_response(request, session.scalars(query).all(), page, self._cursor, bodies)

    def _of(self, table: Any) -> list[Any]:  # noqa: ANN401  a table, or an alias of one
        return [getattr(table, name) for name in self._names]

    def _first(self, query: Select[Any], table: Any, most: int) -> Select[Any]:  # noqa: ANN401
        return query.order_by(*(column.desc() for column in self._of(table))).limit(most)

    def _merged(
        self, query: Select[Any], column: InstrumentedAttribute[Any], values: list[Any], most: int
    ) -> Select[Any]:
        """Return the first rows of several lists, one for each value, each read from an index.

        With `column IN (…)` the database would sort all rows that have one of the values, or walk
        through all rows that have none.
        """
        lists = [query.where(column == value).subquery() for value in values]
        merged = aliased(self._table, union_all(*(select(each) for each in lists)).subquery())
        return self._first(select(merged), merged, most)

    def _cursor(self, row: Row) -> str:
        return encode_cursor(self.kind, self._of(row))


def page_response(
    request: Request,
    rows: Sequence[Row],
    page: Page,
    cursor_of: Callable[[Row], str],
    bodies: Callable[[Sequence[Row]], Sequence[object]],
) -> Response:
    """Return the envelope of a list from up to `page.limit` + 1 rows, with `Link: rel="next"`."""
    shown, has_more = rows[: page.limit], len(rows) > page.limit
    cursor = cursor_of(shown[-1]) if has_more else None
    body = {"data": bodies(shown), "has_more": has_more, "next_cursor": cursor}
    return json_response(body, headers=_link(request, cursor) if cursor else None)


def _link(request: Request, cursor: str) -> dict[str, str]:
    query = request.url.include_query_params(after=cursor).query
    prefix, path = request.scope.get("root_path", ""), request.url.path
    path = path if path.startswith(prefix) else prefix + path
    return {"Link": f'<{path}?{query}>; rel="next"'}


# ---- cursors ------------------------------------------------------------------------------------


def encode_cursor(kind: str, values: Sequence[str | float | datetime]) -> str:
    """Return an opaque cursor that only the list `kind` accepts; `kind` may name a filter too."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    document = json.dumps(plain, separators=(",", ":"))
    text = _seal(kind, document) + document
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(kind: str, text: str, *types: type) -> list[Any]:
    """Return the values of a cursor with these types; raise Invalid for one of another list."""
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
    return invalid_at("/query/after", "invalid_cursor", detail)
