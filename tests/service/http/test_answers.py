"""Real answers match the OpenAPI document."""

from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from descent import Client, schemas
from descent.spec import RunConfig

DATA = Path(__file__).parents[3] / "descent" / "data"
ROWS = 40


def trained(client: Client, kind: str) -> str:
    """Train a short run of a kind and return its id."""
    if kind == "multiclass":
        table: Any = DATA / "iris.csv"
        target: Any = "column_5"
    else:
        numbers = [float(number) for number in range(ROWS)]
        answers = ["yes" if number % 3 else "no" for number in range(ROWS)]
        table = {"x": numbers, "y": [3 * x for x in numbers], "z": numbers[::-1], "sold": answers}
        target = {"regression": "y", "two targets": ["y", "z"], "binary": "sold"}[kind]
    features = None if kind == "multiclass" else ["x"]
    split = {"validation": 0.2, "test": 0.2}
    run = client.submit(client.upload(table), target, features=features, epochs=3, split=split)
    return run.wait(60).id


@pytest.fixture(scope="module")
def document(service_url: str) -> Any:
    return httpx.get(f"{service_url}/openapi.json").json()


@pytest.fixture(scope="module", params=["regression", "two targets", "binary", "multiclass"])
def run(request: pytest.FixtureRequest, service_url: str) -> Any:
    with Client(service_url, progress=False) as client:
        run_id = trained(client, request.param)
    return httpx.get(f"{service_url}/api/v1/runs/{run_id}").json()


def test_a_run_is_as_the_document_describes_it(run: dict[str, Any], document: Any) -> None:
    schema = {"$ref": "#/components/schemas/Run", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(run)
    assert set(run) == set(document["components"]["schemas"]["Run"]["properties"])


def test_its_configuration_and_its_metrics_have_no_undescribed_members(run: dict[str, Any]) -> None:
    assert RunConfig.model_validate(run["config"]).model_dump(mode="json") == run["config"]
    found = schemas.ModelMetrics.model_validate(run["evaluation"], extra="forbid")
    assert found.model_dump(exclude_unset=True, by_alias=True) == run["evaluation"]
    assert found.test is not None
    assert found.baseline is not None
