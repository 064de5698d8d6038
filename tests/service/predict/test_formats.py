"""The formats of the answers to predictions."""

import io
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from service.datasets.messages import ARROW, CSV, JSON, NDJSON, PARQUET
from service.predict.answers import ARROW_STREAM, wanted
from tests.service import trained
from tests.service.trained import Store, Trained

BOATS = "/api/v1/models/boats/predict"
ROWS = [{"Age": 30.5, "Port": "NA"}, {"Age": None, "Port": "nowhere"}, "no object"]


def ask(client: httpx.Client, accept: str, rows: list[Any] | None = None) -> httpx.Response:
    body = {"rows": ROWS if rows is None else rows}
    answer = client.post(BOATS, json=body, headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].partition(";")[0] == accept
    return answer


def read(answer: httpx.Response) -> pa.Table:
    source = io.BytesIO(answer.content)
    media_type = answer.headers["content-type"]
    if media_type == PARQUET:
        return pq.read_table(source)
    if media_type == ARROW_STREAM:
        return pyarrow.ipc.open_stream(source).read_all()
    return pyarrow.ipc.open_file(source).read_all()


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html", JSON),
        ("text/csv", CSV),
        ("text/csv, application/json", JSON),
        ("application/x-ndjson", NDJSON),
        (f"{ARROW}, {PARQUET};q=0.5", ARROW),
        (f"{PARQUET}, */*", PARQUET),
        (ARROW_STREAM, ARROW_STREAM),
    ],
)
def test_what_accept_asks_for(accept: str, media_type: str) -> None:
    assert wanted(accept) == media_type


def test_ndjson_has_the_line_of_each_row(client: httpx.Client, boats: Trained) -> None:
    lines = ask(client, NDJSON).content.splitlines()
    assert [orjson.loads(line) for line in lines] == ask(client, JSON).json()["predictions"]


@pytest.mark.parametrize("media_type", [PARQUET, ARROW, ARROW_STREAM])
def test_a_file_holds_what_json_holds_with_its_types(
    client: httpx.Client, boats: Trained, media_type: str
) -> None:
    table, rows = read(ask(client, media_type)), ask(client, JSON).json()["predictions"]
    assert table.column("value").to_pylist() == [row["value"] for row in rows]
    shares = [row.get("probabilities", {}).get("yes") for row in rows]
    assert table.column("probability.yes").to_pylist() == shares
    warnings = [row.get("warnings", []) for row in rows]
    assert table.column("warnings").to_pylist() == warnings
    assert [error and error["code"] for error in table.column("error").to_pylist()] == [
        None,
        None,
        "malformed_row",
    ]
    assert table.schema.metadata == {b"model": b"boats", b"version": b"1"}


@pytest.mark.parametrize("media_type", [PARQUET, ARROW, ARROW_STREAM])
def test_a_file_without_rows_has_the_same_columns(
    client: httpx.Client, boats: Trained, media_type: str
) -> None:
    empty = read(ask(client, media_type, rows=[]))
    assert empty.num_rows == 0
    assert empty.schema.equals(read(ask(client, media_type)).schema)


def test_several_targets_have_a_column_each(
    client: httpx.Client, store: Store, engine: Any
) -> None:
    trained.publish(engine, store(trained.both()), "both")
    answer = client.post(
        "/api/v1/models/both/predict?explain=true",
        json={"rows": [{"Quiz": 10.0}]},
        headers={"Accept": ARROW},
    )
    table = read(answer).drop_columns(["warnings", "error"])
    assert table.to_pylist() == [
        {
            "value.A": 10.0,
            "value.B": 20.0,
            "base.A": 7.5,
            "contribution.A.Quiz": 2.5,
            "base.B": 15.0,
            "contribution.B.Quiz": 5.0,
        }
    ]


def test_an_error_is_json_whatever_was_asked_for(client: httpx.Client, boats: Trained) -> None:
    answer = client.post(BOATS, content=b"{", headers={"Accept": PARQUET})
    assert answer.headers["content-type"] == "application/problem+json"
