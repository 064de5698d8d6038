"""The Open Inference Protocol, as its clients use it."""

import json
from math import inf, nan
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tests.service import trained
from tests.service.trained import Store, Trained, publish


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: a prediction only looks up a checkpoint, as in `registry`."""
    return sqlite_url


def _tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def test_the_server_and_a_model_are_ready(client: httpx.Client, scores: Trained) -> None:
    assert client.get("/v2").json()["name"] == "descent"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("scores", "scores/versions/1"):
        answer = client.get(f"/v2/models/{path}/ready").json()
        assert answer == {"name": "scores", "ready": True}
    assert client.get("/v2/models/nobody/ready").status_code == 404


def test_a_model_describes_its_tensors(client: httpx.Client, boats: Trained) -> None:
    body = client.get("/v2/models/boats").json()
    assert body == client.get("/v2/models/boats/versions/1").json()
    assert body["inputs"] == [
        {"name": "Age", "datatype": "FP64", "shape": [-1]},
        {"name": "Port", "datatype": "BYTES", "shape": [-1]},
    ]
    assert body["outputs"] == [
        {"name": "Survived", "datatype": "BYTES", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
    ]


def test_a_tensor_for_each_column_goes_in(client: httpx.Client, scores: Trained) -> None:
    body = {"id": "7", "inputs": [_tensor("Quiz", "FP64", [10.0, 4.0])]}
    answer = client.post("/v2/models/scores/infer", json=body)
    assert answer.json() == {
        "id": "7",
        "model_name": "scores",
        "model_version": "1",
        "outputs": [{"name": "Final", "datatype": "FP64", "shape": [2], "data": [13.0, 5.5]}],
    }
    column = {"name": "Quiz", "datatype": "FP32", "shape": [2, 1], "data": [[10.0], [4.0]]}
    nested = client.post("/v2/models/scores/versions/1/infer", json={"inputs": [column]})
    assert nested.json()["outputs"] == answer.json()["outputs"]


def test_it_predicts_what_the_native_route_predicts(client: httpx.Client, boats: Trained) -> None:
    rows = [{"Age": 30.5, "Port": "NA"}, {"Age": None, "Port": "nowhere"}]
    native = client.post("/api/v1/models/boats/predict", json={"rows": rows}).json()["predictions"]
    inputs = [
        _tensor("Age", "FP64", [30.5, None]),
        _tensor("Port", "BYTES", ["NA", "nowhere"]),
    ]
    answer = client.post("/v2/models/boats/infer", json={"inputs": inputs}).json()
    classes, shares = answer["outputs"]
    assert classes["data"] == [row["value"] for row in native]
    assert shares["shape"] == [2, 2]
    assert shares["data"] == [share for row in native for share in row["probabilities"].values()]


def test_a_row_that_cannot_be_predicted_is_null_and_says_why(
    client: httpx.Client, steep: Trained
) -> None:
    body = {"inputs": [_tensor("Quiz", "FP64", [10.0, 1000.0])]}
    value, error = client.post("/v2/models/steep/infer", json=body).json()["outputs"]
    assert value["data"] == [pytest.approx(1e37), None]
    assert error["data"][0] == ""
    assert "not finite" in error["data"][1]


def test_a_rows_error_is_in_the_parameters_though_only_other_outputs_are_wanted(
    client: httpx.Client, steep: Trained
) -> None:
    body = {"inputs": [_tensor("Quiz", "FP64", [10.0, 1000.0])], "outputs": [{"name": "Final"}]}
    answer = client.post("/v2/models/steep/infer", json=body).json()
    (error,) = json.loads(answer["parameters"]["errors"])
    assert (error["code"], error["rows"]) == ("non_finite", [1])


def test_the_errors_of_rows_may_be_asked_for_where_there_are_none(
    client: httpx.Client, scores: Trained
) -> None:
    body = {"inputs": [_tensor("Quiz", "FP64", [10.0])], "outputs": [{"name": "error"}]}
    (error,) = client.post("/v2/models/scores/infer", json=body).json()["outputs"]
    assert error["data"] == [""]


@pytest.mark.parametrize(
    ("target", "shares", "error"),
    [("probabilities", "probabilities_2", "error"), ("error", "probabilities", "error_2")],
)
def test_a_target_keeps_its_name_though_another_tensor_would_have_it(
    client: httpx.Client, engine: Engine, store: Store, target: str, shares: str, error: str
) -> None:
    saved = trained.boats()
    saved["document"]["features"]["target"]["name"] = target
    publish(engine, store(saved), "odd")
    wanted = [{"name": name} for name in (target, shares, error)]
    body = {"inputs": [_tensor("Age", "FP64", [1.0])], "outputs": wanted}
    found = client.post("/v2/models/odd/infer", json=body).json()["outputs"]
    assert [tensor["name"] for tensor in found] == [target, shares, error]
    assert sum(found[1]["data"]) == pytest.approx(1.0)
    described = client.get("/v2/models/odd").json()["outputs"]
    assert [tensor["name"] for tensor in described] == [target, shares]


def test_only_the_outputs_that_are_wanted_come_back(client: httpx.Client, boats: Trained) -> None:
    body: dict[str, Any] = {"inputs": [_tensor("Age", "FP64", [1.0])]}
    wanted = body | {"outputs": [{"name": "probabilities"}]}
    answer = client.post("/v2/models/boats/infer", json=wanted).json()
    assert [tensor["name"] for tensor in answer["outputs"]] == ["probabilities"]
    unknown = body | {"outputs": [{"name": "x"}]}
    assert client.post("/v2/models/boats/infer", json=unknown).status_code == 422


def _infer(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v2/models/scores/infer", json=body)


QUIZ = {"name": "Quiz", "shape": [1], "datatype": "FP64", "data": [1.0]}


@pytest.mark.usefixtures("scores")
def test_parameters_are_accepted_wherever_the_protocol_has_them(client: httpx.Client) -> None:
    given = {"parameters": {"a": "x", "b": 1, "c": 1.5, "d": True}}
    outputs = [{"name": "Final"} | given]
    assert _infer(client, inputs=[QUIZ | given], outputs=outputs, **given).status_code == 200


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"inputs": [QUIZ], "x": 1}, "/x", "unknown_field"),
        ({"inputs": [QUIZ | {"x": 1}]}, "/inputs/0/x", "unknown_field"),
        ({"inputs": [QUIZ], "outputs": [{"name": "Final", "x": 1}]}, "/outputs/0/x", None),
        ({"inputs": [QUIZ | {"datatype": "FOO"}]}, "/inputs/0/datatype", None),
        ({"inputs": [QUIZ | {"datatype": "BYTES", "data": ["1"]}]}, "/inputs/0/datatype", None),
        ({"inputs": [QUIZ, QUIZ | {"name": "x"}]}, "/inputs/1/name", "unknown_tensor"),
        ({"inputs": [QUIZ, QUIZ]}, "/inputs/1/name", "duplicate_column"),
        ({"inputs": [QUIZ], "outputs": [{"name": "x"}]}, "/outputs/0/name", "unknown_tensor"),
        ({"inputs": [QUIZ | {"shape": [2]}]}, "/inputs/0/shape", "wrong_shape"),
        ({"inputs": [QUIZ | {"shape": [1, 2], "data": [1, 2]}]}, "/inputs/0/shape", None),
        ({"inputs": [QUIZ | {"data": [[1.0]]}]}, "/inputs/0/data/0", "wrong_type"),
        ({"inputs": [QUIZ | {"data": None}]}, "/inputs/0/data", "missing_field"),
        (
            {"inputs": [QUIZ | {"parameters": {"shared_memory_region": "x"}}]},
            "/inputs/0/parameters/shared_memory_region",
            "not_supported",
        ),
    ],
)
def test_what_the_protocol_does_not_know_is_pointed_at(
    client: httpx.Client, body: dict[str, Any], pointer: str, code: str | None
) -> None:
    answer = _infer(client, **body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert code in {None, error["code"]}


@pytest.mark.usefixtures("scores")
def test_an_unknown_tensor_is_told_the_known_ones(client: httpx.Client) -> None:
    assert "Quiz" in _infer(client, inputs=[QUIZ | {"name": "quiz"}]).json()["detail"]


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT64", 1.5),
        ("INT64", True),
        ("INT8", -129),
        ("UINT8", 300),
        ("UINT8", -1),
        ("UINT16", 65536),
        ("INT32", 2**31),
        ("FP16", 65536),
        ("FP32", 1e39),
        ("FP64", "abc"),
        ("FP64", "1"),
        ("FP64", True),
    ],
)
def test_a_value_that_its_datatype_cannot_hold_is_an_error(
    client: httpx.Client, datatype: str, value: object
) -> None:
    tensor = {"name": "Quiz", "shape": [2, 1], "datatype": datatype, "data": [[1], [value]]}
    answer = _infer(client, inputs=[tensor])
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/inputs/0/data/1", "wrong_type")
    assert datatype in error["detail"]


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("INT8", [-128, 127]),
        ("UINT64", [0, 2**63 - 1]),
        ("INT64", [1.0]),
        ("FP16", [65504]),
        ("BF16", [1e38]),
        ("FP64", [1, None]),
    ],
)
def test_a_value_that_its_datatype_holds_is_predicted(
    client: httpx.Client, datatype: str, values: list[float]
) -> None:
    answer = _infer(client, inputs=[_tensor("Quiz", datatype, values)])
    assert answer.status_code == 200
    assert len(answer.json()["outputs"][0]["data"]) == len(values)


def test_the_datatypes_of_other_columns_are_checked_too(
    client: httpx.Client, boats: Trained
) -> None:
    for datatype, data in (("BYTES", [1]), ("FP64", [1.0]), ("BOOL", [True])):
        body = {"inputs": [_tensor("Port", datatype, data)]}
        assert client.post("/v2/models/boats/infer", json=body).status_code == 422


def test_the_warnings_of_rows_are_in_the_parameters_of_the_answer(
    client: httpx.Client, boats: Trained
) -> None:
    inputs = [
        _tensor("Age", "FP64", [30.0, None, None]),
        _tensor("Port", "BYTES", ["NA", "x", "NA"]),
    ]
    answer = client.post("/v2/models/boats/infer", json={"inputs": inputs}).json()
    missing, unknown = json.loads(answer["parameters"]["warnings"])
    assert (missing["column"], missing["code"], missing["rows"]) == ("Age", "missing", [1, 2])
    assert (unknown["column"], unknown["code"], unknown["rows"]) == (
        "Port",
        "unknown_category",
        [1],
    )
    quiet = {"inputs": [_tensor("Age", "FP64", [30.0]), _tensor("Port", "BYTES", ["NA"])]}
    assert "parameters" not in client.post("/v2/models/boats/infer", json=quiet).json()


@pytest.mark.usefixtures("scores")
def test_many_warnings_get_a_short_answer(client: httpx.Client) -> None:
    values = [1000.0 + row for row in range(500)]
    answer = _infer(client, inputs=[_tensor("Quiz", "FP64", values)]).json()
    *told, more = json.loads(answer["parameters"]["warnings"])
    assert len(told) < 100
    assert more == {"code": "more", "detail": f"{500 - len(told)} further problems are not shown"}


@pytest.mark.parametrize(
    "inputs",
    [
        "x",
        [{"name": "Quiz"}],
        [{"name": "Quiz", "datatype": "FP64", "shape": [2], "data": [1]}],
        [{"name": "Quiz", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}],
        [{"name": "Quiz", "datatype": "FP64", "shape": [-1], "data": []}],
        [_tensor("Quiz", "FP64", [1]), _tensor("Quiz", "FP64", [1])],
        [_tensor("Quiz", "FP64", [1]), _tensor("x", "FP64", [1, 2])],
    ],
)
def test_tensors_that_do_not_fit_are_invalid(
    client: httpx.Client, scores: Trained, inputs: object
) -> None:
    assert client.post("/v2/models/scores/infer", json={"inputs": inputs}).status_code == 422


@pytest.mark.usefixtures("scores")
def test_many_wrong_tensors_get_a_short_answer(client: httpx.Client) -> None:
    for body in ({"inputs": [0] * 20_000}, {"inputs": [], "outputs": [0] * 20_000}):
        answer = client.post("/v2/models/scores/infer", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 1000


def test_problems_of_the_protocol_have_the_member_that_its_clients_read(
    client: httpx.Client,
) -> None:
    for answer in (client.get("/v2/models/nobody"), client.get("/v2/x"), client.put("/v2")):
        assert answer.json()["error"] == answer.json()["detail"]
    assert "error" not in client.get("/api/v1/models/nobody").json()


@pytest.mark.usefixtures("scores")
def test_nan_and_infinity_are_read_where_clients_write_what_numpy_holds(
    client: httpx.Client,
) -> None:
    content = json.dumps({"inputs": [_tensor("Quiz", "FP32", [nan, -inf, 4])]})
    assert "NaN, -Infinity" in content
    answer = client.post("/v2/models/scores/infer", content=content).json()
    codes = [told["code"] for told in json.loads(answer["parameters"]["warnings"])]
    assert codes == ["missing", "non_finite"]
    assert answer["outputs"][0]["data"][2] == 5.5


def test_the_versions_that_can_be_asked_for_are_listed(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    publish(engine, scores, "scores")
    for path in ("scores", "scores/versions/1"):
        assert client.get(f"/v2/models/{path}").json()["versions"] == ["1", "2"]
    for version in ("3", "0", "9" * 30, "nobody"):
        assert client.get(f"/v2/models/scores/versions/{version}").status_code == 404
