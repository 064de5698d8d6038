"""Datasets over HTTP: uploads in every shape, reading, retyping, deleting."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from service.settings import Settings
from service.storage.database import writing
from tests.service.rows import add_run
from tests.serving import Serve, connected

PATH = "/api/v1/datasets"
CSV = {"Content-Type": "text/csv"}
SCORES = b"Quiz,Final\n25.2,30.5\n8.4,13.6\n4.9,14\n"


def upload(client: httpx.Client, data: bytes = SCORES, **params: Any) -> dict[str, Any]:
    answer = client.post(PATH, content=data, headers=CSV, params=params)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


def test_a_small_table_is_ready_at_once(client: httpx.Client) -> None:
    answer = client.post(PATH, content=SCORES, headers=CSV, params={"name": "scores"})
    body = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{PATH}/{body['id']}")
    assert (body["name"], body["state"], body["rows"], body["version"]) == ("scores", "ready", 3, 1)
    assert body["bytes"] == len(SCORES)
    assert client.get(f"{PATH}/{body['id']}").json() == body


@pytest.mark.parametrize("data", [b"", b"a,b\n", b"a,b\n1,\xff\n", b"a,b\n1\n"])
def test_what_is_wrong_with_a_file_is_in_errors(api: httpx.Client, data: bytes) -> None:
    problem = api.post(PATH, content=data, headers=CSV).json()
    (error,) = problem["errors"]
    assert (error["code"], "pointer" in error) == (problem["code"], True)


def test_a_refused_file_leaves_no_dataset(client: httpx.Client) -> None:
    answer = client.post(PATH, content=b"a,b\n1,2\n3\n", headers=CSV)
    assert code(answer) == (422, "ragged_row")
    assert answer.json()["errors"][0]["row"] == 2
    assert client.get(PATH).json()["data"] == []


def test_who_does_not_wait_gets_202_and_sees_it_become_ready(client: httpx.Client) -> None:
    answer = client.post(PATH, content=SCORES, headers=CSV, params={"wait": 0})
    assert (answer.status_code, answer.json()["state"]) == (202, "ingesting")
    body = client.get(answer.headers["location"], params={"wait": 30}).json()
    assert (body["state"], body["rows"]) == ("ready", 3)


def test_who_does_not_wait_finds_the_refusal_at_the_dataset(client: httpx.Client) -> None:
    answer = client.post(PATH, content=b"a,b\n1\n", headers=CSV, params={"wait": 0})
    body = client.get(answer.headers["location"], params={"wait": 30}).json()
    assert (body["state"], body["error"]["code"]) == ("rejected", "ragged_row")
    assert body["error"]["errors"][0]["row"] == 1
    assert body["error"]["instance"] == answer.headers["location"]
    assert client.get(PATH).json()["data"] == [body]


def test_a_list_goes_from_new_to_old_without_gaps(client: httpx.Client) -> None:
    made = [upload(client, name=str(i))["id"] for i in range(3)]
    first = client.get(PATH, params={"limit": 2}).json()
    second = client.get(PATH, params={"limit": 2, "after": first["next_cursor"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


@pytest.mark.parametrize("data", [b"t\n2020-01-01\n2020-02-01\n", b"a,b\n,\n,\n", b"a\nx1\nx2\n"])
def test_a_table_with_nothing_to_count_is_ready(api: httpx.Client, data: bytes) -> None:
    made = upload(api, data)
    assert api.get(f"{PATH}/{made['id']}").json() == made
    rows = api.get(f"{PATH}/{made['id']}/rows").json()["data"]
    assert [list(row) for row in rows] == [[c["name"] for c in made["columns"]]] * 2
    name = made["columns"][0]["name"]
    patch = {"columns": {name: {"type": "text"}}}
    changed = api.patch(f"{PATH}/{made['id']}", json=patch).json()
    assert (changed["state"], changed["columns"][0]["type"]) == ("ready", "text")


def test_a_form_with_a_file_is_an_upload(api: httpx.Client) -> None:
    form = {"file": ("my scores.tsv", SCORES.replace(b",", b"\t"), "text/tab-separated-values")}
    body = api.post(PATH, files=form).json()
    assert (body["name"], body["rows"]) == ("my scores", 3)


def test_a_vague_content_type_is_told_from_the_file_name(api: httpx.Client) -> None:
    form = {"file": ("scores.csv", SCORES, "application/octet-stream")}
    assert api.post(PATH, files=form).status_code == 201
    form = {"file": ("scores.exe", SCORES, "application/octet-stream")}
    assert code(api.post(PATH, files=form)) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "form",
    [
        {"other": ("x.csv", SCORES, "text/csv")},
        [("file", ("x.csv", SCORES, "text/csv")), ("file", ("y.csv", SCORES, "text/csv"))],
    ],
)
def test_a_form_holds_one_file_and_nothing_else(api: httpx.Client, form: Any) -> None:
    assert code(api.post(PATH, files=form)) == (422, "invalid_form")


def test_a_form_that_is_cut_off_is_malformed(api: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: text/csv\r\n\r\n'
    assert code(api.post(PATH, content=head + SCORES, headers=headers)) == (
        400,
        "malformed_multipart",
    )


def test_a_compressed_table_is_stored_as_it_was(api: httpx.Client) -> None:
    packed = gzip.compress(SCORES[:20]) + gzip.compress(SCORES[20:])
    answer = api.post(PATH, content=packed, headers=CSV | {"Content-Encoding": "gzip"})
    assert answer.json()["bytes"] == len(SCORES)
    assert api.get(f"{PATH}/{answer.json()['id']}/content").content == SCORES


def test_what_is_no_gzip_is_malformed(api: httpx.Client) -> None:
    for data in (SCORES, gzip.compress(SCORES)[:-4]):
        answer = api.post(PATH, content=data, headers=CSV | {"Content-Encoding": "gzip"})
        assert code(answer) == (400, "malformed_gzip")


def test_a_gzip_bomb_is_stopped(api: httpx.Client) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(11_500_000)) + packer.flush()
    answer = api.post(PATH, content=bomb, headers=CSV | {"Content-Encoding": "gzip"})
    assert code(answer) == (413, "gzip_ratio")


def test_a_body_that_is_too_large_is_refused(api: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(13):
            yield b"1,2\n" * 262_144

    assert code(api.post(PATH, content=chunks(), headers=CSV)) == (413, "too_large")
    body = b'{"columns":{"a":[' + b"1," * 60_000 + b"1]}}"
    answer = api.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert code(answer) == (413, "too_large")
    assert "DESCENT_MAX_JSON_TABLE_BYTES" in answer.json()["detail"]


def test_an_announced_length_is_refused_before_it_is_read(api: httpx.Client) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    with connected(api.base_url) as connection:
        connection.sendall(f"{head}Content-Length: {10**15}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(100)


def test_a_json_table_is_named_by_its_body(api: httpx.Client) -> None:
    body = api.post(PATH, json={"name": "j", "columns": {"a": [1, 2, None]}}).json()
    assert (body["name"], body["columns"][0]["missing"]) == ("j", 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{", "malformed_json"),
        ("", "malformed_json"),
        ('{"columns":{"a":[NaN]}}', "non_finite_number"),
        ('{"rows":[{"a":1,"a":2}]}', "duplicate_key"),
        ('{"columns":{"a":["\\ud800"]}}', "lone_surrogate"),
        ('{"name":"\\u0000","columns":{"a":["x"]}}', "nul"),
        ('{"columns":{"a":' + "[" * 40 + "]" * 40 + "}}", "too_deep"),
    ],
)
def test_a_json_table_is_parsed_as_strictly_as_any_body(
    api: httpx.Client, text: str, wanted: str
) -> None:
    answer = api.post(PATH, content=text.encode(), headers={"Content-Type": "application/json"})
    assert code(answer) == (400, wanted)


def test_a_number_is_no_name(api: httpx.Client) -> None:
    answer = api.post(PATH, json={"name": 5, "columns": {"a": [1]}})
    assert code(answer) == (422, "invalid")
    assert answer.json()["errors"][0]["pointer"] == "/name"


@pytest.mark.parametrize(
    "params", [{"header": "maybe"}, {"delimiter": "x"}, {"wait": 61}, {"wait": -1}, {"name": ""}]
)
def test_an_option_out_of_its_set_is_invalid(api: httpx.Client, params: dict[str, Any]) -> None:
    answer = api.post(PATH, content=SCORES, headers=CSV, params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/query/{next(iter(params))}"


def test_options_are_heeded(api: httpx.Client) -> None:
    body = upload(api, b"1;-9\n2;3\n", delimiter="semicolon", header="absent", missing_values="-9")
    assert [column["missing"] for column in body["columns"]] == [0, 1]


def test_an_upload_sent_again_is_made_once(client: httpx.Client) -> None:
    headers = CSV | {"Idempotency-Key": "once"}
    first, again = (client.post(PATH, content=SCORES, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(client.get(PATH).json()["data"]) == 1
    other = client.post(PATH, content=SCORES + b"1,2\n", headers=headers)
    assert code(other) == (422, "idempotency_key_reused")


def test_rows_come_in_order_page_by_page(api: httpx.Client) -> None:
    made = upload(api, b"x,t\n" + b"".join(b"%d.5,2024-01-01\n" % i for i in range(7)))
    path = f"{PATH}/{made['id']}/rows"
    first = api.get(path, params={"limit": 5}).json()
    assert first["data"][0] == {"x": 0.5, "t": "2024-01-01T00:00:00Z"}
    second = api.get(path, params={"limit": 5, "after": first["next_cursor"]}).json()
    assert [row["x"] for row in first["data"] + second["data"]] == [i + 0.5 for i in range(7)]
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_rows_may_be_limited_to_columns(api: httpx.Client) -> None:
    path = f"{PATH}/{upload(api)['id']}/rows"
    assert api.get(path, params={"columns": "Final"}).json()["data"][0] == {"Final": 30.5}
    assert code(api.get(path, params={"columns": "Nope"})) == (422, "unknown_column")
    assert code(api.get(path, params={"after": "xyz"})) == (422, "invalid_cursor")


def test_the_bytes_come_back_as_an_attachment(api: httpx.Client) -> None:
    answer = api.get(f"{PATH}/{upload(api, name='café')['id']}/content")
    assert answer.content == SCORES
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''caf%C3%A9.csv"


def test_an_unchanged_dataset_is_not_sent_again(api: httpx.Client) -> None:
    path = f"{PATH}/{upload(api)['id']}"
    etag = api.get(path).headers["etag"]
    assert api.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_other_types_make_the_next_version(client: httpx.Client) -> None:
    made = upload(client, b"zip,y\n10115,1.5\n20095,2.5\nx,3.5\n")
    patch = {"columns": {"zip": {"type": "number"}}}
    changed = client.patch(f"{PATH}/{made['id']}", json=patch).json()
    assert (changed["id"], changed["version"], changed["sha256"]) == (made["id"], 2, made["sha256"])
    assert (changed["columns"][0]["type"], changed["columns"][0]["missing"]) == ("number", 1)
    assert [warning["code"] for warning in changed["warnings"]] == ["values_lost"]
    assert client.patch(f"{PATH}/{made['id']}", json=patch).json()["version"] == 2


def test_a_choice_is_given_back_to_the_parser(client: httpx.Client) -> None:
    path = f"{PATH}/{upload(client)['id']}"

    def change(**fields: str | None) -> tuple[int, str]:
        changed = client.patch(path, json={"columns": {"Quiz": fields}}).json()
        return changed["version"], changed["columns"][0]["type"]

    assert change(type=None, decimal=None) == (1, "number")
    assert change(type="category") == (2, "category")
    assert change(type=None) == (3, "number")


def test_types_that_mean_nothing_are_refused(api: httpx.Client) -> None:
    path = f"{PATH}/{upload(api)['id']}"
    answer = api.patch(path, json={"columns": {"Nope": {"type": "text"}}})
    assert code(answer) == (422, "unknown_column")
    assert answer.json()["errors"][0]["pointer"] == "/columns/Nope"
    assert api.patch(path, json={"columns": {"Quiz": {"type": "colour"}}}).status_code == 422
    stale = api.patch(
        path, json={"columns": {"Quiz": {"type": "text"}}}, headers={"If-Match": '"x"'}
    )
    assert code(stale) == (412, "precondition_failed")


def test_a_deleted_dataset_is_gone(client: httpx.Client) -> None:
    path = f"{PATH}/{upload(client)['id']}"
    assert client.delete(path).status_code == 204
    for answer in (client.get(path), client.delete(path), client.get(f"{path}/rows")):
        assert code(answer) == (404, "not_found")
    assert client.get(PATH).json()["data"] == []


def test_a_dataset_that_a_run_needs_is_kept(client: httpx.Client, engine: Engine) -> None:
    path = f"{PATH}/{(made := upload(client))['id']}"
    with writing(engine) as session:
        run = add_run(session, made["id"])
    answer = client.delete(path)
    assert code(answer) == (409, "in_use")
    assert answer.json()["runs"] == [run.id]


def test_a_dataset_is_deleted_though_finished_runs_name_it(
    client: httpx.Client, engine: Engine
) -> None:
    path = f"{PATH}/{(made := upload(client))['id']}"
    with writing(engine) as session:
        run = add_run(session, made["id"])
        run.state = "failed"
        session.add(run)
    assert client.delete(path).status_code == 204
    assert code(client.get(path)) == (404, "not_found")
    assert client.get(PATH).json()["data"] == []


def test_a_disk_that_is_nearly_full_accepts_nothing(
    sqlite_url: str, tmp_path: Path, serve: Serve
) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=sqlite_url, ready_disk_bytes=2**60)
    answer = serve(settings).post(PATH, content=SCORES, headers=CSV)
    assert code(answer) == (507, "storage_full")


def test_nothing_is_left_in_the_scratch_folder(api: httpx.Client, tmp_path: Path) -> None:
    upload(api)
    api.post(PATH, content=b"", headers=CSV)
    assert list((tmp_path / "data" / "scratch" / "uploads").iterdir()) == []
