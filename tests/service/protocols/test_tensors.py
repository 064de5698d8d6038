"""Tensors as raw bytes: the binary data extension of the Open Inference Protocol, byte by byte."""

import json
import struct
from typing import Any

import httpx
import pytest

from service.protocols import tensors


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: these tests fail or pass before any query."""
    return sqlite_url


def _tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def _raw(
    client: httpx.Client,
    document: dict[str, Any],
    rest: bytes,
    length: object = None,
    **headers: str,
) -> httpx.Response:
    content = json.dumps(document).encode()
    header = {"Inference-Header-Content-Length": str(len(content) if length is None else length)}
    return client.post("/v2/models/boats/infer", content=content + rest, headers=header | headers)


def _binary(name: str, datatype: str, rows: int, size: object) -> dict[str, Any]:
    tensor = {"name": name, "datatype": datatype, "shape": [rows]}
    return tensor | {"parameters": {"binary_data_size": size}}


AGE = struct.pack("<2d", 30.5, float("nan"))
PORT = struct.pack("<I2sI9s", 2, b"NA", 9, b"Cherbourg")


@pytest.mark.usefixtures("boats")
def test_raw_tensors_and_those_in_json_may_stand_side_by_side(client: httpx.Client) -> None:
    inputs = [_tensor("Age", "FP64", [30.5, None]), _tensor("Port", "BYTES", ["NA", "Cherbourg"])]
    expected = client.post("/v2/models/boats/infer", json={"inputs": inputs}).json()
    raw = [_binary("Age", "FP64", 2, len(AGE)), _binary("Port", "BYTES", 2, len(PORT))]
    for given, rest in (
        ([raw[0], raw[1]], AGE + PORT),
        ([raw[1], raw[0]], PORT + AGE),
        ([inputs[0], raw[1]], PORT),
        ([raw[0], inputs[1]], AGE),
    ):
        assert _raw(client, {"inputs": given}, rest).json() == expected


@pytest.mark.usefixtures("boats")
def test_some_outputs_come_as_raw_bytes_and_the_others_in_json(client: httpx.Client) -> None:
    document = {
        "inputs": [_binary("Age", "FP64", 2, len(AGE))],
        "outputs": [
            {"name": "Survived", "parameters": {"binary_data": False}},
            {"name": "probabilities"},
        ],
        "parameters": {"binary_data_output": True},
    }
    answer = _raw(client, document, AGE)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    told = json.loads(answer.content[:length])
    classes, shares = told["outputs"]
    assert len(classes["data"]) == 2
    assert shares["parameters"] == {"binary_data_size": 32}
    assert "data" not in shares
    numbers = struct.unpack("<4d", answer.content[length:])
    assert numbers[0] + numbers[1] == pytest.approx(1)


@pytest.mark.usefixtures("boats")
@pytest.mark.parametrize(
    ("tensor", "rest", "code"),
    [
        (_binary("Age", "FP64", 2, 16), AGE[:-1], "malformed_tensor"),
        (_binary("Age", "FP64", 2, 16), AGE + b"x", "malformed_tensor"),
        (_binary("Age", "FP64", 2, 8), AGE[:8], "malformed_tensor"),
        (_binary("Age", "FP32", 2, 16), AGE, "malformed_tensor"),
        (_binary("Age", "FP64", 10**9, 16), AGE, "too_large"),
        (_binary("Age", "FP64", 2, -1), AGE, "wrong_type"),
        (_binary("Age", "FP64", 2, True), AGE, "wrong_type"),
        (_binary("Age", "FP64", 2, "16"), AGE, "wrong_type"),
        (_binary("Age", "FP64", 2, 10**15), AGE, "malformed_tensor"),
        (_binary("Age", "FP64", 2, 16) | {"data": [1, 2]}, AGE, "unknown_field"),
        (_binary("Port", "BYTES", 2, 2), b"xx", "malformed_tensor"),
        (_binary("Port", "BYTES", 1, 6), struct.pack("<I2s", 3, b"xx"), "malformed_tensor"),
        (_binary("Port", "BYTES", 1, 6), struct.pack("<I2s", 2, b"\xff\xfe"), "malformed_tensor"),
        (_binary("Port", "BYTES", 1, 8), bytes(8), "malformed_tensor"),
        (_binary("Port", "BYTES", 3, 8), bytes(8), "malformed_tensor"),
    ],
)
def test_bytes_that_are_not_what_they_say_are_refused(
    client: httpx.Client, tensor: dict[str, Any], rest: bytes, code: str
) -> None:
    answer = _raw(client, {"inputs": [tensor]}, rest)
    assert answer.status_code in {400, 413, 422}
    assert answer.json()["code"] == code
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.usefixtures("boats")
@pytest.mark.parametrize("length", ["x", "-1", "", "9" * 30, "99999", "1.0", "²"])
def test_a_length_of_the_document_that_cannot_be_is_refused(
    client: httpx.Client, length: str
) -> None:
    headers = {b"Inference-Header-Content-Length": length.encode()}
    answer = client.post("/v2/models/boats/infer", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_header")


@pytest.mark.usefixtures("boats")
def test_a_document_that_is_cut_off_by_its_length_is_malformed(client: httpx.Client) -> None:
    answer = _raw(client, {"inputs": [_binary("Age", "FP64", 2, 16)]}, AGE, length=5)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


@pytest.mark.usefixtures("boats")
def test_tensors_of_another_content_type_or_compressed_are_not_read(client: httpx.Client) -> None:
    for headers in ({"Content-Type": "text/csv"}, {"Content-Encoding": "gzip"}):
        answer = _raw(client, {"inputs": []}, b"", **headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP64", [1.5, -0.0, 5e-324, 1.7976931348623157e308, None]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("BOOL", [True, False]),
        ("BYTES", ["", "ü😀", "a\x00b"]),
    ],
)
def test_what_is_written_as_bytes_is_read_as_the_same_values(
    datatype: str, values: list[Any]
) -> None:
    raw = memoryview(tensors.encode(values, datatype))
    assert tensors.decode(raw, datatype, len(values)) == values


def test_an_answer_that_there_is_not_has_a_stand_in_of_its_datatype() -> None:
    for datatype, expected in (("INT64", 0), ("BOOL", False), ("BYTES", "")):
        raw = memoryview(tensors.encode([None], datatype))
        assert tensors.decode(raw, datatype, 1) == [expected]


def test_a_byte_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or 1"):
        tensors.decode(memoryview(b"\x02"), "BOOL", 1)
