"""The whole path of a new user: a table, a run, its curve, a model, a prediction."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from descent import Client
from descent.demo import LINE
from tests.serving import RunService

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DATA = ROOT / "descent" / "data"
DEMO = [sys.executable, "-m", "descent", "demo"]


def test_a_line_is_learnt_from_an_uploaded_table_and_predicts(service_url: str) -> None:
    with Client(service_url) as client:
        dataset = client.upload(DATA / "scores.csv")
        run = client.submit(dataset, "Final", **LINE | {"register_as": "story"})
        losses = [
            row["value"]
            for event in run.follow()
            if event.kind == "metrics"
            for row in event.data["rows"]
        ]
        found = run.wait().model.parameters()
        predicted = client.model("story").predict([{"Quiz": 10.0}, {"Quiz": None}])
    assert len(losses) == 5000
    assert losses[:20] == sorted(losses[:20], reverse=True)
    assert losses[-1] == pytest.approx(min(losses), rel=1e-5)
    assert found.weights["Quiz"] == pytest.approx(1.31197, abs=0.001)
    assert found.bias == pytest.approx(0.64804, abs=0.01)
    assert found.sse == pytest.approx(241.7887861, rel=1e-4)
    assert found.closed_form is not None
    assert found.closed_form.sse == pytest.approx(241.7887861, rel=1e-8)
    assert predicted[0].value == pytest.approx(13.77, abs=0.01)
    assert predicted[1].warnings is not None


def test_the_way_of_a_line_is_kept_from_before_its_first_step_to_its_last(service_url: str) -> None:
    with Client(service_url) as client:
        dataset = client.upload(DATA / "scores.csv")
        run = client.train(dataset, "Final", **LINE | {"epochs": 600, "register_as": "way"})
        found = run.wait().model.parameters()
    pages: list[dict[str, Any]] = []
    after: int | None = -1
    while after is not None:
        address = f"{service_url}/api/v1/runs/{run.id}/trajectory"
        pages.append(httpx.get(address, params={"after": after}).raise_for_status().json())
        after = pages[-1]["next_after"]
    assert [epoch for page in pages for epoch in page["epochs"]] == list(range(601))
    assert (len(pages), pages[-1]["is_final"]) == (2, True)
    assert pages[-1]["frames"][-1] == pytest.approx([found.weights["Quiz"], found.bias], rel=1e-6)


def test_a_run_is_followed_across_a_restart_of_the_service(
    run_service: RunService, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with run_service(tmp_path, DESCENT_PORT=port) as url:
        client = Client(url)
        dataset = client.upload(DATA / "scores.csv")
        run = client.submit(dataset, "Final", **LINE | {"epochs": 1_000_000})
        events = run.follow()
        seen = [next(event for event in events if event.kind == "metrics")]
    with run_service(tmp_path, DESCENT_PORT=port):
        for event in events:
            seen.append(event)
            if event.kind == "metrics" and event.data["attempt"] > 1:
                run.cancel()
                break
        seen += events
        assert run.wait(60, check=False).state == "cancelled"
        epochs = run.metrics().epoch
        client.close()
    first = seen[0].id
    assert [event.id for event in seen] == list(range(first, first + len(seen)))
    assert epochs == list(range(1, len(epochs) + 1))


def test_flowers_are_told_apart_by_a_hidden_layer(service_url: str) -> None:
    split = {"type": "random", "validation": 0.2, "test": 0.2}
    with Client(service_url) as client:
        dataset = client.upload(DATA / "iris.csv")
        run = client.submit(dataset, "column_5", split=split).wait(60)
        answer = run.predict({"column_1": 5.1, "column_2": 3.5, "column_3": 1.4, "column_4": 0.2})
    assert dataset.rows == 150
    assert run.evaluation["test"]["accuracy"] > 0.85
    assert answer[0].value == "Iris-setosa"
    assert answer[0].probabilities is not None
    assert set(answer[0].probabilities) == {"Iris-setosa", "Iris-versicolor", "Iris-virginica"}


def test_the_demo_runs_twice_at_once_in_plain_lines_and_ends_by_itself(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    demos = [
        subprocess.Popen(
            DEMO, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for demo in demos:
        output, errors = (text.decode() for text in demo.communicate(timeout=120))
        assert demo.returncode == 0, errors
        assert "epoch   5000" in output
        assert "1.311" in output  # w, trained and in closed form
        assert "241.788" in output
        assert "13.7" in output  # the final score for a quiz score of 10
        assert "Accuracy on 30 flowers" in output
        assert "Iris-virginica" in output
        assert "make serve" in output
        assert "\x1b" not in output
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_is_stopped_takes_its_service_along(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(DEMO, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if b"listens" in line:
                break
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
        assert demo.wait(30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
