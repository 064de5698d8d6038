"""MLflow's bodies are read as tables; MLflow's own client works, unchanged, with a process."""

import json
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.models import convert_input_example_to_serving_input
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from mlflow.utils.proto_json_utils import dump_input_data
from pydantic import SecretStr, ValidationError

from service.errors import BadRequest, Invalid, TooLarge
from service.predict import bodies
from service.protocols import mlflow
from service.settings import Settings
from tests.service.trained import Trained
from tests.serving import Serve

INPUTS = ["Age", "Port"]
TABLE = {"Age": [22.0, None], "Port": ["S", "C"]}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: a prediction only looks up a checkpoint, as in `registry`."""
    return sqlite_url


def read(text: str, inputs: list[str] | None = None) -> bodies.Rows:
    document = mlflow.parse(text.encode())
    assert isinstance(document, dict)
    return mlflow.read(document, inputs or INPUTS, 10)


# ---- bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"dataframe_split": {"columns": ["Port", "Age"], "data": [["S", 22.0], ["C", NaN]]}}',
        '{"dataframe_split": {"index": [7, 8], "data": [[22.0, "S"], [null, "C"]]}}',
        '{"dataframe_records": [{"Age": 22.0, "Port": "S"}, {"Port": "C", "Age": NaN}]}',
        '{"instances": [{"Age": 22.0, "Port": "S"}, {"Port": "C"}]}',
        '{"instances": [[22.0, "S"], [NaN, "C"]]}',
        '{"inputs": {"Age": [22.0, NaN], "Port": ["S", "C"]}}',
        '{"inputs": {"Age": [[22.0], [NaN]], "Port": [["S"], ["C"]]}}',
        '{"inputs": [[22.0, "S"], [NaN, "C"]]}',
        '{"inputs": [{"Age": 22.0, "Port": "S"}, {"Port": "C"}], "params": null}',
    ],
)
def test_a_table_is_the_same_in_each_of_the_four_ways(text: str) -> None:
    rows = read(text)
    assert rows.columns == TABLE
    assert (rows.count, rows.unreadable, rows.is_mlflow, rows.notes) == (2, {}, True, ())


@pytest.mark.parametrize("text", ['{"instances": [1.5, NaN]}', '{"inputs": [[1.5], [NaN]]}'])
def test_the_only_column_needs_no_name(text: str) -> None:
    assert read(text, ["Quiz"]).columns == {"Quiz": [1.5, None]}


def test_one_row_may_be_a_value_for_each_column() -> None:
    rows = read('{"inputs": {"Age": 22.0, "Port": "S"}}')
    assert (rows.columns, rows.count) == ({"Age": [22.0], "Port": ["S"]}, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"dataframe_split": {"columns": ["Age"], "data": []}}',
        '{"dataframe_records": []}',
        '{"instances": []}',
        '{"inputs": {}}',
        '{"inputs": {"Age": []}}',
    ],
)
def test_no_rows_are_no_rows(text: str) -> None:
    assert read(text).count == 0


def test_a_row_that_does_not_fit_costs_only_itself() -> None:
    rows = read('{"dataframe_split": {"columns": ["Age"], "data": [[1], [1, 2], 3, [4]]}}')
    assert rows.columns == {"Age": [1, None, None, 4]}
    codes = {row: error["code"] for row, error in rows.unreadable.items()}
    assert codes == {1: "ragged_row", 2: "malformed_row"}
    assert list(read('{"instances": [{"Age": 1}, 5]}').unreadable) == [1]


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ('{"inputs": [], "instances": []}', "/instances"),
        ('{"inputs": [], "rows": []}', "/rows"),
        ('{"inputs": 5}', "/inputs"),
        ('{"inputs": null}', "/inputs"),
        ('{"inputs": [1, 2]}', "/inputs/0"),
        ('{"inputs": {"Age": [1], "Port": 5}}', "/inputs/Port"),
        ('{"inputs": {"Age": [1], "Port": ["S", "C"]}}', "/inputs/Port"),
        ('{"dataframe_records": {"Age": [1]}}', "/dataframe_records"),
        ('{"dataframe_split": [[1]]}', "/dataframe_split"),
        ('{"dataframe_split": {"columns": ["Age"]}}', "/dataframe_split"),
        ('{"dataframe_split": {"data": [], "x": 1}}', "/dataframe_split"),
        ('{"dataframe_split": {"data": 5}}', "/dataframe_split/data"),
        ('{"dataframe_split": {"columns": [0], "data": [[1]]}}', "/dataframe_split/columns"),
        ('{"dataframe_split": {"columns": ["a", "a"], "data": []}}', "/dataframe_split/columns"),
    ],
)
def test_what_is_no_table_is_pointed_at(text: str, pointer: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert [error["pointer"] for error in caught.value.errors] == [pointer]


def test_nan_is_missing_in_these_bodies_only() -> None:
    for text in (b'{"rows": [{"Age": NaN}]}', b"[NaN]", b"NaN", b'{"columns": {"inputs": [NaN]}}'):
        with pytest.raises(BadRequest) as caught:
            mlflow.parse(text)
        assert caught.value.code == "non_finite_number"
    with pytest.raises(BadRequest) as caught:
        mlflow.parse(b'{"inputs": {"Age": [NaN], "Age": [NaN]}}')
    assert caught.value.code == "duplicate_key"


def test_too_many_rows_name_the_setting() -> None:
    tables: tuple[Any, ...] = ([[1, 2]] * 11, [{}] * 11, {"Age": [1] * 11})
    for table in tables:
        with pytest.raises(TooLarge, match="DESCENT_MAX_PREDICT_ROWS"):
            mlflow.read({"inputs": table}, INPUTS, 10)


# ---- answers -----------------------------------------------------------------------------------


def test_the_predict_routes_answer_these_bodies_with_plain_values(
    client: httpx.Client, scores: Trained
) -> None:
    body = {"dataframe_split": {"columns": ["Quiz"], "data": [[10.0], [4.0]]}}
    for path in ("models/scores", "models/scores/versions/1", f"runs/{scores.run_id}"):
        answer = client.post(f"/api/v1/{path}/predict", json=body).json()
        assert answer["predictions"] == [13.0, 5.5]
        assert "warnings" not in answer


@pytest.mark.usefixtures("steep")
def test_what_there_is_to_say_of_rows_stands_beside_the_values(client: httpx.Client) -> None:
    content = '{"inputs": {"Quiz": [10.0, NaN, 1000.0, NaN]}, "params": {"a": 1}}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/v1/models/steep/predict", content=content, headers=headers).json()
    assert [value is None for value in answer["predictions"]] == [False, False, True, False]
    ignored, missing, *_others = answer["warnings"]
    assert ignored["code"] == "params_ignored"
    assert (missing["code"], missing["rows"]) == ("missing", [1, 3])
    (error,) = answer["errors"]
    assert (error["code"], error["rows"]) == ("non_finite", [2])


@pytest.mark.usefixtures("boats")
def test_a_row_with_a_problem_is_null_where_errors_are_asked_for(client: httpx.Client) -> None:
    body = {"instances": [[30.0, "NA"], [30.0, "nowhere"], [30.0]]}
    answer = client.post("/api/v1/models/boats/predict?on_problem=error", json=body).json()
    assert [value is None for value in answer["predictions"]] == [False, True, True]
    codes = {error["code"]: error["rows"] for error in answer["errors"]}
    assert codes == {"unknown_category": [1], "ragged_row": [2]}


# ---- /invocations ------------------------------------------------------------------------------


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("scores", 200),
        ("scores/1", 200),
        ("scores/2", 404),
        ("scores@champion", 404),
        ("nobody", 404),
        ("", 404),
    ],
)
def test_the_configured_model_answers(
    settings: Settings, serve: Serve, model: str, status: int
) -> None:
    client = serve(settings.model_copy(update={"invocations_model": model}))
    answer = client.post("/invocations", json={"inputs": [4.0]})
    assert (answer.status_code, client.get("/ping").status_code) == (status, status)
    if status == 200:
        assert answer.json()["predictions"] == [5.5]
    assert (answer.json().get("code") == "no_invocations_model") == (model == "")


@pytest.mark.usefixtures("scores")
def test_every_body_of_the_predict_routes_is_read_and_has_the_same_answer(
    settings: Settings, serve: Serve
) -> None:
    client = serve(settings.model_copy(update={"invocations_model": "scores"}))
    for content, media_type in (
        (b"Quiz\n10\n4\n", "text/csv; charset=utf-8"),
        (b'{"rows": [{"Quiz": 10}, {"Quiz": 4}]}', "application/json"),
        (b'{"Quiz": 10}\n{"Quiz": 4}\n', "application/x-ndjson"),
    ):
        headers = {"Content-Type": media_type}
        answer = client.post("/invocations", content=content, headers=headers)
        assert answer.json()["predictions"] == [13.0, 5.5]
    strange = client.post("/invocations", content=b"x", headers={"Content-Type": "text/plain"})
    assert strange.status_code == 415


def test_the_key_is_asked_for(settings: Settings, serve: Serve) -> None:
    key = SecretStr("a-key-for-the-tests")
    client = serve(settings.model_copy(update={"api_key": key, "invocations_model": "scores"}))
    for answer in (client.post("/invocations"), client.get("/ping"), client.get("/version")):
        assert answer.status_code == 401


@pytest.mark.parametrize("model", ["a/0", "a/x", "a@b/1", "a/1@b", "@b", "/1", "a b", "models:/a"])
def test_a_setting_that_names_no_model_is_refused(model: str) -> None:
    with pytest.raises(ValidationError, match="invocations_model"):
        Settings(invocations_model=model)


# ---- MLflow's own client -----------------------------------------------------------------------


@pytest.fixture
def scoring(served_url: str) -> Any:
    host, _, port = served_url.removeprefix("http://").partition(":")
    return ScoringServerClient(host, port)


def test_mlflows_client_finds_its_server(scoring: Any) -> None:
    scoring.ping()
    assert scoring.get_version()


@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"Quiz": [10.0, 4.0]}),
        pd.DataFrame({"Quiz": [10.0, 4.0]}, index=["a", "b"]),
        np.array([[10.0], [4.0]]),
        [10.0, 4.0],
    ],
)
def test_mlflows_client_invokes_the_champion(scoring: Any, data: Any) -> None:
    answer = scoring.invoke(data)
    assert answer.get_predictions("ndarray").tolist() == [13.0, 5.5]
    assert answer.get_predictions("dataframe")[0].tolist() == [13.0, 5.5]


def test_mlflows_client_sends_missing_values_as_nan(scoring: Any) -> None:
    data = pd.DataFrame({"Quiz": [10.0, np.nan]})
    assert "NaN" in dump_input_data(data)
    answer = scoring.invoke(data, params={"temperature": 0.5})
    assert [warning["code"] for warning in answer["warnings"]] == ["params_ignored", "missing"]
    assert answer.get_predictions("ndarray")[1] == pytest.approx(1.25 * 7.5 + 0.5)


def test_what_does_not_fit_raises_in_mlflows_client_with_a_message(scoring: Any) -> None:
    with pytest.raises(Exception, match=r"422.*wrong_type"):
        scoring.invoke(pd.DataFrame([[10.0]]))  # the name of its only column is the number 0


@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow's use of pandas
def test_tables_of_several_types_are_read_as_in_rows(served_url: str) -> None:
    table = pd.DataFrame(
        {"Age": [30.5, np.nan, 22.0], "Port": pd.Series(["NA", "Cherbourg", None], dtype="str")}
    )
    rows = [
        {"Age": 30.5, "Port": "NA"},
        {"Age": None, "Port": "Cherbourg"},
        {"Age": 22.0, "Port": None},
    ]
    url = f"{served_url}/api/v1/models/boats/predict"
    native = httpx.post(url, json={"rows": rows}).json()["predictions"]
    headers = {"Content-Type": "application/json"}
    for content in (
        dump_input_data(table),
        convert_input_example_to_serving_input(table),
        json.dumps({"dataframe_records": table.to_dict(orient="records")}),
    ):
        answer = httpx.post(url, content=content, headers=headers).json()
        assert answer["predictions"] == [row["value"] for row in native]
        assert [len(warning["rows"]) for warning in answer["warnings"]] == [1, 1]


def test_times_and_flags_are_read_as_pandas_writes_them(served_url: str) -> None:
    months = pd.to_datetime(["1970-01-31", "1970-03-02"])
    table = pd.DataFrame({"Paid": [True, False], "Month": months})
    headers = {"Content-Type": "application/json"}
    url = f"{served_url}/api/v1/models/flags/predict"
    answer = httpx.post(url, content=dump_input_data(table), headers=headers).json()
    assert answer["predictions"] == [False, True]
    assert "warnings" not in answer


def test_several_targets_are_the_columns_of_a_table(served_url: str) -> None:
    content = dump_input_data(pd.DataFrame({"Quiz": [1.0, 2.0]}))
    headers = {"Content-Type": "application/json"}
    url = f"{served_url}/api/v1/models/both/predict"
    answer = httpx.post(url, content=content, headers=headers).json()
    assert pd.DataFrame(answer["predictions"]).to_dict("list") == {"A": [1.0, 2.0], "B": [2.0, 4.0]}
