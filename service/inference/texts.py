"""The bodies of predictions that are text, by their media type: JSON of any shape, NDJSON, CSV."""

from models.features import Features
from models.inputs import Choice
from service.inference import bodies, mlflow

JSON, CSV, TSV, NDJSON = (
    "application/json",
    "text/csv",
    "text/tab-separated-values",
    "application/x-ndjson",
)


def read(content: bytes, media_type: str, features: Features, max_rows: int) -> bodies.Rows:
    """Return the rows of a body for a model with these columns. Raises BadRequest, or Invalid."""
    if media_type == JSON:
        document = mlflow.parse(content)
        if not mlflow.is_body(document):
            return bodies.from_json(document, max_rows)
        inputs = [column.name for column in features.inputs]
        return mlflow.read(document, inputs, max_rows)
    if media_type == NDJSON:
        return bodies.from_ndjson(content, max_rows)
    # Only a category can be spelled like a missing value.
    known = {
        column.name: column.categories if isinstance(column, Choice) else ()
        for column in features.inputs
    }
    return bodies.from_csv(content, known, max_rows, "\t" if media_type == TSV else ",")
