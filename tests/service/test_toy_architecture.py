"""An architecture needs its declaration only: everything else follows from its graph.

Trees have an engine of their own beside it, and live the same life.
"""

import csv
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from sqlalchemy import Engine

from descent.spec import RunConfig
from models.architectures import ARCHITECTURES
from models.export import standalone
from models.training.interface import StopReason
from service.batch.kind import BATCHES
from service.datasets.messages import ARROW
from service.jobs.kind import Site
from service.proofs.kind import PROOFS
from service.proofs.ways import SPELLED_WAYS, WAYS
from service.runs.kind import RUNS
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.worker.launch import LocalLauncher, WarmProcess
from service.worker.supervisor import Supervisor
from tests.models.samples import SURVIVAL, learn, passengers
from tests.service.gated import Gated
from tests.service.worker.workplace import until
from tests.serving import Serve
from tests.warm import attempts

pytestmark = pytest.mark.slow

del ARCHITECTURES["gated"]  # only for these tests, see `known`

API = "/api/v1"
MODEL = {"type": "gated", "units": 6, "dropout": 0.1}
ROWS = [
    {"area": 20.0 + n, "port": "NS"[n % 2], "price": 3.0 * n + 9.0 * (n % 2)} for n in range(48)
]
NEAR = 1e-4
KINDS = (RUNS, BATCHES, PROOFS)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process know the architecture."""
    monkeypatch.setitem(ARCHITECTURES, "gated", Gated)


def test_a_gated_training_stopped_anywhere_ends_with_the_very_same_file(tmp_path: Path) -> None:
    config, table = SURVIVAL | {"model": MODEL, "batch_size": 20, "epochs": 4}, passengers()
    whole = learn(table, tmp_path / "whole", config)
    assert whole.error is None
    for step in (1, 4, 9):
        left = iter(range(step - 1))

        def stop(left: Iterator[int] = left) -> StopReason | None:
            return "handback" if next(left, None) is None else None

        saved = learn(table, tmp_path / str(step), config, stop, poll_s=0.0).saved[-1]
        then: dict[str, Any] = {"resume": saved.path, "seq": saved.seq, "attempt": 2}
        rest = learn(table, tmp_path / str(step), config, **then)
        assert rest.saved[-1].sha256 == whole.saved[-1].sha256


# ---- in the service ------------------------------------------------------------------------------


class Stage:
    """The API in this process, a worker, and the process that its trainers fork from."""

    def __init__(self, client: httpx.Client, parent: WarmProcess) -> None:
        self.client, self.parent = client, parent

    def upload(self) -> str:
        out = io.StringIO()
        writer = csv.DictWriter(out, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
        answer = self.client.post(
            f"{API}/datasets", content=out.getvalue(), headers={"Content-Type": "text/csv"}
        )
        identity: str = answer.raise_for_status().json()["id"]
        path = f"{API}/datasets/{identity}"
        until(lambda: self.client.get(path).json()["state"] == "ready")
        return identity

    def run(self, asked: dict[str, Any]) -> str:
        identity: str = self.client.post(f"{API}/runs", json=asked).raise_for_status().json()["id"]
        return identity

    def wait_for(self, run: str, state: str) -> dict[str, Any]:
        until(lambda: self.client.get(f"{API}/runs/{run}").json()["state"] in {state, "failed"})
        found: dict[str, Any] = self.client.get(f"{API}/runs/{run}").json()
        assert found["state"] == state, found["error"]
        return found

    def best(self, run: str) -> dict[str, Any]:
        """Return the best checkpoint of a run."""
        listed = self.client.get(f"{API}/runs/{run}/checkpoints").json()["data"]
        (found,) = [each for each in listed if each["is_best"]]
        best: dict[str, Any] = found
        return best

    def register(self, run: str, model: str) -> None:
        path = f"{API}/runs/{run}/checkpoints/{self.best(run)['id']}/register"
        self.client.post(path, json={"model": model}).raise_for_status()


@pytest.fixture
def stage(settings: Settings, engine: Engine, serve: Serve) -> Iterator[Stage]:
    modules = [*(kind.module for kind in KINDS), Gated.__module__]
    parent = WarmProcess(modules)
    launcher = LocalLauncher(modules, parent.orders)
    own = settings.model_copy(update={"poll_s": 0.05, "lease_s": 30, "renew_s": 0.2})
    site = Site(own, engine, LocalBlobs(settings.data_dir / "blobs"))
    supervisor = Supervisor(site, KINDS, launcher)
    thread = threading.Thread(target=supervisor.run, daemon=True)
    thread.start()
    yield Stage(serve(settings), parent)
    supervisor.stop()
    thread.join(30)
    assert not thread.is_alive()
    launcher.close()
    parent.close()


def test_a_gated_model_is_trained_resumed_predicted_explained_exported_and_proved(
    stage: Stage, tmp_path: Path
) -> None:
    client = stage.client
    asked = {"dataset": stage.upload(), "target": "price", "model": MODEL, "epochs": 400}
    asked |= {"early_stopping": None}
    _is_described(client, asked)
    run = _is_resumed_exactly(stage, asked)
    net = client.get(f"{API}/runs/{run}/trajectory").json()["subject"]["net"]
    assert [each["kind"] for each in net["operations"]].count("multiply") == 1
    _is_used_in_every_way(stage, run, tmp_path)


def test_trees_are_trained_resumed_predicted_explained_exported_and_proved(
    stage: Stage, tmp_path: Path
) -> None:
    asked = {"dataset": stage.upload(), "target": "price", "epochs": 1500}
    asked |= {"model": {"type": "trees", "depth": 3}, "early_stopping": None}
    run = _is_resumed_exactly(stage, asked)
    assert stage.client.get(f"{API}/runs/{run}").json()["engine"] == "boosting"
    _is_used_in_every_way(stage, run, tmp_path)


def test_a_cross_validation_is_trained_resumed_predicted_explained_exported_and_proved(
    stage: Stage, tmp_path: Path
) -> None:
    client = stage.client
    asked: dict[str, Any] = {
        "dataset": stage.upload(),
        "target": "price",
        "model": {"type": "mlp", "hidden": [6]},
    }
    asked |= {"epochs": 1500, "early_stopping": None, "split": {"type": "kfold", "folds": 3}}
    plan = client.post(f"{API}/runs/validate", json=asked).raise_for_status().json()
    run = _is_resumed_exactly(stage, asked)
    found = client.get(f"{API}/runs/{run}").json()
    assert found["progress"]["steps"] == plan["estimate"]["steps"]
    assert len(found["evaluation"]["folds"]["scores"]) == 3
    assert client.get(f"{API}/runs/{run}/trajectory").json()["subject"] is None
    drawn = client.get(f"{API}/runs/{run}/evaluation").raise_for_status().json()
    assert (drawn["split"], drawn["rows"]) == ("validation", len(ROWS))
    (points,) = drawn["points"]
    errors = np.array(points["predicted"]) - np.array(points["actual"])
    told = found["evaluation"]["validation"]["mae"]
    assert np.abs(errors).mean() == pytest.approx(told, rel=1e-4)
    whole = client.get(f"{API}/runs/{run}/evaluation?split=train").raise_for_status().json()
    assert (whole["split"], whole["rows"]) == ("train", len(ROWS))
    _is_used_in_every_way(stage, run, tmp_path)


def _is_resumed_exactly(stage: Stage, asked: dict[str, Any]) -> str:
    """Train twice, once with interruptions, and return that run."""
    whole = stage.run(asked)
    run = stage.run(asked)
    _is_interrupted(stage, run)
    stage.wait_for(whole, "succeeded")
    stage.wait_for(run, "succeeded")
    assert stage.best(run)["sha256"] == stage.best(whole)["sha256"]
    return run


def _is_used_in_every_way(stage: Stage, run: str, folder: Path) -> None:
    client = stage.client
    stage.register(run, "homes")
    version = f"{API}/models/homes/versions/1"
    expected = _predictions(client, version)
    _agree(client, version, expected)
    _is_explained(client, version, expected)
    _is_exported(client, version, expected, folder)
    until(lambda: client.get(version).json()["proof"] != "pending")
    proved = client.get(version).json()
    assert (proved["proof"], proved["proof_error"]) == ("passed", None), proved
    assert proved["proof_details"]["ways"].keys() == WAYS.keys() | SPELLED_WAYS.keys()


def _is_described(client: httpx.Client, asked: dict[str, Any]) -> None:
    listed = client.get(f"{API}/architectures").json()["data"]
    (found,) = [each for each in listed if each["type"] == "gated"]
    assert (found["title"], found["description"]) == ("Gated block", (Gated.__doc__ or "").strip())
    assert found["schema"]["properties"]["units"]["title"] == "Units of the block"
    plan = client.post(f"{API}/runs/validate", json=asked).raise_for_status().json()
    net = RunConfig.model_validate(plan["config"]).model.graph(3, 1)
    assert plan["net"] == net.to_json()
    assert plan["estimate"]["parameters"] == net.parameters
    wrong = client.post(f"{API}/runs/validate", json=asked | {"model": {"type": "gated"}})
    assert [each["pointer"] for each in wrong.json()["errors"]] == ["/model/units"]


def _is_interrupted(stage: Stage, run: str) -> None:
    """Pause the run and resume it; then kill its process."""
    stage.wait_for(run, "running")
    stage.client.post(f"{API}/runs/{run}/pause").raise_for_status()
    stage.wait_for(run, "paused")
    until(lambda: attempts(stage.parent.pid) == [])
    stage.client.post(f"{API}/runs/{run}/resume").raise_for_status()
    until(lambda: bool(attempts(stage.parent.pid)))
    for process in attempts(stage.parent.pid):
        os.kill(process, signal.SIGKILL)


def _columns() -> dict[str, list[Any]]:
    return {name: [row[name] for row in ROWS] for name in ("area", "port")}


def _predictions(client: httpx.Client, version: str) -> list[float]:
    answer = client.post(f"{version}/predict", json={"columns": _columns()})
    return [row["value"] for row in answer.raise_for_status().json()["predictions"]]


def _agree(client: httpx.Client, version: str, expected: list[float]) -> None:
    """Compare the answers to one row, CSV, Arrow, tensors, MLflow and a batch prediction."""
    one = client.post(f"{version}/predict", json={"rows": [_row(0)]}).json()
    assert one["predictions"][0]["value"] == pytest.approx(expected[0], abs=NEAR)

    text = "area,port\n" + "".join(f"{row['area']},{row['port']}\n" for row in ROWS)
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    answer = client.post(f"{version}/predict", content=text, headers=headers).raise_for_status()
    found = [float(row["value"]) for row in csv.DictReader(io.StringIO(answer.text))]
    assert found == pytest.approx(expected, abs=NEAR)

    out = io.BytesIO()
    table = pa.table(_columns())
    with pa.ipc.new_file(out, table.schema) as stream:
        stream.write_table(table)
    headers = dict.fromkeys(("Content-Type", "Accept"), ARROW)
    answer = client.post(f"{version}/predict", content=out.getvalue(), headers=headers)
    read = pa.ipc.open_file(answer.raise_for_status().content).read_all()
    assert read.column("value").to_pylist() == pytest.approx(expected, abs=NEAR)

    tensors = [
        {"name": name, "datatype": kind, "shape": [len(ROWS)], "data": _columns()[name]}
        for name, kind in (("area", "FP64"), ("port", "BYTES"))
    ]
    answer = client.post("/v2/models/homes/versions/1/infer", json={"inputs": tensors})
    assert answer.raise_for_status().json()["outputs"][0]["data"] == pytest.approx(
        expected, abs=NEAR
    )
    body = {"dataframe_records": [_row(place) for place in range(len(ROWS))]}
    answer = client.post(f"{version}/predict", json=body).raise_for_status()
    assert answer.json()["predictions"] == pytest.approx(expected, abs=NEAR)


def _row(place: int) -> dict[str, Any]:
    return {name: values[place] for name, values in _columns().items()}


def _is_explained(client: httpx.Client, version: str, expected: list[float]) -> None:
    answer = client.post(f"{version}/predict?explain=true", json={"columns": _columns()})
    for row, value in zip(answer.raise_for_status().json()["predictions"], expected, strict=True):
        told = row["explanation"]
        assert told["contributions"].keys() == {"area", "port"}
        total = told["base"] + sum(told["contributions"].values())
        assert total == pytest.approx(value, abs=NEAR)


def _is_exported(client: httpx.Client, version: str, expected: list[float], folder: Path) -> None:
    """Predict with the ONNX file, an imported bundle, and the script inside it."""
    graph = client.get(f"{version}/artifact?format=onnx").raise_for_status().content
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    area = np.array(_columns()["area"])[:, None]
    port = np.array(_columns()["port"], dtype=object)[:, None]
    (values,) = session.run(None, {"area": area, "port": port})
    assert values[:, 0].tolist() == pytest.approx(expected, abs=NEAR)

    bundle = client.get(f"{version}/artifact?format=bundle").raise_for_status().content
    headers = {"Content-Type": "application/zip"}
    imported = client.post(f"{API}/models/moved/versions", content=bundle, headers=headers)
    imported.raise_for_status()
    found = _predictions(client, f"{API}/models/moved/versions/1")
    assert found == pytest.approx(expected, abs=NEAR)

    (folder / "bundle.zip").write_bytes(bundle)
    told = standalone.predict(folder / "bundle.zip", [_row(n) for n in range(len(ROWS))])
    assert [row["value"] for row in told] == pytest.approx(expected, abs=NEAR)
