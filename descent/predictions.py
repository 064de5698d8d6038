"""Predictions: a table goes to a model, and one prediction for each row comes back."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from descent import frames, schemas
from descent.errors import InvalidRequest
from descent.transport import API, ApiCall, Transport, part

#: one row, several rows, columns, a pandas or polars DataFrame, or a file
Table = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Any
ROWS = 10_000  # of one request: the default limit of a service
#: by the ending of a file name
CONTENT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
}


class Predictions(list[schemas.Prediction]):
    """One prediction for each row, in order, with the model and the version that made them."""

    def __init__(
        self,
        predictions: Sequence[schemas.Prediction],
        model: str | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(predictions)
        self.model = model
        self.version = version

    @property
    def values(self) -> list[Any]:
        """The predicted values alone.

        >>> [round(value, 1) for value in model.predict({"Quiz": [10.0, 20.0]}).values]
        [13.8, 26.9]
        """
        return [prediction.value for prediction in self]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The predictions as columns, named like those that a batch prediction adds.

        They are `prediction` (`prediction.<target>` for several targets),
        `probability.<class>`, with `interval` the bounds `prediction_low` and `prediction_high`
        or the `set` of classes, `warnings` and `error`.

        >>> list(model.predict({"Quiz": [10.0, 20.0]}).columns)
        ['prediction', 'warnings', 'error']
        """
        rows = [dict(_cells(prediction)) for prediction in self]
        names = dict.fromkeys(name for row in rows for name in row)
        tail = [name for name in ("warnings", "error") if name in names]
        order = [name for name in names if name not in tail] + tail
        return {name: [row.get(name) for row in rows] for name in order}

    def frame(self, kind: frames.Kind = "pandas") -> frames.DataFrame:
        """Return `columns` as a pandas or polars DataFrame.

        >>> model.predict({"Quiz": [10.0, 20.0]}).frame("polars").shape
        (2, 3)
        """
        return frames.frame_of(self.columns, kind)


def _cells(prediction: schemas.Prediction) -> Iterator[tuple[str, object]]:
    yield from _named("prediction", prediction.value)
    bounds = prediction.interval
    for target, pair in bounds.items() if isinstance(bounds, dict) else [("", bounds)]:
        if pair is not None:
            name = f"prediction.{target}" if target else "prediction"
            yield f"{name}_low", pair[0]
            yield f"{name}_high", pair[1]
    yield from _named("probability", prediction.probabilities or {})
    if prediction.set is not None:
        yield "set", prediction.set
    yield "warnings", "; ".join(map(_sentence, prediction.warnings or [])) or None
    yield "error", _sentence(prediction.error) if prediction.error else None


def _sentence(remark: schemas.Notice | schemas.PredictionError) -> str:
    """Write a warning or an error as the service does in CSV."""
    where = f"{remark.column}: " if remark.column else ""
    return f"{where}{remark.code}: {remark.detail}"


def _named(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for inner, each in value.items():
            yield from _named(f"{name}.{inner}", each)
    else:
        yield name, value


def predict(
    transport: Transport,
    model_path: str,
    rest: str,
    table: Table,
    on_problem: str,
    interval: float | None = None,
) -> Predictions:
    """Predict, with several requests for a large table; one version answers all of them."""
    params = {"on_problem": on_problem}
    if interval is not None:
        params["interval"] = str(interval)
    if isinstance(table, str | Path):
        file, headers = Path(table), headers_of(Path(table))
        content = file.read_bytes()
        call = ApiCall("POST", model_path + rest, params, content=lambda: content, headers=headers)
        whole = schemas.Predictions.model_validate_json(transport.send(call).content)
        return Predictions(whole.predictions, whole.model, whole.version)
    found: list[schemas.Prediction] = []
    model, version = None, None
    body = table_body(table)
    infinite = dict(_infinite(body))
    pieces = list(_pieces(body, ROWS))[::-1]
    while pieces:
        piece = pieces.pop()
        path = f"{API}/models/{part(model)}/versions/{version}" if model else model_path
        call = ApiCall("POST", path + rest, params=params, json=piece)
        try:
            content = transport.send(call).content
        except InvalidRequest as error:
            rows = _length(piece)
            if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE or rows < 2:
                raise
            pieces += list(_pieces(piece, (rows + 1) // 2))[::-1]
            continue
        answer = schemas.Predictions.model_validate_json(content)
        model, version = answer.model, answer.version
        found += answer.predictions
    for row, problem in infinite.items():
        found[row] = schemas.Prediction(value=None, error=problem)
    return Predictions(found, model, version)


def table_body(table: Table) -> dict[str, Any]:
    """Return the JSON body for a table; NaN, the pandas marker, becomes a missing value."""
    if kind := frames.kind_of(table):
        table = frames.columns_of(table, kind)
    if not isinstance(table, Mapping):
        return {"rows": [_row(row) for row in table]}
    columns = {name: _listed(values) for name, values in table.items()}
    lists = {name: values for name, values in columns.items() if isinstance(values, list | tuple)}
    if lists and len(lists) == len(columns):
        return {
            "columns": {name: list(map(frames.plain, values)) for name, values in lists.items()}
        }
    return {"rows": [_row(table)]}


def _infinite(body: dict[str, Any]) -> Iterator[tuple[int, schemas.PredictionError]]:
    """Yield the error of each row with an infinite number, and replace the number by null.

    JSON has no such number, so the service would refuse the whole request.
    """
    if "rows" in body:
        cells = [
            (number, name, row, name)
            for number, row in enumerate(body["rows"])
            if isinstance(row, dict)
            for name in row
        ]
    else:
        cells = [
            (number, name, values, number)
            for name, values in body["columns"].items()
            for number in range(len(values))
        ]
    for number, name, holder, key in cells:
        value = holder[key]
        if isinstance(value, float) and math.isinf(value):
            holder[key] = None
            detail = f"{value} is not finite"
            yield number, schemas.PredictionError(code="non_finite", detail=detail, column=name)


def _listed(values: object) -> object:
    """Return a column of NumPy, pandas or polars as a list, other values unchanged."""
    for name in ("tolist", "to_list"):
        if hasattr(values, name) and hasattr(values, "__len__"):
            return getattr(values, name)()
    return values


def _row(row: object) -> object:
    # The service refuses a row that is no object.
    return {k: frames.plain(v) for k, v in row.items()} if isinstance(row, Mapping) else row


def _pieces(body: dict[str, Any], rows: int) -> Iterator[dict[str, Any]]:
    """Split a table into tables of at most `rows` rows."""
    for first in range(0, max(1, _length(body)), rows):
        cut = slice(first, first + rows)
        if "rows" in body:
            yield {"rows": body["rows"][cut]}
        else:
            yield {"columns": {name: values[cut] for name, values in body["columns"].items()}}


def _length(body: dict[str, Any]) -> int:
    lists = [body["rows"]] if "rows" in body else list(body["columns"].values())
    return max(map(len, lists), default=0)


def headers_of(file: Path, content_type: str | None = None) -> dict[str, str]:
    """Return the content headers for a file by its name; an unknown ending means CSV."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    headers = {"Content-Encoding": "gzip"} if suffixes[-1:] == [".gz"] else {}
    suffix = suffixes[-1 - len(headers)] if len(suffixes) > len(headers) else ""
    return headers | {"Content-Type": content_type or CONTENT_TYPES.get(suffix, "text/csv")}
