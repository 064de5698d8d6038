"""Batch predictions over HTTP, with a whole service."""

from typing import Any

import httpx
import pytest

from descent import Client
from descent.errors import NotFound

API = "/api/v1"
TABLE: dict[str, list[Any]] = {
    "Age": [22.0, 38.0, None, 35.0, 54.0, 300.0, 30.0, 41.0] * 5,
    "Port": ["S", "C", "S", "Q", "S", "C", None, "Q"] * 5,
    "Survived": ["lost", "saved", "saved", "saved", "lost", "lost", "saved", "lost"] * 5,
}
ASKED: dict[str, list[Any]] = {
    "Age": [30.0, None, -5.0],
    "Port": ["S", "Atlantis", "C"],
    "prediction": [1, 2, 3],
}


def post(client: httpx.Client, path: str, body: Any, **headers: str) -> httpx.Response:
    return client.post(API + path, json=body, headers=headers)


def upload(client: httpx.Client, columns: dict[str, list[Any]], name: str = "table") -> str:
    answer = post(client, "/datasets", {"name": name, "columns": columns})
    assert answer.status_code == 201, answer.text
    dataset: str = answer.json()["id"]
    return dataset


@pytest.fixture(scope="module")
def url(service_url: str) -> str:
    """Return the address of a service with the model `boats`."""
    with httpx.Client(base_url=service_url, timeout=60) as client:
        config = {
            "dataset": upload(client, TABLE),
            "target": "Survived",
            "epochs": 5,
            "split": {"type": "none"},
            "register_as": "boats",
        }
        run = post(client, "/runs", config).json()["id"]
        ended = client.get(f"{API}/runs/{run}", params={"wait": 60})
        while ended.json()["state"] not in {"succeeded", "failed"}:
            ended = client.get(f"{API}/runs/{run}", params={"wait": 60})
        assert ended.json()["state"] == "succeeded"
    return service_url


@pytest.fixture
def boats(url: str) -> str:
    assert url
    return "boats"


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    for _ in range(10):
        path = f"{API}/batch_predictions/{job_id}"
        body: dict[str, Any] = client.get(path, params={"wait": 30}).json()
        if body["state"] in {"succeeded", "failed", "cancelled"}:
            return body
    pytest.fail("it did not end")


