"""No input may produce a 500: every operation in the OpenAPI document gets odd requests."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests.serving import Serve

pytestmark = pytest.mark.slow

SECRET = "a-key-for-the-tests"
ODD = (
    "x",
    "",
    "ü😀",
    "-1",
    "0",
    "9" * 30,
    "1e999",
    "NaN",
    "null",
    "x" * 3000,
    "'; DROP TABLE runs; --",
    "../../etc/passwd",
    "%",
    "\x7f\n\r",
    "run_" + "0" * 26,
    "ds_" + "z" * 26,
)
BODIES: tuple[Any, ...] = (
    None,
    [],
    {},
    "x",
    -1,
    {"name": None},
    {"name": "x" * 5000, "dataset": "", "target": []},
    {"dataset": "ds_" + "0" * 26, "target": "y"},
    {"dataset": {"id": "x", "version": 9 * 10**17}, "target": ["y", "y"]},
    {"dataset": "ü", "target": "y", "epochs": 10**18, "model": {"type": "layers", "layers": [[]]}},
    {"rows": [{}], "columns": {}},
    {"rows": [{"a": [1]}]},
    {"rows": [[1]]},
    {"columns": {"a": [1, 2], "b": [1]}},
    {"columns": {"": [None]}},
    {"name": "t", "columns": {"a": [1e308, -1e308, 10**17]}},
    {"columns": {"a": {"type": "integer"}}},
    {"version": 2**31 - 1},
    {"model": "x"},
    {"inputs": [{"name": "a", "shape": [-1], "datatype": "FP32", "data": [1]}]},
    {"inputs": [{"name": "a", "shape": [10**9], "datatype": "BYTES", "data": []}]},
    {"tags": {"": ""}},
    {"name": "x", "expires_at": "9999-12-31T23:59:59+14:00"},
)
CONTENTS = (b"", b"\x00", b"a,b\n1\n", b"\xff\xfe", b"PAR1", b"{", b'"', b"a" * 2000)
MEDIA = (
    "application/json",
    "text/csv",
    "application/x-ndjson",
    "application/vnd.apache.parquet",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "nonsense",
)


def requests(
    document: dict[str, Any], chance: random.Random, known: tuple[str, ...]
) -> Iterator[httpx.Request]:
    for template, methods in document["paths"].items():
        for method, operation in methods.items():
            names = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
            for odd in ODD + known:
                filled = quote(odd or "x", safe="")
                url = "http://localhost" + re.sub(r"\{[^}]*\}", filled, template)
                query = {name: odd for name in names if chance.random() < 0.4} | {"wait": "0"}
                content, media = body_of(chance)
                headers = {
                    b"Content-Type": media.encode(),
                    b"If-Match": chance.choice((b'"x"', b"*", b"")),
                }
                yield httpx.Request(
                    method.upper(),
                    url,
                    params=query,
                    content=content if "requestBody" in operation else None,
                    headers=headers,
                )


def known_ids(client: httpx.Client) -> tuple[str, ...]:
    """Create a dataset and a run, so that some of the requests pass the 404."""
    table = {"columns": {"x": [1, 2, 3, 4, 5, 6], "y": [2, 4, 6, 8, 10, 12]}}
    dataset = client.post("/api/v1/datasets", json=table).json()["id"]
    run = client.post("/api/v1/runs", json={"dataset": dataset, "target": "y"}).json()["id"]
    return (run, dataset, run)


def body_of(chance: random.Random) -> tuple[bytes, str]:
    if chance.random() < 0.7:
        return json.dumps(chance.choice(BODIES)).encode(), "application/json"
    return chance.choice(CONTENTS), chance.choice(MEDIA)


def test_no_input_produces_a_500(settings: Settings, serve: Serve) -> None:
    client = serve(settings.model_copy(update={"api_key": SecretStr(SECRET)}))
    client.headers["Authorization"] = f"Bearer {SECRET}"
    document = client.get("/openapi.json").json()
    chance = random.Random(1)  # noqa: S311  no secret is made
    for request in requests(document, chance, known_ids(client)):
        request.url = client.base_url.copy_with(raw_path=request.url.raw_path)
        request.headers["Authorization"] = client.headers["Authorization"]
        request.headers["Host"] = client.base_url.netloc.decode()
        answer = client.send(request)
        asked = f"{request.method} {request.url} {request.content[:200]!r}: {answer.text[:500]}"
        assert answer.status_code < 500 or answer.status_code == 507, asked
        assert answer.status_code != 401, asked
        if answer.status_code >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json", asked
            assert answer.json()["code"], asked
