"""The bodies of predictions that are text, by their media type: JSON of any shape, NDJSON, CSV."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from models.features.encoding import Features
from models.features.inputs import Choice
from service.predict import bodies
from service.predict.answers import Answer

JSON, CSV, TSV, NDJSON = (
    "application/json",
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
)


class ForeignBodies(Protocol):
    """JSON bodies of another server's clients, and the answers that they expect."""

    def parse(self, content: bytes, /) -> Any:  # noqa: ANN401  JSON may hold anything
        """Return a JSON document, with the constants that such a body may hold."""
        ...

    def is_body(self, document: Any, /) -> bool:  # noqa: ANN401  JSON may hold anything
        ...

    def read(
        self, document: Mapping[str, Any], inputs: Sequence[str], max_rows: int, /
    ) -> bodies.Rows: ...

    def to_json(
        self, named: Mapping[str, Any], rows: Sequence[Answer], notes: Sequence[Any], /
    ) -> bytes:
        """Write an answer in their shape."""
        ...


def read(
    content: bytes, media_type: str, features: Features, max_rows: int, foreign: ForeignBodies
) -> bodies.Rows:
    """Return the rows of a body for a model with these columns. Raises BadRequest, or Invalid."""
    if media_type == JSON:
        document = foreign.parse(content)
        if not foreign.is_body(document):
            return bodies.from_json(document, max_rows)
        inputs = [column.name for column in features.inputs]
        return foreign.read(document, inputs, max_rows)
    if media_type == NDJSON:
        return bodies.from_ndjson(content, max_rows)
    # Only a category can be spelled like a missing value.
    known = {
        column.name: column.categories if isinstance(column, Choice) else ()
        for column in features.inputs
    }
    return bodies.from_csv(content, known, max_rows, "\t" if media_type == TSV else ",")
