"""The OpenAPI document of a version describes the inputs and outputs of its predictions."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine

from models.data import Categories, Floats, Table
from models.features.encoding import Features
from tests.service import trained
from tests.service.trained import Store

Publish = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def publish(client: httpx.Client, engine: Engine, store: Store) -> Publish:
    """Publishes a net as the model `m` and returns its document."""

    def make(saved: dict[str, Any]) -> dict[str, Any]:
        signature = Features.from_json(saved["document"]["features"]).signature()
        trained.publish(engine, store(saved), "m", signature=signature)
        answer = client.get("/api/v1/models/m/versions/1/openapi.json")
        assert answer.status_code == 200
        document: dict[str, Any] = answer.json()
        return document

    return make


def every_type() -> dict[str, Any]:
    words = [f"w{place:03}" for place in range(60)]
    rows = np.arange(len(words))
    numbers: Floats = rows.astype(np.float64)
    table = Table(
        types={
            "size": "number",
            "count": "integer",
            "flag": "boolean",
            "day": "datetime",
            "word": "category",
            "y": "number",
        },
        columns={
            "size": np.array([np.nan, *(numbers[1:] / 2)]),
            "count": numbers,
            "flag": numbers % 2,
            "day": 1.6e9 + 86400 * numbers,
            "word": Categories(rows.astype(np.int32), words),
            "y": numbers,
        },
        rows=len(rows),
    )
    features = Features.fit(
        table,
        rows,
        features=["size", "count", "flag", "day", "word"],
        targets=["y"],
        task="regression",
        standardize=True,
    )
    return trained.saved(features, [[0.01] * features.width], [0.0])


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    """Whether a value matches a schema of these documents."""
    if "$ref" in schema:
        return fits(document, document["components"]["schemas"][schema["$ref"][21:]], value)
    if "oneOf" in schema:
        return sum(fits(document, option, value) for option in schema["oneOf"]) == 1
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds: dict[str, type | tuple[type, ...]] = {
        "number": (int, float),
        "integer": int,
        "string": str,
        "boolean": bool,
        "object": dict,
        "array": list,
        "null": type(None),
    }
    named = schema.get("type", list(kinds))
    is_type = any(
        isinstance(value, kinds[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in ([named] if isinstance(named, str) else named)
    )
    if isinstance(value, list):
        return is_type and all(fits(document, schema.get("items", {}), each) for each in value)
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        return (
            is_type
            and set(schema.get("required", ())) <= value.keys()
            and (other is not False or value.keys() <= known.keys())
            and all(fits(document, known.get(name, other), each) for name, each in value.items())
        )
    return is_type


def request_schema(document: dict[str, Any]) -> dict[str, Any]:
    ((_, path),) = document["paths"].items()
    schema: dict[str, Any] = path["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_it_is_a_whole_openapi_document(publish: Publish) -> None:
    document = publish(every_type())
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    assert list(document["paths"]) == ["/api/v1/models/m/versions/1/predict"]
    for reference in references(document):
        assert re.fullmatch("#/components/schemas/[A-Za-z]+", reference)
        assert reference[21:] in document["components"]["schemas"]


def test_columns_have_their_types_ranges_and_categories(publish: Publish) -> None:
    row = publish(every_type())["components"]["schemas"]["Row"]
    assert row["required"] == ["count", "flag", "day", "word"]
    kinds = {name: column["type"] for name, column in row["properties"].items()}
    assert kinds == {
        "size": ["number", "null"],
        "count": "number",
        "flag": "boolean",
        "day": "string",
        "word": "string",
    }
    assert "0.5 to 29.5" in row["properties"]["size"]["description"]
    assert "2020-09-13" in row["properties"]["day"]["description"]
    assert "60 categories" in row["properties"]["word"]["description"]
    assert row["properties"]["word"]["examples"] == [f"w{place:03}" for place in range(50)]


ROW = {"size": None, "count": 3, "flag": True, "day": "2020-10-01T00:00:00Z", "word": "w003"}


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ({"rows": [ROW]}, True),
        ({"columns": {name: [value] for name, value in ROW.items()}}, True),
        ({"rows": [ROW | {"word": "other"}]}, True),
        ({"rows": [ROW | {"further": 1}]}, True),
        ({"rows": [ROW | {"count": "three"}]}, False),
        ({"rows": [ROW | {"flag": 1}]}, False),
        ({"rows": [{}]}, False),
        ({"rows": [ROW], "columns": {}}, False),
    ],
)
def test_it_describes_a_well_formed_request(
    publish: Publish, body: dict[str, Any], *, is_right: bool
) -> None:
    document = publish(every_type())
    assert fits(document, request_schema(document), body) == is_right


@pytest.mark.parametrize("make", [every_type, trained.boats, trained.both, trained.steep])
def test_answers_are_what_it_says(
    client: httpx.Client, publish: Publish, make: Callable[[], dict[str, Any]]
) -> None:
    document = publish(make())
    ((path, item),) = document["paths"].items()
    schema = item["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    rows = [ROW, {}, {"Quiz": 10.0}, {"Quiz": 1e6, "Age": "x", "Port": "y"}, {"day": 1e300}]
    for query in ({}, {"explain": "true"}, {"on_problem": "error"}):
        answer = client.post(path, json={"rows": rows}, params=query)
        assert answer.status_code == 200
        assert fits(document, schema, answer.json()), answer.text


def test_what_is_not_there_has_no_contract(client: httpx.Client) -> None:
    assert client.get("/api/v1/models/none/versions/1/openapi.json").status_code == 404
