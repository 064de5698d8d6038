"""Other ways to read a dataset: changes of columns and of the file, and their previews."""

from typing import Any

import httpx
import pytest

PATH = "/api/v1/datasets"
CSV = {"Content-Type": "text/csv"}
INCOMES = b"income;day;n\n1,137;03/04/2024;1\n2,274;05/06/2024;2\n3,411;07/08/2024;3\n"
TITLED = b"a report\nof sums\nx,y\n1,2\n3,4\n5,6\n"


def upload(api: httpx.Client, content: bytes, **params: Any) -> str:
    answer = api.post(PATH, content=content, headers=CSV, params=params)
    assert answer.status_code == 201, answer.text
    return f"{PATH}/{answer.json()['id']}"


def column(body: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in body["columns"] if each["name"] == name)
    return dict(found)


def test_a_mark_of_thousands_makes_other_numbers(api: httpx.Client) -> None:
    place = upload(api, INCOMES)
    assert column(api.get(place).json(), "income")["max"] == 3.411
    body = api.patch(place, json={"columns": {"income": {"thousands": ","}}}).json()
    assert (body["version"], column(body, "income")["max"]) == (2, 3411)
    assert column(body, "income")["reading"]["thousands"] == ","


@pytest.mark.parametrize("day_first", [True, False])
def test_the_order_of_day_and_month_can_be_said(api: httpx.Client, day_first: bool) -> None:  # noqa: FBT001
    place = upload(api, INCOMES)
    body = api.patch(place, json={"columns": {"day": {"day_first": day_first}}}).json()
    first = "2024-04-03T00:00:00Z" if day_first else "2024-03-04T00:00:00Z"
    assert column(body, "day")["min"] == first
    assert "ambiguous_date" not in {warning["code"] for warning in body["warnings"]}


@pytest.mark.parametrize("code", ["ambiguous_date", "ambiguous_number"])
def test_a_warning_names_the_change_that_works(api: httpx.Client, code: str) -> None:
    place = upload(api, INCOMES)
    before = api.get(place).json()
    (warning,) = (each for each in before["warnings"] if each["code"] == code)
    name = warning["column"]
    patch = httpx.Response(200, text=warning["detail"].partition("PATCH ")[2].rstrip(".")).json()
    after = api.patch(place, json=patch).json()
    assert column(after, name)["min"] != column(before, name)["min"]
    assert code not in {each["code"] for each in after["warnings"]}


def test_a_further_text_can_mean_missing(api: httpx.Client) -> None:
    place = upload(api, b"x,y\n1,1\n2,2\nk.A.,3\n4,4\n")
    body = api.patch(place, json={"columns": {"x": {"missing": ["k.A."]}}}).json()
    assert (column(body, "x")["type"], column(body, "x")["missing"]) == ("integer", 1)


def test_null_leaves_a_choice_to_the_parser_again(api: httpx.Client) -> None:
    place = upload(api, INCOMES)
    api.patch(place, json={"columns": {"n": {"type": "category"}}})
    body = api.patch(place, json={"columns": {"n": {"type": None}}}).json()
    assert (body["version"], column(body, "n")["type"]) == (3, "integer")


def test_the_file_can_be_read_in_another_way(api: httpx.Client) -> None:
    place = upload(api, b"x,y\n1,2\n3,4\n5,6\n", header="absent")
    assert [each["name"] for each in api.get(place).json()["columns"]] == ["column_1", "column_2"]
    body = api.patch(place, json={"reading": {"header": "present"}}).json()
    assert [each["name"] for each in body["columns"]] == ["x", "y"]
    assert (body["rows"], body["reading"]["header"]) == (3, True)


def test_a_change_of_the_file_drops_the_earlier_changes_of_columns(api: httpx.Client) -> None:
    place = upload(api, TITLED, skip_lines=0, header="absent", delimiter="semicolon")
    first = api.get(place).json()["columns"][0]["name"]
    api.patch(place, json={"columns": {first: {"type": "category"}}})
    change = {"skip_lines": 2, "header": "present", "delimiter": ","}
    body = api.patch(place, json={"reading": change})
    assert [(each["name"], each["type"]) for each in body.json()["columns"]] == [
        ("x", "integer"),
        ("y", "integer"),
    ]


@pytest.mark.parametrize(
    "patch", [{}, {"columns": {}}, {"columns": {"n": {}}}, {"columns": {"n": {"type": "integer"}}}]
)
def test_the_present_reading_makes_no_version(api: httpx.Client, patch: dict[str, Any]) -> None:
    place = upload(api, INCOMES)
    answer = api.patch(place, json=patch)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"columns": {"n": {"unit": "parsec"}}}, "/columns/n/unit"),
        ({"columns": {"n": {"form": "%Q"}}}, "/columns/n/form"),
        ({"columns": {"n": {"decimal": ",", "thousands": ","}}}, "/columns/n/thousands"),
        ({"columns": {"absent": {"type": "text"}}}, "/columns/absent"),
        ({"reading": {"encoding": "klingon"}}, "/reading/encoding"),
    ],
)
@pytest.mark.parametrize("verb", ["PATCH", "POST"])
def test_a_change_that_cannot_be_is_refused_at_its_field(
    api: httpx.Client, verb: str, change: dict[str, Any], pointer: str
) -> None:
    place = upload(api, INCOMES)
    answer = api.request(verb, place + ("/preview" if verb == "POST" else ""), json=change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_preview_shows_the_first_rows_and_makes_no_version(api: httpx.Client) -> None:
    place = upload(api, INCOMES)
    change = {"columns": {"income": {"thousands": ","}, "day": {"day_first": True}}}
    body = api.post(f"{place}/preview", json=change).json()
    assert body["rows"][0] == {"income": 1137, "day": "2024-04-03T00:00:00Z", "n": 1}
    assert column(body, "income")["reading"]["thousands"] == ","
    assert api.get(place).json()["version"] == 1


def test_a_preview_of_a_refused_change_says_why(api: httpx.Client) -> None:
    place = upload(api, INCOMES)
    answer = api.post(f"{place}/preview", json={"reading": {"skip_lines": 900}})
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith(".")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_preview_reads_whole_lines_of_a_large_file(api: httpx.Client, encoding: str) -> None:
    text = "x,word\n" + "".join(f'{n},"two\nlines {n}"\n' for n in range(90_000))
    place = upload(api, text.encode(encoding), encoding=encoding, wait=60)
    body = api.post(f"{place}/preview", json={"columns": {"x": {"type": "category"}}}).json()
    assert body["rows"][19] == {"x": "19", "word": "two\nlines 19"}
    assert len(body["rows"]) == 20
