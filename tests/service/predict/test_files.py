"""Parquet and Arrow bodies get the same answers as others, and cannot harm the service."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from service.datasets.messages import ARROW, PARQUET
from service.datasets.parse import parse_rows
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Task
from service.errors import Busy
from service.predict.bodies import READERS, Files
from service.settings import Settings
from tests.service.trained import Trained
from tests.serving import Serve

SCORES = "/api/v1/models/scores/predict"
BOATS = "/api/v1/models/boats/predict"
Write = Callable[[pa.Table], bytes]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: a prediction only looks up a checkpoint, as in `registry`."""
    return sqlite_url


def test_spaces_around_a_name_belong_to_it_where_the_model_knows_it_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({" Age ": [22.0], " Port": ["S"]}), path)
    options = {"known": [" Age ", "Port"], "max_rows": 9}
    found = parse_rows(Task(str(path), str(tmp_path), PARQUET, options, 9))
    assert found["columns"] == {" Age ": [22.0], "Port": ["S"]}


def to_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def to_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pyarrow.ipc.new_file(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue()


WRITE: dict[str, Write] = {PARQUET: to_parquet, ARROW: to_arrow}


def _post(client: httpx.Client, url: str, content: bytes, kind: str = PARQUET) -> httpx.Response:
    return client.post(url, content=content, headers={"Content-Type": kind})


@pytest.mark.parametrize("kind", WRITE)
def test_a_file_gets_the_answer_that_json_gets(
    client: httpx.Client, boats: Trained, kind: str
) -> None:
    columns: dict[str, list[Any]] = {
        "Age": [30.5, None, 22.0],
        "Port": ["NA", "Cherbourg", "nowhere"],
        "Cabin": ["B5", None, ""],
    }
    json = client.post(BOATS, json={"columns": columns})
    table = pa.table(columns).append_column("List", pa.array([[1], None, None]))
    del columns["Cabin"]
    answer = _post(client, BOATS, WRITE[kind](table.drop_columns("List")), kind)
    assert answer.status_code == 200, answer.text
    assert answer.json() == json.json()
    ignored = _post(client, BOATS, WRITE[kind](table), kind).json()["predictions"]
    assert [row["value"] for row in ignored] == [row["value"] for row in json.json()["predictions"]]
    assert "List" in {warning["column"] for warning in ignored[0]["warnings"]}


def test_a_value_of_a_wrong_type_is_its_rows_problem(client: httpx.Client, scores: Trained) -> None:
    table = pa.table({"Quiz": ["10", "x", None]})
    found = _post(client, SCORES, to_parquet(table)).json()["predictions"]
    assert [row["warnings"][0]["code"] for row in found] == ["coerced", "wrong_type", "missing"]


def test_a_file_without_rows_has_no_predictions(client: httpx.Client, scores: Trained) -> None:
    table = pa.table({"Quiz": pa.array([], pa.float64())})
    assert _post(client, SCORES, to_parquet(table)).json()["predictions"] == []


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that reads a table like the parser's process."""

    def run(table: pa.Table, *known: str) -> dict[str, Any]:
        path = tmp_path / "body"
        path.write_bytes(to_parquet(table))
        options = {"known": list(known), "max_rows": 10}
        task = Task(str(path), str(tmp_path), PARQUET, options, max_columns=9)
        found: dict[str, Any] = parse_rows(task)["columns"]
        return found

    return run


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([1, None], pa.int8()), [1, None]),
        (pa.array([1.5, float("nan"), float("-inf")]), [1.5, None, "-inf"]),
        (pa.array([True, None]), [True, None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array(["2020-02-03 04:05:06.5"]).cast(pa.timestamp("ms")), ["2020-02-03 04:05:06.5"]),
        (pa.array([datetime(2020, 2, 3, tzinfo=UTC)]), ["2020-02-03 00:00:00"]),
        (pa.array([date(2020, 2, 3)]), ["2020-02-03 00:00:00"]),
    ],
)
def test_values_arrive_as_json_has_them(
    read: Callable[..., dict[str, Any]], array: Any, values: list[Any]
) -> None:
    assert read(pa.table({" x ": array}), "x") == {"x": values}
    there = [None if value is None else True for value in array.to_pylist()]
    assert read(pa.table({"x": array}), "y") == {"x": there}


