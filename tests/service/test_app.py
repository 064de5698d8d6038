"""The service as a whole: permissions, origins, and the form of errors."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from pydantic import SecretStr
from starlette.routing import Mount

from models.architectures import ARCHITECTURES
from service.settings import Settings
from tests.serving import Serve, app_of, serving

SECRET = "a-key-for-the-tests"
KEY = {"Authorization": f"Bearer {SECRET}"}
#: the routes without a key in api.md
OPEN = {
    "/",
    "/healthz",
    "/readyz",
    "/docs",
    "/v2/health/live",
    "/v2/health/ready",
}
OPEN_MOUNTS = {"/assets", "/docs/static", "/docs/assets"}  # static files
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")


@pytest.fixture(scope="module")
def app(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("app")
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    return app_of(Settings(data_dir=folder, api_key=SecretStr(SECRET)))


@pytest.fixture(scope="module")
def closed(app: FastAPI) -> Iterator[httpx.Client]:
    """Return a client without a key of a service that needs one."""
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def paths(app: FastAPI) -> set[str]:
    """Return a path of each route, with its parameters filled in."""
    found = {context.path or "" for context in iter_route_contexts(app.routes)}
    return {re.sub(r"\{[^}]*\}", "x", path) for path in found} - {""}


def test_every_route_but_the_open_ones_needs_a_key(app: FastAPI, closed: httpx.Client) -> None:
    assert {"/openapi.json", "/metrics", "/api/v1/keys", "/api/v1/models/x"} <= paths(app)
    for path in paths(app) - OPEN - OPEN_MOUNTS:
        for method in METHODS:
            answer = closed.request(method, path)
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert method == "HEAD" or answer.json()["code"] == "unauthorized"


def test_a_malformed_body_without_a_key_is_still_a_401(app: FastAPI, closed: httpx.Client) -> None:
    for path in paths(app) - OPEN - OPEN_MOUNTS:
        headers = {"Content-Type": "application/json"}
        assert closed.post(path, content=b'{"a": NaN', headers=headers).status_code == 401


def test_the_open_routes_are_open_to_reading_only(app: FastAPI, closed: httpx.Client) -> None:
    for path in paths(app) & OPEN:
        assert closed.get(path).status_code in (200, 503), path
        assert closed.post(path).status_code == 401


def test_what_is_mounted_is_known_and_tells_nothing_but_its_files(
    app: FastAPI, closed: httpx.Client
) -> None:
    assert {route.path for route in app.routes if isinstance(route, Mount)} == OPEN_MOUNTS
    assert closed.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    for path in (
        "/assets/nothing",
        "/assets/../app.py",
        "/docs/static/../app.py",
        "/docs/static/%2e%2e/app.py",
    ):
        assert closed.get(path).status_code == 401


def test_a_path_that_does_not_exist_is_hidden_from_those_without_a_key(
    closed: httpx.Client,
) -> None:
    assert closed.get("/api/v1/nothing").status_code == 401
    answer = closed.get("/api/v1/nothing", headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_wrong_method_names_the_right_ones(closed: httpx.Client) -> None:
    answer = closed.put("/api/v1/keys", headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"


def test_a_problem_has_the_members_of_rfc_9457(closed: httpx.Client) -> None:
    answer = closed.delete("/api/v1/keys/key_x", headers=KEY)
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem == {
        "type": "urn:descent:error:not_found",
        "title": "Not found",
        "status": 404,
        "code": "not_found",
        "detail": "There is no key 'key_x'.",
        "instance": "/api/v1/keys/key_x",
        "request_id": answer.headers["X-Request-ID"],
    }


def test_answers_are_not_sniffed_or_stored(closed: httpx.Client) -> None:
    for path in ("/healthz", "/api/v1/keys"):
        headers = closed.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "server" not in headers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "descent.example"]
)
def test_a_host_that_is_ours_is_served(settings: Settings, serve: Serve, host: str) -> None:
    client = serve(settings.model_copy(update={"allowed_hosts": ("descent.example",)}))
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "evil@localhost", "", "[::1"]
)
def test_a_foreign_host_is_refused(closed: httpx.Client, host: str) -> None:
    answer = closed.get("/healthz", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) in (
        (403, "forbidden_host"),
        (400, "malformed_header"),
    )


def test_pages_of_other_sites_are_refused(closed: httpx.Client) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        answer = closed.get("/healthz", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_origin")


def test_our_own_pages_are_not_refused(closed: httpx.Client) -> None:
    own = str(closed.base_url).rstrip("/")
    for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert closed.get("/healthz", headers=headers).status_code == 200


def test_a_nul_in_the_url_is_refused(closed: httpx.Client) -> None:
    for url in ("/api/v1/keys?after=%00", "/api/v1/keys/%00"):
        assert closed.get(url, headers=KEY).status_code == 400


def test_a_url_or_headers_without_measure_are_refused(closed: httpx.Client) -> None:
    assert closed.get("/healthz", headers={"X-Long": "x" * 70_000}).status_code == 431
    together = closed.get("/healthz?" + "a=b&" * 9_000, headers={"X-Long": "x" * 30_000})
    assert together.json()["code"] == "head_too_large"


def test_openapi_says_what_every_route_needs_and_answers(closed: httpx.Client) -> None:
    document = closed.get("/openapi.json", headers=KEY).json()
    assert document["openapi"].startswith("3.1")
    operations = [
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    ]
    names = [operation["operationId"] for _path, operation in operations]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)
    for path, operation in operations:
        assert "application/problem+json" in operation["responses"]["default"]["content"]
        assert (operation.get("security") == []) == (path in OPEN)
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_reference_of_openapi_leads_somewhere(closed: httpx.Client) -> None:
    document = closed.get("/openapi.json", headers=KEY).json()
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]


def test_the_pages_load_nothing_from_elsewhere(closed: httpx.Client) -> None:
    for path in ("/", "/docs"):
        answer = closed.get(path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for link in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
            assert closed.get(f"/{link}").status_code == 200
        assert "<script>" not in answer.text


def test_under_a_prefix_paths_and_locations_carry_it(settings: Settings, serve: Serve) -> None:
    client = serve(settings.model_copy(update={"root_path": "/descent"}))
    made = client.post("/descent/api/v1/keys", json={"name": "x"})
    key = {"Authorization": f"Bearer {made.json()['secret']}"}
    assert made.headers["Location"].startswith("/descent/api/v1/keys/key_")
    # A proxy may strip or keep the prefix.
    for path in ("/descent/api/v1/keys", "/api/v1/keys"):
        client.post(path, json={"name": "y"}, headers=key)
        answer = client.get(f"{path}?limit=1", headers=key)
        assert answer.links["next"]["url"].startswith("/descent/api/v1/keys?")


def test_a_live_service_says_so(client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_service_with_database_and_storage_is_ready(client: httpx.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 200, answer.text
    parts = [part["name"] for part in answer.json()["parts"]]
    assert parts == ["database", "blobs", "disk", "workers"]


def test_the_architectures_come_with_their_schemas(client: httpx.Client) -> None:
    found = {each["type"]: each for each in client.get("/api/v1/architectures").json()["data"]}
    assert {"linear", "mlp", "layers"} <= set(found)
    assert "hidden" in found["mlp"]["schema"]["properties"]


def test_the_architectures_come_in_pages_as_every_list(client: httpx.Client) -> None:
    types = list(ARCHITECTURES)
    first = client.get(f"/api/v1/architectures?limit={len(types) - 1}")
    assert [each["type"] for each in first.json()["data"]] == types[:-1]
    second = client.get(first.links["next"]["url"]).json()
    assert [each["type"] for each in second["data"]] == types[-1:]
    assert (second["has_more"], second["next_cursor"]) == (False, None)


def test_the_system_says_what_runs_and_what_is_limited(client: httpx.Client) -> None:
    found = client.get("/api/v1/system").json()
    assert found["workers"] == []
    assert found["queue"] == {"queued": 0, "states": {}}
    assert found["limits"]["max_json_bytes"] == 1024 * 1024


def test_requests_are_counted_by_the_template_of_their_path(client: httpx.Client) -> None:
    client.get("/api/v1/models/nothing")
    client.get("/nowhere")
    text = client.get("/metrics").text
    assert 'route="/api/v1/models/{name}",status="404"' in text
    assert 'route="unmatched",status="404"' in text
    assert "nowhere" not in text
    assert "descent_queue_length 0.0" in text
