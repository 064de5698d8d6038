"""Unknown fields of a query are refused, as unknown fields of a body are."""

import re

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from sqlalchemy import Engine

from service.http import pages
from service.http.strict_route import StrictRoute, query_names
from service.settings import Settings
from tests.service.trained import Trained
from tests.serving import Serve, app_of

JSON = {"Content-Type": "application/json"}
OPEN = ("/", "/docs", "/healthz", "/readyz", "/openapi.json", "/v2/health/live", "/v2/health/ready")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: these tests do not depend on SQL."""
    return sqlite_url


@pytest.fixture
def app(settings: Settings, engine: Engine) -> FastAPI:
    return app_of(settings)


@pytest.mark.parametrize(
    ("method", "path", "name", "nearest"),
    [
        ("GET", "/api/v1/runs", "limt", "limit"),
        ("GET", "/api/v1/runs", "stats", "state"),
        ("GET", "/api/v1/datasets", "aftr", "after"),
        ("POST", "/api/v1/datasets", "delimeter", "delimiter"),
        ("POST", "/api/v1/models/scores/predict", "on_problm", "on_problem"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_nearest_known_name(
    client: httpx.Client, scores: Trained, method: str, path: str, name: str, nearest: str
) -> None:
    answer = client.request(
        method, path, params={name: "1"}, content=b"{}" if method == "POST" else None, headers=JSON
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid")
    assert problem["errors"] == [
        {
            "pointer": f"/query/{name}",
            "code": "unknown_field",
            "detail": f"{name} is not a known field of the query: did you mean {nearest}?",
        }
    ]


def test_fields_without_a_near_name_are_refused_with_all_known_names(client: httpx.Client) -> None:
    problem = client.get("/api/v1/keys?a~b=1&xyz=2&limit=3").json()
    assert [each["pointer"] for each in problem["errors"]] == ["/query/a~0b", "/query/xyz"]
    assert "it can have" in problem["detail"]
    assert problem["detail"].endswith(" (1 more in `errors`)")
    assert "this call has none" in client.delete("/api/v1/keys/key_x?xyz=1").json()["detail"]


def test_thousands_of_unknown_fields_have_an_answer_of_bounded_size(client: httpx.Client) -> None:
    query = "&".join(f"field{number}=" for number in range(4000))
    answer = client.get(f"/api/v1/keys?{query}")
    assert answer.status_code == 422
    assert "3999 more, of which 99 are in `errors`" in answer.json()["detail"]
    assert len(answer.content) < 32 * 1024


def test_the_key_is_asked_for_before_the_query(settings: Settings, serve: Serve) -> None:
    closed = serve(
        settings.model_copy(update={"api_key": SecretStr("a key of more than 16 characters")})
    )
    assert closed.get("/api/v1/runs?limt=1").status_code == 401


def test_every_call_with_a_key_refuses_an_unknown_field(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            filled = re.sub(r"\{[a-z_]+\}", "1", path)
            answer = client.request(method, f"{filled}?no_such_field=1")
            if operation.get("security") != []:
                assert answer.status_code == 422, (method, path, answer.text)
                assert answer.json()["errors"][0]["pointer"] == "/query/no_such_field"


def test_every_documented_field_is_known(app: FastAPI) -> None:
    document = pages.describe(app, "0")
    for context in iter_route_contexts(app.routes):
        if not isinstance(context.original_route, StrictRoute) or context.path_format is None:
            continue
        for method in context.methods or ():
            operation = document["paths"].get(context.path_format, {}).get(method.lower(), {})
            documented = [
                each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"
            ]
            assert sorted(query_names(context.original_route.dependant)) == sorted(documented)


@pytest.mark.parametrize("path", OPEN)
def test_pages_and_probes_ignore_unknown_fields(client: httpx.Client, path: str) -> None:
    assert client.get(f"{path}?utm_source=x").status_code == client.get(path).status_code
