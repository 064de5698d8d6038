"""The routes of runs, without a worker: the test writes in place of the worker."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from descent import schemas
from service.runs import lifecycle, metrics
from service.settings import Settings
from service.storage.database import writing
from tests.service.rows import add_dataset, metric_rows
from tests.serving import Serve

API = "/api/v1"


@pytest.fixture
def dataset(engine: Engine) -> str:
    with writing(engine) as session:
        return add_dataset(session)


@pytest.fixture
def run(client: httpx.Client, dataset: str) -> dict[str, Any]:
    return submit(client, dataset)


def submit(client: httpx.Client, dataset: str, **config: Any) -> dict[str, Any]:
    answer = client.post(f"{API}/runs", json={"dataset": dataset, "target": "Final"} | config)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def start(engine: Engine, run_id: str) -> None:
    with writing(engine) as session:
        run = lifecycle.claim(session, "w1", lease_s=60.0)
        assert run is not None
        assert run.id == run_id
        lifecycle.started(session, run_id, run.attempt, {"device": "cpu"})


def append(engine: Engine, run_id: str, first: int, last: int) -> None:
    with writing(engine) as session:
        metrics.append(session, run_id, 1, metric_rows(first, last), {})


def succeed(engine: Engine, run_id: str) -> None:
    with writing(engine) as session:
        lifecycle.succeed(session, run_id, 1, {})


def get(client: httpx.Client, path: str, **params: Any) -> Any:
    answer = client.get(f"{API}{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_submitted_run_is_found_where_location_says(client: httpx.Client, dataset: str) -> None:
    answer = client.post(f"{API}/runs", json={"dataset": dataset, "target": "Final"})
    assert answer.status_code == 202
    found = client.get(answer.headers["location"])
    assert found.json()["id"] == answer.json()["id"]
    assert schemas.Run.model_validate(found.json()).state == "queued"


def test_under_a_prefix_the_location_of_a_run_carries_it_once(
    settings: Settings, serve: Serve, dataset: str
) -> None:
    client = serve(settings.model_copy(update={"root_path": "/descent"}))
    answer = client.post(f"{API}/runs", json={"dataset": dataset, "target": "Final"})
    assert answer.headers["location"] == f"/descent{API}/runs/{answer.json()['id']}"


def test_the_stored_configuration_is_complete(run: dict[str, Any]) -> None:
    config = run["config"]
    assert (config["task"], config["loss"], config["features"]) == ("regression", "mse", ["Quiz"])
    assert config["model"] == {
        "type": "mlp",
        "hidden": [64, 64],
        "activation": "relu",
        "dropout": 0.0,
        "embedding": {"type": "none"},
    }
    assert config["dataset"] == {"id": run["dataset"]["id"], "version": 1}


def test_a_complete_configuration_can_be_submitted_again(
    client: httpx.Client, run: dict[str, Any]
) -> None:
    answer = client.post(f"{API}/runs", json=run["config"])
    assert answer.json()["config"] == run["config"]


def test_validate_makes_no_run(client: httpx.Client, dataset: str) -> None:
    body = {"dataset": dataset, "target": "Final", "model": {"type": "linear"}}
    answer = client.post(f"{API}/runs/validate", json=body)
    assert answer.json()["estimate"]["parameters"] == 2
    assert get(client, "/runs")["data"] == []


@pytest.mark.parametrize(
    "given", [{"register_as": "scores"}, {"lr_range": {"min": 1e-4, "max": 1.0}}]
)
def test_a_test_of_learning_rates_is_a_run_that_makes_no_model(
    client: httpx.Client, dataset: str, given: dict[str, Any]
) -> None:
    body = {"dataset": dataset, "target": "Final"} | given
    answer = client.post(f"{API}/runs/lr_range", json=body)
    assert answer.status_code == 202, answer.text
    config = get(client, f"/runs/{answer.json()['id']}")["config"]
    assert config["lr_range"] == given.get("lr_range", {"min": 1e-7, "max": 10.0})
    assert config["register_as"] is None


def test_a_test_of_learning_rates_is_estimated_as_short_as_it_is(
    client: httpx.Client, dataset: str
) -> None:
    body: dict[str, Any] = {"dataset": dataset, "target": "Final", "epochs": 10_000}
    whole, test = (
        client.post(f"{API}/runs/validate", json=each).json()["estimate"]
        for each in (body, body | {"lr_range": {}})
    )
    assert test["steps"] == 300
    assert test["seconds"] < whole["seconds"] / 10


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"optimizer": {"type": "adam", "learning_rate": -1}}, "invalid"),
        ({"epochs": 10**9}, "invalid"),
        ({"epochs": 0}, "invalid"),
        ({"shape": "round"}, "invalid"),
        ({"target": "Nope"}, "unknown_column"),
        ({"features": ["Final"]}, "invalid"),
        ({"device": "tpu"}, "invalid"),
        ({"model": {"type": "forest"}}, "invalid"),
        ({"split": {"validation": 0.6, "test": 0.4}}, "invalid"),
    ],
)
def test_a_bad_configuration_is_refused_with_a_pointer(
    client: httpx.Client, dataset: str, change: dict[str, Any], code: str
) -> None:
    body = {"dataset": dataset, "target": "Final"} | change
    answer = client.post(f"{API}/runs", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert answer.json()["errors"][0]["pointer"].startswith("/")


def test_an_unknown_dataset_is_not_found(client: httpx.Client) -> None:
    answer = client.post(f"{API}/runs", json={"dataset": "ds_" + "0" * 26, "target": "y"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_run_without_a_target_is_refused(client: httpx.Client, dataset: str) -> None:
    answer = client.post(f"{API}/runs", json={"dataset": dataset})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/target"


def test_runs_are_listed_newest_first_page_by_page(client: httpx.Client, dataset: str) -> None:
    submitted = [submit(client, dataset)["id"] for _ in range(5)]
    first = get(client, "/runs", limit=3)
    second = get(client, "/runs", limit=3, after=first["next_cursor"])
    assert [run["id"] for run in first["data"] + second["data"]] == submitted[::-1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)


def test_runs_are_found_by_tag_and_state(client: httpx.Client, dataset: str) -> None:
    tagged = submit(client, dataset, tags={"course": "intro"})["id"]
    other = submit(client, dataset)["id"]
    client.post(f"{API}/runs/{other}/cancel")
    assert [r["id"] for r in get(client, "/runs", tag="course:intro")["data"]] == [tagged]
    assert [r["id"] for r in get(client, "/runs", tag="course")["data"]] == [tagged]
    assert get(client, "/runs", tag="course:advanced")["data"] == []
    assert [r["id"] for r in get(client, "/runs", state="cancelled")["data"]] == [other]


def test_a_run_can_be_renamed(client: httpx.Client, run: dict[str, Any]) -> None:
    answer = client.patch(f"{API}/runs/{run['id']}", json={"name": "second", "tags": {"a": "b"}})
    assert (answer.json()["name"], answer.json()["tags"]) == ("second", {"a": "b"})


def test_an_unchanged_run_answers_304(client: httpx.Client, run: dict[str, Any]) -> None:
    path = f"{API}/runs/{run['id']}"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_a_wait_ends_when_the_state_changes(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    starter = threading.Timer(0.2, start, (engine, run["id"]))
    starter.start()
    body = get(client, f"/runs/{run['id']}", wait=20)
    starter.join()
    assert body["state"] in {"starting", "running"}


def test_a_wait_for_nothing_ends_with_its_time(client: httpx.Client, run: dict[str, Any]) -> None:
    assert get(client, f"/runs/{run['id']}", wait=0.2)["state"] == "queued"


def test_a_wait_with_an_old_etag_answers_at_once(client: httpx.Client, run: dict[str, Any]) -> None:
    headers = {"If-None-Match": '"old"'}
    answer = client.get(f"{API}/runs/{run['id']}", params={"wait": 60}, headers=headers)
    assert answer.status_code == 200


def test_cancelling_twice_answers_200(client: httpx.Client, run: dict[str, Any]) -> None:
    answers = [client.post(f"{API}/runs/{run['id']}/cancel") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 200]
    assert answers[1].json()["state"] == "cancelled"


def test_what_cannot_be_asked_names_what_can(client: httpx.Client, run: dict[str, Any]) -> None:
    answer = client.post(f"{API}/runs/{run['id']}/retry")
    assert answer.status_code == 409
    assert answer.json()["allowed"] == ["cancel", "pause"]


def test_curves_come_as_rows_columns_and_csv(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    start(engine, run["id"])
    append(engine, run["id"], 1, 3)
    path = f"/runs/{run['id']}/metrics"
    rows = get(client, path)
    columns = get(client, path, layout="columns")
    text = client.get(f"{API}{path}", headers={"Accept": "text/csv"})
    assert [row["seq"] for row in rows["data"]] == columns["data"]["seq"] == [1, 2, 3]
    assert len(text.text.splitlines()) == 4
    assert (rows["next_after"], rows["is_final"], rows["downsampled"]) == (3, False, False)


def test_a_stream_from_where_the_curve_was_read_brings_the_rows_after_it(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    start(engine, run["id"])
    append(engine, run["id"], 1, 3)
    page = get(client, f"/runs/{run['id']}/metrics", layout="columns")
    append(engine, run["id"], 4, 5)
    later = get(client, f"/runs/{run['id']}/events", after=page["last_event_id"])["data"]
    rows = [row["seq"] for event in later for row in event["data"]["rows"]]
    assert page["data"]["seq"] + rows == [1, 2, 3, 4, 5]


def test_a_curve_is_final_once_the_run_has_ended(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    start(engine, run["id"])
    append(engine, run["id"], 1, 3)
    succeed(engine, run["id"])
    assert get(client, f"/runs/{run['id']}/metrics")["is_final"] is True


def test_an_unchanged_curve_answers_304(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    start(engine, run["id"])
    path = f"{API}/runs/{run['id']}/metrics"
    etag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304
    append(engine, run["id"], 1, 1)
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "after=-1", "layout=x", "after=x"])
def test_a_metrics_query_out_of_range_is_refused(
    client: httpx.Client, run: dict[str, Any], query: str
) -> None:
    assert client.get(f"{API}/runs/{run['id']}/metrics?{query}").status_code == 422


def stream(client: httpx.Client, run_id: str, last: str | None = None) -> Iterator[dict[str, Any]]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with client.stream("GET", f"{API}/runs/{run_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: dict[str, Any] = {}
        for line in answer.iter_lines():
            if not line and found:
                yield found
                found = {}
            name, _, value = line.partition(": ")
            if name in {"id", "event", "data"}:
                found[name] = json.loads(value) if name == "data" else value


def test_a_stream_follows_a_run_to_its_end(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    found = []
    for event in stream(client, run["id"]):
        found.append(event)
        if len(found) == 1:
            start(engine, run["id"])
            append(engine, run["id"], 1, 2)
            succeed(engine, run["id"])
    assert [event["event"] for event in found] == [
        "state",
        "state",
        "state",
        "metrics",
        "state",
        "end",
    ]
    assert [event["id"] for event in found] == ["1", "2", "3", "4", "5", "6"]
    assert [row["seq"] for row in found[3]["data"]["rows"]] == [1, 2]
    assert found[-1]["data"] == {"state": "succeeded"}


def test_a_stream_goes_on_after_the_last_event_seen(
    client: httpx.Client, engine: Engine, run: dict[str, Any]
) -> None:
    start(engine, run["id"])
    succeed(engine, run["id"])
    assert [event["id"] for event in stream(client, run["id"], "3")] == ["4", "5"]


def test_a_stream_at_its_end_is_not_asked_for_again(
    client: httpx.Client, run: dict[str, Any]
) -> None:
    client.post(f"{API}/runs/{run['id']}/cancel")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "3"}
    assert client.get(f"{API}/runs/{run['id']}/events", headers=headers).status_code == 204


def test_a_last_event_id_that_is_no_number_is_refused(
    client: httpx.Client, run: dict[str, Any]
) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "x"}
    answer = client.get(f"{API}/runs/{run['id']}/events", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_event_id")


def test_events_come_as_pages_too(client: httpx.Client, run: dict[str, Any]) -> None:
    client.post(f"{API}/runs/{run['id']}/cancel")
    first = get(client, f"/runs/{run['id']}/events", limit=2)
    second = get(client, f"/runs/{run['id']}/events", limit=2, after=first["next_cursor"])
    assert [event["seq"] for event in first["data"] + second["data"]] == [1, 2, 3]
    schemas.RunEvent.model_validate(first["data"][0])


def test_the_log_tells_what_happened(client: httpx.Client, run: dict[str, Any]) -> None:
    client.post(f"{API}/runs/{run['id']}/cancel")
    text = client.get(f"{API}/runs/{run['id']}/log").text
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == ["queued", "cancelled: cancel"]


def test_a_finished_run_can_be_deleted(client: httpx.Client, run: dict[str, Any]) -> None:
    path = f"{API}/runs/{run['id']}"
    assert client.delete(path).status_code == 409
    client.post(f"{path}/cancel")
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (
            {"model": {"type": "layers", "layers": [{"units": 3}]}},
            (
                'model.layers.0: a layer is {"linear": 32}, {"dropout": 0.1} or an activation such'
                ' as "relu", got {"units": 3}.'
            ),
        ),
        (
            {"schedule": {"type": "slow"}},
            (
                "schedule: its type should be one of constant, cosine, one_cycle, step, plateau,"
                " got 'slow'."
            ),
        ),
        ({"optimizer": "adam"}, 'optimizer: it should be an object, got "adam".'),
    ],
)
def test_a_wrong_choice_gets_one_sentence_with_the_right_ones(
    client: httpx.Client, dataset: str, change: dict[str, Any], detail: str
) -> None:
    answer = client.post(f"{API}/runs", json={"dataset": dataset, "target": "Final"} | change)
    assert answer.json()["detail"] == detail
    assert len(answer.json()["errors"]) == 1