def predicted(client: httpx.Client, model: Any, dataset: Any, **asked: Any) -> dict[str, Any]:
    body = {"model": model, "dataset": dataset} | asked
    answer = post(client, "/batch_predictions", body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"{API}/batch_predictions/{answer.json()['id']}"
    return ended(client, answer.json()["id"])


def rows(client: httpx.Client, dataset: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{API}/datasets/{dataset}/rows").json()["data"]
    return found


def test_a_dataset_becomes_a_new_one_with_predictions(service: httpx.Client, boats: str) -> None:
    job = predicted(service, boats, upload(service, ASKED), name="answers")
    assert (job["state"], job["error"], job["rows"], job["errors"]) == ("succeeded", None, 3, 0)
    assert job["warnings"] == {"missing": 1, "out_of_range": 1, "unknown_category": 1}
    assert job["ignored_columns"] == ["prediction"]
    made = service.get(f"{API}/datasets/{job['result']['id']}").json()
    assert (made["name"], made["state"], made["rows"]) == ("answers", "ready", 3)
    names = [column["name"] for column in made["columns"]]
    added = ["prediction_2", "probability.lost", "probability.saved", "warnings", "error"]
    assert names == [*ASKED, *added]
    assert [column["name"] for column in job["added_columns"]] == added
    first, second, third = rows(service, made["id"])
    assert (first["warnings"], first["error"], first["prediction"]) == (None, None, 1)
    assert second["warnings"] == "Age: missing; Port: unknown_category"
    assert third["warnings"] == "Age: out_of_range"
    asked = {"rows": [{"Age": 30.0, "Port": "S"}]}
    (answer,) = post(service, f"/models/{boats}/predict", asked).json()["predictions"]
    assert first["prediction_2"] == answer["value"]
    assert first["probability.saved"] == pytest.approx(answer["probabilities"]["saved"], abs=1e-6)


def test_a_row_that_cannot_be_predicted_has_an_error_beside_it(
    service: httpx.Client, boats: str
) -> None:
    job = predicted(service, boats, upload(service, ASKED), on_problem="error")
    assert (job["state"], job["errors"]) == ("succeeded", 1)
    _first, second, third = rows(service, job["result"]["id"])
    assert second["error"].startswith("Port: unknown_category: 'Atlantis'")
    assert (second["prediction_2"], second["probability.lost"]) == (None, None)
    assert (third["error"], third["prediction_2"]) in [(None, "lost"), (None, "saved")]


def test_intervals_become_columns_and_an_unsure_model_is_refused(
    service: httpx.Client, boats: str
) -> None:
    quiz = [float(place) for place in range(40)]
    table = {"Quiz": quiz, "Final": [2 * each + (-1) ** int(each) for each in quiz]}
    dataset = upload(service, table)
    config = {"dataset": dataset, "target": "Final", "model": {"type": "linear"}}
    config |= {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "register_as": "sure"}
    run = post(service, "/runs", config | {"split": {"type": "none"}}).json()["id"]
    while service.get(f"{API}/runs/{run}?wait=60").json()["state"] != "succeeded":
        pass
    job = predicted(service, "sure", dataset, interval=0.9)
    names = [(each["name"], each.get("level")) for each in job["added_columns"][:3]]
    assert names == [("prediction", None), ("prediction_low", 0.9), ("prediction_high", 0.9)]
    first = rows(service, job["result"]["id"])[0]
    answer = post(service, "/models/sure/predict?interval=0.9", {"rows": [{"Quiz": 0.0}]})
    bounds = answer.json()["predictions"][0]["interval"]
    assert [first["prediction_low"], first["prediction_high"]] == pytest.approx(bounds, rel=1e-5)
    refused = post(service, "/batch_predictions", {"model": boats, "dataset": dataset})
    assert refused.json()["code"] == "no_inputs"
    asked = {"model": boats, "dataset": upload(service, ASKED), "interval": 0.9}
    refused = post(service, "/batch_predictions", asked)
    assert (refused.status_code, refused.json()["code"]) == (409, "not_calibrated")


def test_the_result_is_downloaded_retyped_and_predicted_like_any_dataset(
    service: httpx.Client, boats: str
) -> None:
    first = predicted(service, boats, upload(service, TABLE))["result"]["id"]
    content = service.get(f"{API}/datasets/{first}/content")
    assert content.content[:4] == b"PAR1"
    patched = service.patch(
        f"{API}/datasets/{first}", json={"columns": {"Age": {"type": "category"}}}
    )
    assert patched.status_code == 200, patched.text
    types = {column["name"]: column["type"] for column in patched.json()["columns"]}
    assert (types["Age"], types["prediction"], types["error"]) == ("category", "category", "text")
    again = predicted(service, boats, {"id": first, "version": 1})
    names = [column["name"] for column in again["added_columns"]]
    assert names[0] == "prediction_2"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("model", [{"name": "boats", "version": 1}, {"name": "boats"}, "boats"])
def test_a_model_is_named_in_several_ways(service: httpx.Client, boats: str, model: Any) -> None:
    job = predicted(service, model, upload(service, TABLE))
    assert job["model"] == {"name": boats, "version": 1, "alias": None}


def test_what_an_alias_points_to_is_settled_when_it_is_asked_for(
    service: httpx.Client, boats: str
) -> None:
    service.put(f"{API}/models/{boats}/aliases/champion", json={"version": 1})
    job = predicted(service, {"name": boats, "alias": "champion"}, upload(service, TABLE))
    assert job["model"] == {"name": boats, "version": 1, "alias": "champion"}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "nobody"}, 404, "not_found"),
        ({"model": {"name": "boats", "version": 9}}, 404, "not_found"),
        ({"model": {"name": "boats", "alias": "nobody"}}, 404, "not_found"),
        ({"model": {"name": "boats", "version": 1, "alias": "x"}}, 422, "invalid"),
        ({"dataset": "ds_unknown"}, 404, "not_found"),
        ({"dataset": {"id": "?", "version": 7}}, 422, "unknown_version"),
        ({"on_problem": "ignore"}, 422, "invalid"),
        ({"rows": 3}, 422, "unknown_field"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    service: httpx.Client, boats: str, change: dict[str, Any], status: int, code: str
) -> None:
    dataset = upload(service, TABLE)
    body: dict[str, Any] = {"model": boats, "dataset": dataset} | change
    if isinstance(body["dataset"], dict):
        body["dataset"]["id"] = dataset
    answer = post(service, "/batch_predictions", body)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert code in {problem["code"], *(error["code"] for error in problem.get("errors", []))}


