"""The OpenAPI document describes exactly the behaviour of the routes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from service.http.pages import describe
from service.settings import Settings
from service.storage.database import writing
from tests.service.rows import add_run
from tests.serving import app_of

#: GETs of the API that show neither a single resource nor metrics
LISTS = {"/api/v1/architectures"}
#: MLflow's, which answers an empty line
BODILESS = {"get /ping"}


@pytest.fixture(scope="module")
def document(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    app = app_of(Settings(data_dir=folder))
    yield describe(app, "1")
    app.state.engine.dispose()


def headers_of(operation: dict[str, Any]) -> set[str]:
    return {each["name"] for each in operation.get("parameters", ()) if each["in"] == "header"}


def operations(document: dict[str, Any], method: str) -> dict[str, Any]:
    return {path: found[method] for path, found in document["paths"].items() if method in found}


def test_every_post_that_makes_something_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    for path, operation in operations(document, "post").items():
        kinds = ("/predict", "/infer", "/validate", "/preview", "/invocations")
        makes_nothing = path.endswith(kinds)
        assert ("Idempotency-Key" in headers_of(operation)) != makes_nothing, path


def test_what_if_match_protects_is_named(document: dict[str, Any]) -> None:
    protected = {
        (method, path)
        for method in ("put", "patch", "delete", "post")
        for path, operation in operations(document, method).items()
        if "If-Match" in headers_of(operation)
    }
    assert protected == {
        ("put", "/api/v1/models/{name}/aliases/{alias}"),
        ("delete", "/api/v1/models/{name}/aliases/{alias}"),
        ("post", "/api/v1/models/{name}/aliases/{alias}/rollback"),
        ("patch", "/api/v1/datasets/{dataset_id}"),
        ("delete", "/api/v1/datasets/{dataset_id}"),
    }


def test_every_single_resource_and_the_metrics_have_an_etag(document: dict[str, Any]) -> None:
    for path, operation in operations(document, "get").items():
        schema = operation["responses"]["200"].get("content", {}).get("application/json", {})
        is_list = "has_more" in str(resolved(document, schema)) or path in LISTS
        if path.startswith("/api/") and not is_list:
            assert "If-None-Match" in headers_of(operation), path
            assert "ETag" in operation["responses"]["304"]["headers"], path
        else:
            assert "304" not in operation["responses"], path


def resolved(document: dict[str, Any], content: dict[str, Any]) -> Any:
    reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"].get(reference)


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_asking_again_is_a_200_with_the_run(document: dict[str, Any], verb: str) -> None:
    responses = document["paths"][f"/api/v1/runs/{{run_id}}/{verb}"]["post"]["responses"]
    for status in ("200", "202"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Run"}


def test_metrics_come_as_json_or_csv_and_the_log_as_text(document: dict[str, Any]) -> None:
    gets = operations(document, "get")
    metrics = gets["/api/v1/runs/{run_id}/metrics"]["responses"]["200"]["content"]
    log = gets["/api/v1/runs/{run_id}/log"]["responses"]["200"]["content"]
    assert set(metrics) == {"application/json", "text/csv"}
    assert set(log) == {"text/plain"}


def test_what_has_an_etag_answers_304_to_it_until_it_changes(
    client: httpx.Client, engine: Engine
) -> None:
    with writing(engine) as session:
        run = add_run(session)
        paths = [f"/runs/{run.id}{rest}" for rest in ("", "/log", "/metrics")]
        paths += ["/system", f"/datasets/{run.dataset_id}"]
    for path in paths:
        url = f"/api/v1{path}"
        etag = client.get(url).headers["ETag"]
        again = client.get(url, headers={"If-None-Match": etag})
        assert (again.status_code, again.headers["ETag"], again.text) == (304, etag, ""), path
    etags = {path: client.get(f"/api/v1{path}").headers["ETag"] for path in paths[:2]}
    client.post(f"/api/v1{paths[0]}/cancel")
    for path, etag in etags.items():
        answer = client.get(f"/api/v1{path}", headers={"If-None-Match": etag})
        assert "cancelled" in answer.text, path


def test_the_bounds_of_numbers_are_told_in_the_words_of_json_schema(
    document: dict[str, Any],
) -> None:
    epochs = document["components"]["schemas"]["RunConfig"]["properties"]["epochs"]
    assert (epochs["minimum"], epochs["maximum"]) == (1, 1_000_000)
    # Pydantic writes constraints that it cannot translate under its own names.
    assert not re.search(r'"(ge|gt|le|lt)":', json.dumps(document))


# ---- the needs of generators of clients; `test_generated_client` runs one -----------------------


def every_operation(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in methods.items())


def contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the content type and the schema of every body that an operation reads or writes."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        for media_type, content in body.get("content", {}).items():
            yield media_type, content.get("schema", {})


def inner_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and every schema inside it; references are not followed."""
    if isinstance(schema, list):
        for each in schema:
            yield from inner_schemas(each)
    elif isinstance(schema, dict):
        yield schema
        for name, each in schema.items():
            if name not in {"default", "x-default", "example", "examples"}:
                yield from inner_schemas(each)


def test_every_operation_has_an_id_of_its_own(document: dict[str, Any]) -> None:
    ids = [operation.get("operationId") for _, operation in every_operation(document)]
    assert all(re.fullmatch(r"[a-z][a-z_]+", name or "") for name in ids)
    assert len(set(ids)) == len(ids)


def test_every_body_has_a_schema_and_objects_with_members_are_named(
    document: dict[str, Any],
) -> None:
    for place, operation in every_operation(document):
        successes = [each for status, each in operation["responses"].items() if status < "3"]
        has_body = any("content" in each for each in successes)
        assert has_body or "204" in operation["responses"] or place in BODILESS, place
        for media_type, schema in contents(operation):
            assert schema, (place, media_type)
            if media_type != "multipart/form-data":
                assert not [each for each in inner_schemas(schema) if "properties" in each], place


def test_no_inline_object_takes_the_name_of_a_component(document: dict[str, Any]) -> None:
    """Generators name an inline object or enum by its component and its property."""
    components = document["components"]["schemas"]
    inline = {
        f"{name}{member}".replace("_", "").lower()
        for name, component in components.items()
        for member, schema in component.get("properties", {}).items()
        if any(each.get("type") == "object" or "enum" in each for each in inner_schemas(schema))
    }
    names = [name.replace("_", "").lower() for name in components]
    assert len(set(names)) == len(names)
    assert inline & set(names) == set()


def test_no_default_is_an_object_and_no_union_has_a_constant(document: dict[str, Any]) -> None:
    for name, component in document["components"]["schemas"].items():
        for schema in inner_schemas(component):
            assert not isinstance(schema.get("default"), dict), name
            union = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
            assert not [each for each in union if "const" in each], name


def test_the_configuration_and_the_evaluation_of_a_run_are_named(document: dict[str, Any]) -> None:
    run = document["components"]["schemas"]["Run"]["properties"]
    plan = document["components"]["schemas"]["RunPlan"]["properties"]
    config, evaluation = (f"#/components/schemas/{name}" for name in ("RunConfig", "ModelMetrics"))
    assert run["config"]["$ref"] == plan["config"]["$ref"] == config
    assert run["evaluation"]["anyOf"] == [{"$ref": evaluation}, {"type": "null"}]
