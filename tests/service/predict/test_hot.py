"""The hot routes give the same answers as the framework's routes, and refuse overload in time."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine

from service.app import Service
from service.predict.hot import LIGHT, SMALL
from service.settings import Settings
from tests.service import trained
from tests.service.trained import Store, Trained
from tests.serving import app_of, serving

ENDS = 30.0  # seconds until a wait fails
JSON = {"Content-Type": "application/json"}
SCORES = "/api/v1/models/scores/predict"
#: a header that routes a request to the framework, and has no other effect
LONG = {"Content-Encoding": "identity"}
BODIES = {
    "plain": '{"rows": [{"Quiz": 10}, {"Quiz": 4.5}]}',
    "none": '{"rows": []}',
    "columns": '{"columns": {"Quiz": [10, 4.5]}}',
    "missing": '{"rows": [{"Quiz": null}, {}]}',
    "out of range": '{"rows": [{"Quiz": 1000}]}',
    "clipped": '{"rows": [{"Quiz": 1e300}, {"Quiz": 5}]}',
    "unknown column": '{"rows": [{"Quiz": 5, "Final": 1, "x": 2}]}',
    "coerced": '{"rows": [{"Quiz": "5"}]}',
    "wrong type": '{"rows": [{"Quiz": true}, {"Quiz": [1]}, 7, null]}',
    "NaN": '{"rows": [{"Quiz": NaN}]}',
    "Infinity": '{"rows": [{"Quiz": -Infinity}]}',
    "twice": '{"rows": [{"Quiz": 1, "Quiz": 2}]}',
    "deep": '{"rows": ' + "[" * 40 + "]" * 40 + "}",
    "null beside": '{"rows": [{"Quiz": 5}], "columns": null}',
    "two tables": '{"rows": [{"Quiz": 5}], "columns": {"Quiz": [1]}}',
    "records": '{"dataframe_records": [{"Quiz": 5}, {"Quiz": NaN}]}',
    "split": '{"dataframe_split": {"columns": ["Quiz"], "data": [[5], [NaN]]}}',
    "instances": '{"instances": [[5], [NaN]]}',
    "inputs": '{"inputs": {"Quiz": [5, NaN]}}',
    "two bodies": '{"inputs": [5], "instances": [5]}',
    "rows and instances": '{"rows": [{"Quiz": 5}], "instances": [5]}',
    "no object": "[1]",
    "no JSON": '{"rows": [',
    "nothing": "",
    "large": '{"rows": [' + ", ".join(['{"Quiz": 5}'] * (SMALL // 8)) + "]}",
}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: the hot path makes no query."""
    return sqlite_url


@pytest.mark.parametrize("on_problem", ["", "?on_problem=error"])
@pytest.mark.parametrize("accept", ["*/*", "text/csv"])
def test_each_body_has_the_answer_of_the_frameworks_route(
    client: httpx.Client, scores: Trained, on_problem: str, accept: str
) -> None:
    client.post(SCORES, json={"rows": [{"Quiz": 5}]})  # from now on, no database query
    for name, body in BODIES.items():
        hot, slow = (
            client.post(SCORES + on_problem, content=body, headers=JSON | more)
            for more in ({"Accept": accept}, {"Accept": accept} | LONG)
        )
        assert hot.status_code == slow.status_code, name
        if hot.status_code == 200:
            assert hot.content == slow.content, name
        else:
            assert {**hot.json(), "request_id": ""} == {**slow.json(), "request_id": ""}, name
        own = ("date", "x-request-id", "content-length")
        told = [{k: v for k, v in each.headers.items() if k not in own} for each in (hot, slow)]
        assert told[0] == told[1], name


def test_an_answer_ends_its_connection_where_the_client_asks_for_it(
    client: httpx.Client, scores: Trained
) -> None:
    for _ in range(2):  # the framework's route answers the first
        answer = client.post(SCORES, json={"rows": [{"Quiz": 10}]}, headers={"Connection": "close"})
        assert answer.headers["Connection"] == "close"
        assert answer.json()["predictions"] == [{"value": 13.0}]


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer dsc_x", "Basic x"])
def test_an_authorization_that_is_none_is_refused_as_by_the_frameworks_route(
    client: httpx.Client, scores: Trained, given: str
) -> None:
    client.post(SCORES, json={"rows": [{"Quiz": 5}]})
    hot, slow = (
        client.post(SCORES, content=QUIZ, headers=JSON | more | {"Authorization": given})
        for more in ({}, LONG)
    )
    assert (hot.status_code, slow.status_code) == (401, 401)
    assert {**hot.json(), "request_id": ""} == {**slow.json(), "request_id": ""}


def test_a_content_type_of_no_text_is_refused_as_by_the_frameworks_route(
    client: httpx.Client, scores: Trained
) -> None:
    strange, encoded = (b"Content-Type", b"\xff"), (b"Content-Encoding", b"identity")
    quick = client.post(SCORES, content=b"{}", headers=[strange])
    slow = client.post(SCORES, content=b"{}", headers=[strange, encoded])
    assert (quick.status_code, quick.json()["code"]) == (415, "unsupported_media_type")
    assert quick.json()["code"] == slow.json()["code"]


