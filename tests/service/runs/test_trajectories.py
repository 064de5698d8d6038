"""Frames: in order, each once, replaced with the rows of their epochs."""

from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from descent import schemas
from models.nets.graph import chain
from models.training.interface import Frame
from service.runs import lifecycle, metrics
from service.storage.database import writing
from tests.service.rows import add_run, metric_rows
from tests.service.runs.test_metrics import resumed_from, running

pytestmark = pytest.mark.both_databases

API = "/api/v1"
#: as a version stored it that knew only layers
SUBJECT: dict[str, Any] = {
    "net": {"inputs": 1, "outputs": 1, "layers": [{"linear": 1}]},
    "parameters": [{"name": "0.weight", "shape": [1, 1]}, {"name": "0.bias", "shape": [1]}],
    "labels": ["Quiz"],
    "centers": [10.0],
    "scales": [2.0],
    "axes": [{"column": "Quiz", "place": 0, "min": 2.5, "max": 25.2}],
    "outputs": ["Final"],
    "target": {"classes": None, "center": [14.0], "scale": [8.0]},
    "loss": "mse",
    "steps_per_epoch": 1,
    "rows": {"train": 13, "validation": 0},
    "sample": {"x": [[0.5]], "truth": [[1.5]], "split": ["train"]},
    "line": None,
}


def frames(first: int, last: int, value: float = 0.1) -> list[Frame]:
    """Frames of the epochs that `metric_rows` and `resumed_from` count as one step each."""
    values = np.array([value, -value], dtype="<f4").tobytes()
    return [Frame(epoch, epoch, values) for epoch in range(first, last + 1)]


def epochs(session: Session, run_id: str) -> list[int]:
    return metrics.page_of_frames(session, run_id, -1, 100).epochs


def test_frames_whose_commit_was_not_heard_of_are_stored_once(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.begin_trajectory(session, run.id, SUBJECT, frames(0, 0))
        metrics.append_frames(session, run.id, frames(1, 3))
        metrics.append_frames(session, run.id, frames(2, 5))
        assert epochs(session, run.id) == [0, 1, 2, 3, 4, 5]


def test_a_resumed_attempt_replaces_the_frames_after_its_checkpoint(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.begin_trajectory(session, run.id, SUBJECT, frames(0, 0))
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        metrics.append_frames(session, run.id, frames(1, 7))
        run = resumed_from(session, run, 3)
        assert epochs(session, run.id) == [0, 1, 2, 3]
        metrics.begin_trajectory(session, run.id, SUBJECT, frames(3, 3, 9.0))
        metrics.append_frames(session, run.id, frames(4, 4, 9.0))
        page = metrics.page_of_frames(session, run.id, 2, 100)
    assert [frame.tolist()[0] for frame in page.frames] == [pytest.approx(0.1), 9.0]


def test_a_run_that_is_deleted_takes_its_frames_along(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.begin_trajectory(session, run.id, SUBJECT, frames(0, 0))
        lifecycle.succeed(session, run.id, 1, {})
        lifecycle.delete(session, run.id)
    with writing(engine) as session:
        page = metrics.page_of_frames(session, run.id, -1, 100)
    assert (page.subject, page.epochs) == (None, [])


@pytest.fixture
def run_id(engine: Engine) -> str:
    with writing(engine) as session:
        run = running(session)
        metrics.begin_trajectory(session, run.id, SUBJECT, frames(0, 0))
        metrics.append(session, run.id, 1, metric_rows(1, 4), {})
        metrics.append_frames(session, run.id, frames(1, 4))
        return run.id


def test_the_trajectory_is_read_page_by_page(client: httpx.Client, run_id: str) -> None:
    seen: list[int] = []
    after: int | None = -1
    while after is not None:
        answer = client.get(f"{API}/runs/{run_id}/trajectory", params={"after": after, "limit": 2})
        assert answer.status_code == 200, answer.text
        page = schemas.Trajectory.model_validate(answer.json())
        seen += page.epochs
        after = page.next_after
    assert seen == [0, 1, 2, 3, 4]
    assert (page.attempt, page.is_final) == (1, False)


def test_the_parameters_come_with_what_they_mean(client: httpx.Client, run_id: str) -> None:
    body = client.get(f"{API}/runs/{run_id}/trajectory").json()
    assert body["frames"][1] == [0.1, -0.1]  # the shortest text of a float32
    assert body["steps"] == [0, 1, 2, 3, 4]
    net = chain(1, [{"linear": 1}]).to_json()
    assert body["subject"] == SUBJECT | {"net": net}


def test_an_unchanged_trajectory_is_not_sent_again(client: httpx.Client, run_id: str) -> None:
    first = client.get(f"{API}/runs/{run_id}/trajectory")
    again = client.get(
        f"{API}/runs/{run_id}/trajectory", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status_code == 304


def test_a_run_that_has_none_says_so(client: httpx.Client, engine: Engine) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
    body = client.get(f"{API}/runs/{run_id}/trajectory").json()
    assert (body["subject"], body["epochs"], body["frames"]) == (None, [], [])


def test_a_run_that_is_not_there_has_no_trajectory(client: httpx.Client) -> None:
    answer = client.get(f"{API}/runs/run_0/trajectory")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