def test_a_table_without_any_input_of_the_model_is_refused(
    service: httpx.Client, boats: str
) -> None:
    body = {"model": boats, "dataset": upload(service, {"Other": [1, 2]})}
    answer = post(service, "/batch_predictions", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "no_inputs")
    assert "'Age', 'Port'" in answer.json()["detail"]


def test_the_same_key_makes_one_job(service: httpx.Client, boats: str) -> None:
    body = {"model": boats, "dataset": upload(service, TABLE)}
    first, second = (
        post(service, "/batch_predictions", body, **{"Idempotency-Key": "batch-1"})
        for _ in range(2)
    )
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


def test_the_client_waits_for_the_dataset_and_takes_it(url: str, boats: str) -> None:
    with Client(url) as client:
        dataset = client.upload(TABLE, "passengers")
        job = client.predict_dataset(client.model(boats, version=1), dataset, name="told").wait(60)
        assert (job.result().name, job.result().rows) == ("told", 40)
        assert client.batch_prediction(job.id).info == job.info
        assert job.id in [each.id for each in client.batch_predictions(dataset=dataset.id)]
        job.delete()
        with pytest.raises(NotFound):
            job.refresh()


def test_jobs_are_listed_filtered_and_deleted(service: httpx.Client, boats: str) -> None:
    dataset = upload(service, TABLE)
    jobs = [predicted(service, boats, dataset)["id"] for _ in range(3)]
    query = {"dataset": dataset, "model": boats, "state": "succeeded", "limit": "2"}
    page = service.get(f"{API}/batch_predictions", params=query).json()
    assert [job["id"] for job in page["data"]] == jobs[:0:-1]
    rest = service.get(
        f"{API}/batch_predictions", params=query | {"after": page["next_cursor"]}
    ).json()
    assert [job["id"] for job in rest["data"]] == jobs[:1]
    path = f"{API}/batch_predictions/{jobs[0]}"
    made = service.get(path).json()["result"]["id"]
    assert service.delete(path).status_code == 204
    assert service.get(path).status_code == 404
    assert service.get(f"{API}/datasets/{made}").status_code == 200


def test_one_that_has_ended_is_cached_and_can_no_longer_be_cancelled(
    service: httpx.Client, boats: str
) -> None:
    path = f"{API}/batch_predictions/{predicted(service, boats, upload(service, TABLE))['id']}"
    etag = service.get(path).headers["ETag"]
    assert service.get(path, headers={"If-None-Match": etag}).status_code == 304
    answer = service.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "state_conflict")
    assert answer.json()["allowed"] == []


def test_one_that_waits_keeps_its_dataset_until_it_is_cancelled(
    client: httpx.Client, boats_without_a_worker: str
) -> None:
    dataset = upload(client, TABLE)
    body = {"model": boats_without_a_worker, "dataset": dataset}
    job = post(client, "/batch_predictions", body).json()["id"]
    refused = client.delete(f"{API}/datasets/{dataset}")
    assert (refused.status_code, refused.json()["code"]) == (409, "in_use")
    assert refused.json()["batch_predictions"] == [job]
    path = f"{API}/batch_predictions/{job}"
    assert client.delete(path).json()["code"] == "in_use"
    assert [client.post(f"{path}/cancel").status_code for _ in range(2)] == [202, 200]
    assert client.delete(f"{API}/datasets/{dataset}").status_code == 204
    assert client.get(path).json()["state"] == "cancelled"
