"""A batch prediction reads the cells of any dataset as the table of its model was read."""

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.datasets.messages import NDJSON, XLSX, ZIP
from tests.service.batch.test_routes import API, post, predicted
from tests.service.datasets.test_archives import zipped
from tests.service.datasets.workbooks import workbook
from tests.service.worker.workplace import until

MARKERS = ["-999", "-"]


def upload(
    client: httpx.Client, content: str | bytes, content_type: str = "text/csv", **params: Any
) -> dict[str, Any]:
    headers = {"Content-Type": content_type}
    answer = client.post(f"{API}/datasets", content=content, headers=headers, params=params)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def learn(client: httpx.Client, name: str, dataset: str) -> dict[str, Any]:
    config = {
        "dataset": dataset,
        "target": "y",
        "model": {"type": "linear"},
        "epochs": 5,
        "split": {"type": "none"},
        "register_as": name,
    }
    run = post(client, "/runs", config).json()["id"]
    ended: dict[str, Any] = {"state": "queued"}
    while ended["state"] not in {"succeeded", "failed"}:
        ended = client.get(f"{API}/runs/{run}", params={"wait": 30}).json()
    assert ended["state"] == "succeeded", ended
    return ended


def batch_values(client: httpx.Client, model: str, dataset: str) -> list[float]:
    job = predicted(client, model, dataset)
    assert job["state"] == "succeeded", job
    rows = client.get(f"{API}/datasets/{job['result']['id']}/rows", params={"limit": 100}).json()
    return [row["prediction"] for row in rows["data"]]


def request_values(client: httpx.Client, model: str, content: str) -> list[float]:
    headers = {"Content-Type": "text/csv"}
    answer = client.post(f"{API}/models/{model}/predict", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return [row["value"] for row in answer.json()["predictions"]]


def sales(seed: int, rows: int, *, days: range) -> str:
    """Return a table with decimal commas, dates with the day first, and own markers."""
    dice = random.Random(seed)  # noqa: S311  no secret
    lines = ["sold;price;kind;y"]
    for _ in range(rows):
        price = f"{dice.uniform(0, 2000):.2f}".replace(".", ",")
        lines.append(
            ";".join(
                [
                    f"{dice.choice(days):02}/{dice.randint(1, 12):02}/2021",
                    dice.choice([price, price, price, "-999"]),
                    dice.choice(["red", "green", "-", "1.0"]),
                    str(dice.randint(0, 9)),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def test_a_dataset_that_was_read_otherwise_is_read_as_the_model_does(
    service: httpx.Client,
) -> None:
    known = upload(service, sales(1, 60, days=range(1, 28)), missing_values=MARKERS)
    learn(service, "sales", known["id"])
    # Each of these dates may have its month first, and the markers are not known here.
    content = sales(2, 30, days=range(1, 12))
    other = upload(service, content)
    types = {column["name"]: column["type"] for column in other["columns"]}
    assert types["price"] == "number"
    assert batch_values(service, "sales", other["id"]) == request_values(service, "sales", content)


def as_ndjson(content: str) -> bytes:
    rows = csv.DictReader(io.StringIO(content), delimiter=";")
    return "".join(json.dumps(row | {"y": int(row["y"])}) + "\n" for row in rows).encode()


def as_workbook(content: str) -> bytes:
    rows = list(csv.reader(io.StringIO(content), delimiter=";"))
    return workbook({"A": [rows[0], *([*row[:-1], int(row[-1])] for row in rows[1:])]})


@pytest.mark.parametrize(
    ("form", "write"),
    [
        (NDJSON, as_ndjson),
        (XLSX, as_workbook),
        (ZIP, lambda content: zipped({"sales.csv": content})),
    ],
)
def test_the_texts_of_other_formats_are_read_as_the_model_does(
    service: httpx.Client, form: str, write: Callable[[str], bytes]
) -> None:
    known = upload(service, sales(4, 60, days=range(1, 28)), missing_values=MARKERS)
    name = f"sales-{form[-3:]}"
    learn(service, name, known["id"])
    content = sales(5, 30, days=range(1, 12))
    other = upload(service, write(content), content_type=form)
    assert batch_values(service, name, other["id"]) == request_values(service, name, content)


def test_a_text_that_is_a_category_of_the_model_is_not_missing(service: httpx.Client) -> None:
    rows = [f"{('NA', 'SE', 'DK')[row % 3]},{row % 3 * 10}" for row in range(30)]
    known = upload(service, "\n".join(["land,y", *rows]), missing_values=["?"])
    learn(service, "lands", known["id"])
    content = "land,y\nNA,0\nSE,0\n"
    other = upload(service, content)
    assert batch_values(service, "lands", other["id"]) == request_values(service, "lands", content)
    named = upload(service, content, missing_values=["NA"])
    assert (
        batch_values(service, "lands", named["id"])[0]
        != request_values(service, "lands", content)[0]
    )


def test_the_table_of_the_model_is_predicted_from_its_typed_columns(service: httpx.Client) -> None:
    content = sales(3, 50, days=range(1, 28))
    known = upload(service, content, missing_values=MARKERS)
    learn(service, "own", known["id"])
    found = batch_values(service, "own", known["id"])
    assert found == request_values(service, "own", content)

    def version_one() -> dict[str, Any]:
        version: dict[str, Any] = service.get(f"{API}/models/own/versions/1").json()
        return version

    until(lambda: version_one()["proof"] != "pending", 60)
    version = version_one()
    assert (version["proof"], version["proof_error"]) == ("passed", None)
    ways = set(version["proof_details"]["ways"])
    spelled = {"csv_as_uploaded", "json_as_uploaded", "oip_as_uploaded", "script_as_uploaded"}
    assert spelled <= ways
