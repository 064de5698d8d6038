"""The client handles answers that a short run on a healthy service never gives."""

import json
from typing import Any

import pytest

from descent import Client
from descent.errors import DescentError, NotFound
from tests.descent.scripted import Answer, scripted

RUN = "/api/v1/runs/run_x"
INFO: dict[str, Any] = {
    "id": "run_x",
    "state": "succeeded",
    "attempt": 2,
    "dataset": {"id": "ds_x", "version": 1},
    "config": {},
    "created_at": "2026-01-01T00:00:00Z",
}


def answer(**body: object) -> Answer:
    return Answer(200, json.dumps(body).encode())


def page(seqs: list[int], attempt: int, next_after: int, *rewinds: int) -> Answer:
    fields = ("attempt", "epoch", "step", "value", "at_s")
    data: dict[str, Any] = {field: [attempt] * len(seqs) for field in fields}
    data |= {"seq": seqs, "split": ["train"] * len(seqs), "name": ["loss"] * len(seqs)}
    dropped = [{"attempt": attempt, "after_seq": seq} for seq in rewinds]
    return answer(data=data, next_after=next_after, attempt=attempt, rewinds=dropped)


def test_a_curve_of_several_pages_survives_a_new_attempt_between_them() -> None:
    pages = (page([1, 2, 3], 1, 3), page([], 2, 2, 2), page([3, 4], 2, 4), page([], 2, 4))
    with scripted(answer(**INFO), *pages) as (url, asked), Client(url, "") as client:
        curve = client.run("run_x").metrics()
    assert curve.seq == [1, 2, 3, 4]
    assert curve.attempt == [1, 1, 2, 2]
    assert [
        request.path.removeprefix(f"{RUN}/metrics?layout=columns&") for request in asked[1:]
    ] == [
        "after=0",
        "after=3&attempt=1",
        "after=2&attempt=2",
        "after=4&attempt=2",
    ]


def test_following_a_run_from_behind_its_last_event_ends_at_once() -> None:
    info = answer(**INFO)
    with scripted(info, Answer(204, b""), info) as (url, _), Client(url, "") as client:
        assert list(client.run("run_x").follow(after=7)) == []


def test_the_parameters_of_several_targets_are_asked_for_by_name() -> None:
    both = answer(a={"weights": {"x": 1.0}, "bias": 2.0}, b={"weights": {"x": 3.0}, "bias": 4.0})
    with scripted(both, both, both) as (url, _), Client(url, "") as client:
        model = client.model("m", version=1)
        assert model.parameters("b").weights == {"x": 3.0}
        with pytest.raises(DescentError, match="'a', 'b'"):
            model.parameters()
        with pytest.raises(NotFound, match="'c'"):
            model.parameters("c")


def test_a_version_that_is_not_there_is_named() -> None:
    bare = answer(name="m", aliases={}, created_at="2026-01-01T00:00:00Z")
    with scripted(bare, bare) as (url, asked), Client(url, "") as client:
        with pytest.raises(NotFound, match="no alias 'best'"):
            client.model("m", alias="best").info()
        with pytest.raises(NotFound, match="no version"):
            client.model("m").info()
    assert [request.path for request in asked] == ["/api/v1/models/m", "/api/v1/models/m"]
