"""The Open Inference Protocol, as its clients speak it."""

from typing import Any

import httpx
import pytest

from tests.service.inference.trained import Trained


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: predicting only looks a checkpoint up, as `test_registry` does."""
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
    client: httpx.Client, scores: Trained
) -> None:
    body = {"inputs": [_tensor("Quiz", "FP64", [10.0, 1e308])]}
    value, error = client.post("/v2/models/scores/infer", json=body).json()["outputs"]
    assert value["data"] == [13.0, None]
    assert error["data"][0] == ""
    assert "not finite" in error["data"][1]


def test_only_the_outputs_that_are_wanted_come_back(client: httpx.Client, boats: Trained) -> None:
    body: dict[str, Any] = {"inputs": [_tensor("Age", "FP64", [1.0])]}
    wanted = body | {"outputs": [{"name": "probabilities"}]}
    answer = client.post("/v2/models/boats/infer", json=wanted).json()
    assert [tensor["name"] for tensor in answer["outputs"]] == ["probabilities"]
    unknown = body | {"outputs": [{"name": "x"}]}
    assert client.post("/v2/models/boats/infer", json=unknown).status_code == 422


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
