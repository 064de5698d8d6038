"""Any request of other clients gets an answer: every row, or a 4xx problem."""

import json
import random
from typing import Any

import httpx

SEEDS = 400
NAMES = ("Age", "Port", "", "ü", "index", "data", "columns", "binary_data_size", "parameters")
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 2**63, 10**40, 1e308, -1e308, 0.5),
    *(float("nan"), float("inf"), "", "NA", "x", "1", "\x00", "\ud800", "1970-01-01", [], {}),
)
FIELDS = ("dataframe_split", "dataframe_records", "instances", "inputs", "params", "rows")
ODD_SHAPES: tuple[list[int], ...] = (
    [],
    [0],
    [2, 1],
    [1, 2],
    [10**9],
    [2**70],
    [-1],
    [True],
    [1, 1, 1],
)
DATATYPES = ("FP64", "FP32", "FP16", "BF16", "INT64", "INT8", "UINT64", "BOOL", "BYTES", "x")


def value(chance: random.Random, depth: int = 3) -> Any:
    kind = chance.random()
    if depth == 0 or kind < 0.3:
        return chance.choice(SCALARS)
    several = range(chance.randrange(4))
    if kind < 0.7:
        return [value(chance, depth - 1) for _ in several]
    return {chance.choice(NAMES): value(chance, depth - 1) for _ in several}


def table(chance: random.Random) -> dict[str, Any]:
    document = {chance.choice(FIELDS): value(chance)}
    if chance.random() < 0.5:
        names = chance.sample(["Age", "Port", "x"], chance.randrange(4))
        rows = [value(chance, 2) for _ in range(chance.randrange(4))]
        document["dataframe_split"] = {"columns": names, "data": rows}
    return document


def tensor(chance: random.Random, name: str) -> tuple[dict[str, Any], bytes]:
    """Return a tensor, usually a nearly valid one, and its raw bytes."""
    rows = chance.choice((1, 2, 2, 2))
    shape = [rows] if chance.random() < 0.8 else chance.choice(ODD_SHAPES)
    fitting = ("BYTES",) if name == "Port" else ("FP64", "FP32", "FP16", "BF16", "INT64", "UINT8")
    datatype = chance.choice(fitting if chance.random() < 0.9 else DATATYPES)
    found = {"name": name, "datatype": datatype, "shape": shape}
    if chance.random() < 0.3:
        return found | {"data": [chance.choice(SCALARS) for _ in range(rows)]}, b""
    width = {"BYTES": 4, "FP64": 8, "INT64": 8, "FP32": 4, "UINT8": 1}.get(datatype, 2)
    raw = chance.randbytes(rows * width)
    if datatype == "BYTES" and chance.random() < 0.8:
        texts = [chance.choice((b"", b"NA", b"\xff", b"\0")) for _ in range(rows)]
        raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    size = len(raw) if chance.random() < 0.9 else chance.choice((0, 1, 9, -1, 2**70, True, "8"))
    return found | {"parameters": {"binary_data_size": size}}, raw


def tensors(chance: random.Random) -> tuple[dict[str, Any], bytes]:
    found = [tensor(chance, name) for name in chance.sample(["Age", "Port"], chance.choice((1, 2)))]
    name = chance.choice(("Survived", "probabilities", "Survived", "error"))
    wanted = {"name": name}
    outputs = chance.choice(
        (None, None, [wanted], [wanted | {"parameters": {"binary_data": True}}])
    )
    as_raw = {"binary_data_output": chance.choice((True, False, 1, "true"))}
    document = {"inputs": [each for each, _raw in found], "outputs": outputs, "parameters": as_raw}
    return document, b"".join(raw for _each, raw in found)


def check(answer: httpx.Response, asked: bytes) -> None:
    told = f"{asked!r}: {answer.status_code} {answer.content[:500]!r}"
    assert answer.status_code < 500, told
    if answer.status_code >= 400:
        assert answer.json()["code"], told


def test_odd_tables_of_mlflow_get_an_answer(served_url: str) -> None:
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=served_url, headers=headers) as client:
        for seed in range(SEEDS):
            content = json.dumps(table(random.Random(seed))).encode()  # noqa: S311  no secret
            check(client.post("/api/v1/models/boats/predict", content=content), content)
            check(client.post("/invocations", content=content), content)


def test_odd_tensors_get_an_answer(served_url: str) -> None:
    with httpx.Client(base_url=served_url) as client:
        for seed in range(SEEDS):
            document, rest = tensors(random.Random(seed))  # noqa: S311  no secret
            content = json.dumps(document).encode()
            header = {"Inference-Header-Content-Length": str(len(content))}
            url = "/v2/models/boats/infer"
            check(client.post(url, content=content + rest, headers=header), content + rest)