def test_names_are_told_apart(read: Callable[..., dict[str, Any]]) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(Rejected) as refused:
        read(table, "x")
    assert refused.value.code == "duplicate_column"


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(
    ("kind", "content", "status", "code"),
    [
        (PARQUET, b"", 400, "malformed_request"),
        (PARQUET, b"Quiz\n1\n", 422, "wrong_format"),
        (PARQUET, b"PAR1" + b"\xff" * 100 + b"PAR1", 422, "dataset_unparseable"),
        (ARROW, b"ARROW1" + b"\xff" * 100 + b"ARROW1", 422, "dataset_unparseable"),
        (PARQUET, to_parquet(pa.table({"Quiz": [[1]]})), 422, "unsupported_type"),
        (PARQUET, to_parquet(pa.table({"Quiz": [1] * 10_001})), 413, "too_large"),
        (ARROW, to_arrow(pa.table({"Quiz": pa.nulls(1_000_000)})), 413, "too_large"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    client: httpx.Client, kind: str, content: bytes, status: int, code: str
) -> None:
    answer = _post(client, SCORES, content, kind)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def bomb() -> bytes:
    """Return a small file that holds a gigabyte: one long text, in each of many rows."""
    places = pa.array([0] * 10_000, pa.int32())
    array = pa.DictionaryArray.from_arrays(places, pa.array(["x" * 100_000]))
    return to_arrow(pa.table({"Quiz": array}))


@pytest.mark.usefixtures("scores")
def test_a_small_file_that_holds_a_gigabyte_harms_nobody(client: httpx.Client) -> None:
    content = bomb()
    assert len(content) < 200_000
    answer = _post(client, SCORES, content, ARROW)
    assert (answer.status_code, answer.json()["code"]) == (422, "parse_out_of_memory")
    assert client.post(SCORES, json={"rows": [{"Quiz": 10}]}).status_code == 200


def test_what_a_file_holds_is_bounded_by_the_largest_body(
    serve: Serve, settings: Settings, scores: Trained
) -> None:
    client = serve(settings.model_copy(update={"max_predict_bytes": 4096}))
    fits = to_parquet(pa.table({"Quiz": [1.0] * 2000}))
    assert _post(client, SCORES, fits).status_code == 200
    grows = to_parquet(pa.table({"Quiz": ["1" * 20] * 2000}))
    assert len(grows) < 4096
    answer = _post(client, SCORES, grows)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    answer = _post(client, SCORES, grows + b"x" * 4096)
    assert "DESCENT_MAX_PREDICT_BYTES" in answer.json()["detail"]


def test_only_some_files_are_read_at_a_time(settings: Settings, tmp_path: Path) -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()

    @contextlib.contextmanager
    def folder() -> Iterator[Path]:
        entered.release()
        assert go_on.wait(60)
        yield tmp_path

    files = Files(settings, folder, patience_s=0)
    content = to_parquet(pa.table({"x": [1]}))
    with ThreadPoolExecutor(READERS) as pool:
        reading = [pool.submit(files.read, content, PARQUET, ["x"]) for _ in range(READERS)]
        assert all(entered.acquire(timeout=60) for _ in range(READERS))
        with pytest.raises(Busy):
            files.read(content, PARQUET, ["x"])
        go_on.set()
        assert [found.result().columns for found in reading] == [{"x": [1]}] * READERS
    assert files.read(content, PARQUET, ["x"]).count == 1


def test_the_description_lists_the_formats(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    predicting = [path for path in paths if path.endswith("/predict")]
    assert len(predicting) == 4
    for path in predicting:
        content = paths[path]["post"]["requestBody"]["content"]
        assert content.keys() >= WRITE.keys()