def test_a_head_that_is_known_is_refused_once_its_key_is_deleted(
    client: httpx.Client, scores: Trained
) -> None:
    made, other = (client.post("/api/v1/keys", json={"name": name}).json() for name in "ab")
    headers = JSON | {"Authorization": f"Bearer {made['secret']}"}
    statuses = [client.post(SCORES, content=QUIZ, headers=headers).status_code for _ in range(3)]
    assert statuses == [200] * 3
    deleted = client.delete(
        f"/api/v1/keys/{made['id']}", headers={"Authorization": f"Bearer {other['secret']}"}
    )
    assert deleted.status_code == 204
    ends = time.monotonic() + ENDS
    while client.post(SCORES, content=QUIZ, headers=headers).status_code == 200:
        assert time.monotonic() < ends, "the key still works"


# ---- many at once --------------------------------------------------------------------------------


def test_many_who_ask_a_large_net_at_once_get_their_own_answers(
    client: httpx.Client, engine: Engine, store: Store
) -> None:
    width = 1 + LIGHT // 500  # so that threads compute the net in batches
    names = ["a", "b"]
    saved = trained.saved(trained.numbers(names), [[0.0, 0.0]], [0.0])
    random = np.random.default_rng(0)
    layers = {"0": (500, 2), "2": (width, 500), "4": (1, width)}
    for place, (outputs, inputs) in layers.items():
        weights = random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        saved["tensors"][f"net.{place}.weight"] = weights.astype(np.float32)
        saved["tensors"][f"net.{place}.bias"] = np.zeros(outputs, np.float32)
    sizes: list[object] = [{"linear": outputs} for outputs, _inputs in layers.values()]
    saved["document"]["net"]["layers"] = [sizes[0], "relu", sizes[1], "relu", sizes[2]]
    trained.publish(engine, store(saved), "large")

    def ask(number: int) -> float:
        row = {"a": number / 100, "b": -number / 100}
        answer = client.post("/api/v1/models/large/predict", json={"rows": [row]})
        value: float = answer.json()["predictions"][0]["value"]
        return value

    alone = [ask(number) for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(32)))
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-5 * float(np.std(alone)))
    assert len(set(alone)) == 32


# ---- too much ------------------------------------------------------------------------------------


@contextlib.contextmanager
def busy(app: Service, pieces: int) -> Iterator[None]:
    """Fill the queue of the service with work that lasts until the end of the block."""
    opened, queue = threading.Event(), app.state.inference.executor

    async def fill() -> None:
        waiting = [asyncio.create_task(queue.run(opened.wait)) for _ in range(pieces)]
        await asyncio.sleep(0)
        is_full.set()
        await asyncio.gather(*waiting, return_exceptions=True)  # their deadline may pass, too

    is_full = threading.Event()
    filler = threading.Thread(target=lambda: asyncio.run(fill()))
    filler.start()
    try:
        assert is_full.wait(ENDS)
        yield
    finally:
        opened.set()
        filler.join(ENDS)


QUIZ = '{"rows": [{"Quiz": 10}]}'
TENSOR = '{"inputs": [{"name": "Quiz", "datatype": "FP64", "shape": [1], "data": [10]}]}'
ROUTES = {
    "/api/v1/models/scores/predict": (BODIES["large"], JSON),
    "/api/v1/models/scores/versions/1/predict": (QUIZ, JSON | LONG),
    "/api/v1/models/scores/aliases/champion/predict": ("Quiz\n10\n", {"Content-Type": "text/csv"}),
    "/v2/models/scores/infer": (TENSOR, JSON),
    "/v2/models/scores/versions/1/infer": (TENSOR, JSON),
    "/invocations": ('{"instances": [[10]]}', JSON),
}


def test_all_routes_that_predict_share_one_bounded_line(
    settings: Settings, scores: Trained
) -> None:
    settings = settings.model_copy(
        update={"predict_threads": 1, "predict_queue": 1, "invocations_model": "scores"}
    )
    app = app_of(settings)
    assert isinstance(app, Service)
    with serving(app) as url, httpx.Client(base_url=url, timeout=ENDS) as client:
        client.put("/api/v1/models/scores/aliases/champion", json={"version": 1})
        for route, (body, headers) in ROUTES.items():
            assert client.post(route, content=body, headers=headers).status_code == 200, route
        with busy(app, 2):
            for route, (body, headers) in ROUTES.items():
                answer = client.post(route, content=body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, "overloaded"), route
                assert answer.headers["Retry-After"] == "1", route
            plain = client.post(SCORES, content=QUIZ, headers=JSON)
            assert plain.status_code == 200, "what is computed at once needs no line"
        for route, (body, headers) in ROUTES.items():
            assert client.post(route, content=body, headers=headers).status_code == 200, route


def test_all_routes_that_predict_have_the_same_deadline(
    settings: Settings, scores: Trained
) -> None:
    # Long enough for the service to load the model, too short for work that never ends.
    settings = settings.model_copy(
        update={"predict_threads": 1, "predict_timeout_s": 0.2, "invocations_model": "scores"}
    )
    app = app_of(settings)
    assert isinstance(app, Service)
    with serving(app) as url, httpx.Client(base_url=url, timeout=ENDS) as client:
        client.put("/api/v1/models/scores/aliases/champion", json={"version": 1})
        with busy(app, 1):
            for route, (body, headers) in ROUTES.items():
                answer = client.post(route, content=body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
                assert answer.headers["Retry-After"] == "1", route
