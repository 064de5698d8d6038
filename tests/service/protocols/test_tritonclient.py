"""Triton's own client works, unchanged, with a service that runs as a process."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Array = NDArray[Any]


@pytest.fixture
def triton(served_url: str) -> Iterator[Any]:
    client = InferenceServerClient(served_url.removeprefix("http://"))
    yield client
    client.close()


def tensor(name: str, values: Array, *, binary: bool = True) -> Any:
    found = InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def texts(*values: str) -> Array:
    return np.array(values, dtype=np.object_)


def test_the_server_and_its_models_are_live_and_ready(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("scores")
    assert triton.is_model_ready("scores", "2")
    assert not triton.is_model_ready("scores", "3")
    assert not triton.is_model_ready("nobody")


def test_the_metadata_name_versions_tensors_and_the_extension(triton: Any) -> None:
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    described = triton.get_model_metadata("scores")
    assert described["versions"] == ["1", "2"]
    assert described["inputs"] == [{"name": "Quiz", "datatype": "FP64", "shape": [-1]}]
    assert described["outputs"] == [{"name": "Final", "datatype": "FP64", "shape": [-1]}]
    assert triton.get_model_metadata("boats", "1")["inputs"] == [
        {"name": "Age", "datatype": "FP64", "shape": [-1]},
        {"name": "Port", "datatype": "BYTES", "shape": [-1]},
    ]


@pytest.mark.parametrize("in_binary", [True, False])
@pytest.mark.parametrize("out_binary", [True, False])
def test_numbers_go_in_and_out_in_json_and_as_raw_bytes(
    triton: Any, *, in_binary: bool, out_binary: bool
) -> None:
    quiz = tensor("Quiz", np.array([10.0, 4.0]), binary=in_binary)
    wanted = [InferRequestedOutput("Final", binary_data=out_binary)]
    answer = triton.infer("scores", [quiz], model_version="1", outputs=wanted, request_id="7")
    assert answer.as_numpy("Final").tolist() == [13.0, 5.5]
    assert ("data" in answer.get_output("Final")) != out_binary
    told = answer.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("7", "scores", "1")


def test_without_wanted_outputs_all_come_as_raw_bytes(triton: Any) -> None:
    inputs = [tensor("Age", np.array([30.0])), tensor("Port", texts("NA"))]
    answer = triton.infer("boats", inputs)
    assert answer.as_numpy("Survived").tolist()[0] in {b"=no", b"yes"}
    assert answer.as_numpy("probabilities").shape == (1, 2)
    assert all("data" not in each for each in answer.get_response()["outputs"])


def test_each_version_and_alias_answers_and_without_one_the_latest(triton: Any) -> None:
    def ask(version: str) -> tuple[float, str]:
        answer = triton.infer("scores", [tensor("Quiz", np.array([4.0]))], model_version=version)
        return answer.as_numpy("Final")[0], answer.get_response()["model_version"]

    assert ask("1") == ask("champion") == (5.5, "1")
    assert ask("2") == ask("") == (8.0, "2")


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_of_numbers_is_read(triton: Any, dtype: str, *, binary: bool) -> None:
    quiz = tensor("Quiz", np.array([4, 10], dtype=dtype), binary=binary)
    answer = triton.infer("scores", [quiz], model_version="1")
    assert answer.as_numpy("Final").tolist() == [5.5, 13.0]


def test_the_16_bits_of_bf16_are_read(triton: Any) -> None:
    from_ml_dtypes = pytest.importorskip("ml_dtypes").bfloat16
    quiz = tensor("Quiz", np.array([4.0, 10.0], dtype=from_ml_dtypes))
    assert triton.infer("both", [quiz]).as_numpy("B").tolist() == [8.0, 20.0]


@pytest.mark.parametrize("binary", [True, False])
def test_a_column_may_stand_upright(triton: Any, *, binary: bool) -> None:
    quiz = tensor("Quiz", np.array([[4.0], [10.0]]), binary=binary)
    assert triton.infer("both", [quiz]).as_numpy("A").tolist() == [4.0, 10.0]


def test_no_rows_get_no_answers(triton: Any) -> None:
    answer = triton.infer("boats", [tensor("Age", np.array([])), tensor("Port", texts())])
    assert answer.as_numpy("Survived").shape == (0,)
    assert answer.as_numpy("probabilities").shape == (0, 2)


@pytest.mark.parametrize("binary", [True, False])
def test_texts_and_missing_values_are_what_they_are_in_json(
    triton: Any, served_url: str, *, binary: bool
) -> None:
    ages, ports = np.array([30.5, np.nan, 22.0]), texts("NA", "Cherbourg", "")
    answer = triton.infer(
        "boats",
        [tensor("Age", ages, binary=binary), tensor("Port", ports, binary=binary)],
        outputs=[InferRequestedOutput(name) for name in ("Survived", "probabilities")],
    )
    (missing, no_port) = json.loads(answer.get_response()["parameters"]["warnings"])
    assert (missing["column"], missing["code"], missing["rows"]) == ("Age", "missing", [1])
    assert (no_port["column"], no_port["code"], no_port["rows"]) == ("Port", "missing", [2])
    rows = [
        {"Age": 30.5, "Port": "NA"},
        {"Age": None, "Port": "Cherbourg"},
        {"Age": 22.0, "Port": None},
    ]
    native = httpx.post(f"{served_url}/api/v1/models/boats/predict", json={"rows": rows}).json()
    values = [row["value"].encode() for row in native["predictions"]]
    shares = [list(row["probabilities"].values()) for row in native["predictions"]]
    assert answer.as_numpy("Survived").tolist() == values
    assert answer.as_numpy("probabilities").tolist() == shares


@pytest.mark.parametrize("binary", [True, False])
def test_flags_and_times_go_in_and_flags_come_out(triton: Any, *, binary: bool) -> None:
    paid = tensor("Paid", np.array([True, False]), binary=binary)
    month = tensor("Month", texts("1970-01-31", "1970-03-02T00:00:00Z"), binary=binary)
    wanted = [InferRequestedOutput("Late", binary_data=binary)]
    answer = triton.infer("flags", [paid, month], outputs=wanted)
    assert answer.as_numpy("Late").tolist() == [False, True]
    assert answer.as_numpy("Late").dtype == np.bool_


@pytest.mark.parametrize("binary", [True, False])
def test_a_row_that_cannot_be_predicted_is_nan_and_says_why(triton: Any, *, binary: bool) -> None:
    quiz = tensor("Quiz", np.array([10.0, 1000.0]), binary=binary)
    wanted = [InferRequestedOutput(name, binary_data=binary) for name in ("Final", "error")]
    answer = triton.infer("steep", [quiz], outputs=wanted)
    assert answer.as_numpy("Final")[0] == pytest.approx(1e37)
    assert np.isnan(answer.as_numpy("Final")[1])
    fine, why = answer.as_numpy("error").tolist()
    assert not fine
    assert "not finite" in str(why)


@pytest.mark.parametrize(
    ("model", "version", "inputs", "message"),
    [
        ("nobody", "", [tensor("Quiz", np.array([1.0]))], "There is no model 'nobody'"),
        ("scores", "3", [tensor("Quiz", np.array([1.0]))], "no version 3"),
        ("scores", "", [tensor("quiz", np.array([1.0]))], "the model has 'Quiz'"),
        ("scores", "", [tensor("Quiz", np.array([[1.0, 2.0]]))], r"send \[rows\]"),
        ("scores", "", [tensor("Quiz", texts("a"))], "datatype BYTES: send FP64"),
        (
            "boats",
            "",
            [tensor("Age", np.array([1.0])), tensor("Port", texts("a", "b"))],
            "has 2 rows, but the first one has 1",
        ),
        ("scores", "", [tensor("Quiz", np.zeros(10_001))], "DESCENT_MAX_PREDICT_ROWS"),
    ],
)
def test_what_does_not_fit_raises_with_a_message_that_says_what(
    triton: Any, model: str, version: str, inputs: list[Any], message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message):
        triton.infer(model, inputs, model_version=version)


def test_an_output_that_there_is_not_raises_with_those_that_there_are(triton: Any) -> None:
    quiz, wanted = tensor("Quiz", np.array([1.0])), [InferRequestedOutput("x")]
    with pytest.raises(InferenceServerException, match="the model has 'Final'"):
        triton.infer("scores", [quiz], outputs=wanted)


def test_an_extension_that_is_not_spoken_is_refused_by_name(triton: Any) -> None:
    quiz, wanted = tensor("Quiz", np.array([1.0])), [InferRequestedOutput("Final", class_count=2)]
    with pytest.raises(InferenceServerException, match="classification is not supported"):
        triton.infer("scores", [quiz], outputs=wanted)
    with pytest.raises(InferenceServerException, match="There is no '/v2/models/scores/config'"):
        triton.get_model_config("scores")
    with pytest.raises(InferenceServerException, match="There is no '/v2/repository/index'"):
        triton.get_model_repository_index()
