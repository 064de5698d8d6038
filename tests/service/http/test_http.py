"""The strict route: its checks, their order, and the requests that it accepts."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Request, Response
from pydantic import Field, SecretStr
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from descent.fields import Strict
from descent.spec import RunConfig
from service.access.keys import Key
from service.errors import BadRequest, Invalid
from service.http import validation
from service.http.resources import (
    PageParams,
    WriteSession,
    decode_cursor,
    encode_cursor,
    etag_of,
    page_response,
)
from service.http.strict_route import router
from service.http.validation import MAX_DEPTH, strict_json
from service.settings import Settings
from tests.serving import app_of, serving

JSON = {"Content-Type": "application/json"}


class Body(Strict):
    """The body of the probe."""

    name: str
    count: Annotated[int, Field(ge=0)] = 0


probes = router("/probe")


@probes.post("")
def take(body: Body) -> dict[str, Any]:
    return body.model_dump()


@probes.post("/run")
def take_run(body: RunConfig) -> dict[str, Any]:
    return body.model_dump()


@probes.post("/nothing")
def take_nothing() -> dict[str, Any]:
    return {}


@probes.post("/fails")
def fail() -> None:
    raise RuntimeError("/secret/path and SELECT 1")


@probes.post("/commit")
def commit(session: WriteSession) -> dict[str, Any]:
    session.add(Key(id="key_x", name="x", sha256="0" * 64, prefix="dsc_"))

    def lose(_connection: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    event.listen(session.connection(), "commit", lose, once=True)
    return {"said": "done"}


@probes.get("/list")
def some(request: Request, page: PageParams) -> Response:
    last = decode_cursor("probe", page.after, int)[0] if page.after else 10
    rows = list(range(last - 1, -1, -1))[: page.limit + 1]
    return page_response(request, rows, page, lambda row: encode_cursor("probe", [row]), list)


@pytest.fixture(scope="module")
def probe(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("probe")
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    settings = Settings(data_dir=folder, max_json_bytes=2048, api_key=SecretStr("k" * 20))
    app = app_of(settings)
    app.include_router(probes)
    headers = {"Authorization": "Bearer " + "k" * 20}
    with serving(app) as url, httpx.Client(base_url=url, headers=headers) as client:
        yield client


def test_a_body_that_fits_reaches_the_route(probe: httpx.Client) -> None:
    assert probe.post("/probe", json={"name": "ü"}).json() == {"name": "ü", "count": 0}


def test_the_key_is_asked_for_before_all_else(probe: httpx.Client) -> None:
    answer = probe.post("/probe", content=b"{" * 9000, headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_content_type_is_checked_before_the_size(probe: httpx.Client) -> None:
    answer = probe.post("/probe", content=b"{" * 9000, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_the_size_is_checked_before_the_body_is_parsed(probe: httpx.Client) -> None:
    answer = probe.post("/probe", content=b"{" * 9000, headers=JSON)
    assert answer.status_code == 413
    assert "DESCENT_MAX_JSON_BYTES" in answer.json()["detail"]


def test_a_body_without_announced_length_is_cut_off_at_the_limit(probe: httpx.Client) -> None:
    answer = probe.post("/probe", content=iter([b"[" * 1500] * 3), headers=JSON)
    assert answer.status_code == 413


def test_the_parse_comes_before_the_schema(probe: httpx.Client) -> None:
    answer = probe.post("/probe", content=b'{"bogus": NaN}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "non_finite_number")


def test_what_does_not_fit_the_schema_is_named_with_its_value(probe: httpx.Client) -> None:
    answer = probe.post("/probe", json={"name": "x", "count": -1, "bogus/field": 1})
    problem = answer.json()
    assert answer.status_code == 422
    assert problem["errors"] == [
        {
            "pointer": "/count",
            "code": "out_of_range",
            "detail": "count: it should be greater than or equal to 0, got -1.",
        },
        {
            "pointer": "/bogus~1field",
            "code": "unknown_field",
            "detail": "bogus/field is not a known field: remove it or check its spelling.",
        },
    ]


def test_an_error_inside_a_union_points_to_what_the_client_wrote(probe: httpx.Client) -> None:
    body = {"dataset": "ds", "target": "y", "optimizer": {"type": "sgd", "learning_rate": -1}}
    (error,) = probe.post("/probe/run", json=body).json()["errors"]
    assert error["pointer"] == "/optimizer/learning_rate"
    assert error["detail"].endswith("got -1.")


def test_a_missing_field_is_pointed_to(probe: httpx.Client) -> None:
    assert probe.post("/probe", json={}).json()["errors"] == [
        {"pointer": "/name", "code": "missing_field", "detail": "name is required."}
    ]


RUN = {"dataset": "ds", "target": "y"}


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"epochs": "5"}, "/epochs", "wrong_type"),
        ({"epochs": True}, "/epochs", "wrong_type"),
        ({"epochs": 5.5}, "/epochs", "wrong_type"),
        ({"epochs": 0}, "/epochs", "out_of_range"),
        ({"batch_size": "16"}, "/batch_size", "wrong_type"),
        ({"standardize": "yes"}, "/standardize", "wrong_type"),
        ({"standardize": 1}, "/standardize", "wrong_type"),
        ({"optimizer": {"learning_rate": "1"}}, "/optimizer/learning_rate", "wrong_type"),
        ({"optimizer": {"learning_rate": True}}, "/optimizer/learning_rate", "wrong_type"),
        ({"optimizer": "adam"}, "/optimizer", "wrong_type"),
        ({"model": {"type": "forest"}}, "/model", "not_allowed"),
        ({"model": {"type": "layers", "layers": ["sine"]}}, "/model/layers/0", "not_allowed"),
        ({"loss": "l2"}, "/loss", "not_allowed"),
        ({"features": []}, "/features", "too_short"),
        ({"name": "x" * 300}, "/name", "too_long"),
        ({"device": "tpu"}, "/device", "invalid_value"),
        ({"features": ["a", "a"]}, "/features", "invalid_value"),
        ({"target": None}, "/target", "wrong_type"),
        ({"target": ["y", 1]}, "/target/1", "wrong_type"),
        ({"dataset": {}}, "/dataset/id", "missing_field"),
        ({"budget": {"time_s": 1, "steps": 2}}, "/budget/steps", "unknown_field"),
    ],
)
def test_each_wrong_place_is_named_once_with_a_code_of_ours(
    probe: httpx.Client, change: dict[str, Any], pointer: str, code: str
) -> None:
    (error,) = probe.post("/probe/run", json=RUN | change).json()["errors"]
    assert (error["pointer"], error["code"]) == (pointer, code)


def test_what_a_field_may_be_is_said_in_one_sentence(probe: httpx.Client) -> None:
    problem = probe.post("/probe/run", json=RUN | {"batch_size": "16"}).json()
    sentence = "batch_size: it should be a valid integer, or be 'full', got \"16\"."
    assert problem["detail"] == sentence


def test_a_whole_number_is_an_integer_and_an_integer_a_number(probe: httpx.Client) -> None:
    config = RUN | {"epochs": 5.0, "batch_size": 16.0, "optimizer": {"learning_rate": 1}}
    answer = probe.post("/probe/run", json=config).json()
    assert (answer["epochs"], answer["batch_size"]) == (5, 16)
    assert answer["optimizer"]["learning_rate"] == 1.0


def test_a_rule_that_pydantic_adds_gets_the_code_of_all_others() -> None:
    error = {"type": "new_in_the_next_version", "loc": ("body", "x"), "msg": "Input should be y"}
    (item,) = validation.to_error([error | {"input": 1}], {"x": 1}).errors
    assert item["code"] == "invalid_value"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"1", b'"x"', b"\xff", b"{", b'{"name": "x"} trailing']
)
def test_a_body_that_is_no_object_is_refused_and_breaks_nothing(
    probe: httpx.Client, body: bytes
) -> None:
    assert probe.post("/probe", content=body, headers=JSON).status_code in (400, 422)


@pytest.mark.parametrize("number", ["1" * 5000, "1e400", "-1e999", "9" * 30])
def test_a_huge_number_is_refused_and_breaks_nothing(probe: httpx.Client, number: str) -> None:
    body = f'{{"name": "x", "count": {number[:1900]}}}'.encode()
    assert probe.post("/probe", content=body, headers=JSON).status_code in (400, 422)


def test_a_route_without_a_body_takes_none(probe: httpx.Client) -> None:
    assert probe.post("/probe/nothing").status_code == 200
    assert probe.post("/probe/nothing", json={}).status_code == 200
    assert probe.post("/probe/nothing", json={"a": 1}).json()["code"] == "unexpected_body"


def test_a_fault_of_ours_is_a_problem_that_tells_nothing_of_our_insides(
    probe: httpx.Client,
) -> None:
    answer = probe.post("/probe/fails")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "internal_error")
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert "secret" not in answer.text
    assert "SELECT" not in answer.text


def test_a_commit_that_fails_is_a_503_and_never_a_success(probe: httpx.Client) -> None:
    answer = probe.post("/probe/commit")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert "key_x" not in probe.get("/api/v1/keys").text


def test_pages_join_without_gap_or_repeat(probe: httpx.Client) -> None:
    seen, url = [], "/probe/list?limit=3"
    while url:
        answer = probe.get(url)
        seen += answer.json()["data"]
        url = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == list(range(9, -1, -1))
    assert not answer.json()["has_more"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "after=abc", "after=%ff", "limit=" + "9" * 400]
)
def test_a_page_that_cannot_be_is_refused_and_never_clamped(
    probe: httpx.Client, query: str
) -> None:
    answer = probe.get(f"/probe/list?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/query/")


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(Invalid, match="not a cursor of this list"):
        decode_cursor("runs", encode_cursor("datasets", [1]), int)


def test_a_cursor_gives_its_values_back() -> None:
    values: list[Any] = [datetime(2026, 1, 2, tzinfo=UTC), "ds_1", 3]
    assert decode_cursor("x", encode_cursor("x", values), datetime, str, int) == values


def test_an_etag_tells_values_apart() -> None:
    assert etag_of("a", 1) == etag_of("a", 1) != etag_of("a", 2)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a": NaN}', "non_finite_number"),
        ("[-Infinity]", "non_finite_number"),
        ('{"a": 1, "a": 1}', "duplicate_key"),
        ('{"b": [{"a": 1, "a": 2}]}', "duplicate_key"),
        (r'"\u0000"', "nul"),
        (r'{"\u0000": 1}', "nul"),
        (r'["\ud800"]', "lone_surrogate"),
        (r'{"\udc00x": 1}', "lone_surrogate"),
        ("[1e999]", "number_too_large"),
        ("[" + "9" * 400 + "]", "number_too_large"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "too_deep"),
        ("[" * 100_000, "too_deep"),
        ('{"a":' * 100_000, "too_deep"),
        ("\ufeff{}", "malformed_json"),
        ("{'a': 1}", "malformed_json"),
        ("[1,]", "malformed_json"),
        ('"\n"', "malformed_json"),
        ("{} {}", "malformed_json"),
        ("", "malformed_json"),
    ],
)
def test_json_that_two_readers_could_understand_differently_is_refused(
    text: str, code: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        strict_json(text.encode())
    assert caught.value.code == code


def test_json_in_another_encoding_is_refused() -> None:
    with pytest.raises(BadRequest, match="not UTF-8"):
        strict_json('{"a": "ü"}'.encode("utf-16"))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, None, True, "ü😀", {"b": {}}]},
        "[[[[{{{{" * 20,
        '\\"[[[' * 50,
        r"\u0000",
        [2**63 - 1, -(2**63)],
    ],
)
def test_json_that_is_strict_is_read_as_it_was_written(value: Any) -> None:
    assert strict_json(json.dumps(value).encode()) == value
    assert strict_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_an_integer_beyond_64_bits_is_read_as_the_float_it_stands_for() -> None:
    assert strict_json(b"[100000000000000000000000]") == [1e23]


def test_depth_is_checked_in_linear_time_on_hostile_text() -> None:
    hostile = b"[" * 31 + rb'"\"\"' * 100_000 + b"{" * 40
    with pytest.raises(BadRequest):
        strict_json(hostile)


def test_of_very_many_errors_the_first_are_listed(probe: httpx.Client) -> None:
    body = {"dataset": "ds_x", "target": "y", "features": [0] * 400}
    answer = probe.post("/probe/run", json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert "(399 more, of which 99 are in `errors`)" in answer.json()["detail"]
