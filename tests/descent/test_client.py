"""The client against the real service."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from descent import Client
from descent.errors import Conflict, DatasetRejected, InvalidRequest, NotFound, RunFailed, TimedOut

SCORES = Path(__file__).parents[2] / "descent" / "data" / "scores.csv"
LINEAR = {"model": {"type": "linear"}, "epochs": 20}


@pytest.fixture
def descent(service_url: str) -> Iterator[Client]:
    with Client(service_url) as client:
        yield client


def test_importing_the_package_loads_nothing_heavy() -> None:
    source = (
        "import sys, descent; from descent import Client;"
        "print(sorted({'torch', 'fastapi', 'sqlalchemy', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", source]
    root = SCORES.parents[2]
    assert subprocess.run(command, capture_output=True, cwd=root, check=True).stdout == b"[]\n"


def test_a_file_its_bytes_columns_and_rows_are_the_same_table(
    descent: Client, tmp_path: Path
) -> None:
    packed = tmp_path / "small.csv.gz"
    packed.write_bytes(gzip.compress(b"a,b\n1.5,x\n2.5,y\n"))
    sources: list[Any] = [
        packed,
        b"a,b\n1.5,x\n2.5,y\n",
        {"a": [1.5, 2.5], "b": ["x", "y"]},
        [{"a": 1.5, "b": "x"}, {"a": 2.5, "b": "y"}],
    ]
    found = [descent.upload(source, "small") for source in sources]
    assert {(dataset.rows, dataset.name) for dataset in found} == {(2, "small")}
    assert {tuple(column.name for column in dataset.columns) for dataset in found} == {("a", "b")}


def test_nan_is_a_missing_value(descent: Client) -> None:
    columns = {"a": [1.0, float("nan"), 3.0], "b": ["x", "y", "x"]}
    rows = [{"a": 1.0, "b": "x"}, {"a": float("nan"), "b": "y"}, {"a": 3.0, "b": "x"}]
    for source in (columns, rows):
        assert [column.missing for column in descent.upload(source).columns] == [1, 0]


def test_a_file_that_is_no_table_is_an_exception_that_says_why(descent: Client) -> None:
    with pytest.raises((DatasetRejected, InvalidRequest)) as caught:
        descent.upload(b"")
    assert caught.value.code
    assert caught.value.detail


def test_a_run_is_found_again_by_its_id_and_in_the_list(descent: Client) -> None:
    dataset = descent.upload(SCORES)
    run = descent.submit(dataset, "Final", tags={"made": "here"}, **LINEAR).wait(60)
    assert descent.run(run.id).state == "succeeded"
    assert run.id in [each.id for each in descent.runs(dataset=dataset.id)]
    assert dataset.id in [each.id for each in descent.datasets()]


def test_the_curve_comes_as_columns(descent: Client) -> None:
    run = descent.submit(descent.upload(SCORES), "Final", **LINEAR).wait(60)
    curve = run.metrics(names="loss", splits="train")
    assert curve.epoch == list(range(1, 21))
    assert set(curve.split) == {"train"}


def test_events_are_followed_to_the_end_and_from_any_place(descent: Client) -> None:
    run = descent.submit(descent.upload(SCORES), "Final", **LINEAR)
    events = list(run.follow())
    assert run.state == "succeeded"
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].kind == "end"
    assert list(run.follow(after=2)) == events[2:]


def test_a_run_that_diverged_raises_with_the_code_of_the_service(descent: Client) -> None:
    config = {
        "model": {"type": "linear"},
        "optimizer": {"type": "sgd", "learning_rate": 5.0},
        "standardize": False,
        "batch_size": "full",
    }
    run = descent.submit(descent.upload(SCORES), "Final", **config)
    with pytest.raises(RunFailed) as caught:
        run.wait(60)
    assert caught.value.code == "diverged"
    assert run.wait(check=False).state == "failed"


def test_a_run_that_is_cancelled_keeps_its_checkpoint(descent: Client) -> None:
    run = descent.submit(descent.upload(SCORES), "Final", epochs=1_000_000, early_stopping=None)
    for event in run.follow():
        if event.kind == "metrics":
            run.cancel()
            break
    assert run.wait(60, check=False).state == "cancelled"
    assert len(run.predict({"Quiz": [1.0, 2.0]})) == 2


def test_waiting_ends_when_the_time_is_up(descent: Client) -> None:
    run = descent.submit(descent.upload(SCORES), "Final", epochs=1_000_000, early_stopping=None)
    with pytest.raises(TimedOut, match=run.id):
        run.wait(0.2)
    run.cancel()
    run.wait(60, check=False)


def test_a_plan_makes_no_run(descent: Client) -> None:
    dataset = descent.upload(SCORES)
    plan = descent.validate(dataset, "Final", **LINEAR)
    assert plan.estimate.parameters == 2
    assert list(descent.runs(dataset=dataset.id)) == []


def test_a_wrong_configuration_names_the_field(descent: Client) -> None:
    dataset = descent.upload(SCORES)
    with pytest.raises(InvalidRequest, match="learning_rate"):
        descent.submit(dataset, "Final", optimizer={"type": "sgd", "learning_rate": -1})


def test_a_model_is_taken_elsewhere_and_comes_back(descent: Client, tmp_path: Path) -> None:
    descent.submit(descent.upload(SCORES), "Final", **LINEAR, register_as="leaves").wait(60)
    model = descent.model("leaves")
    bundle = model.export(tmp_path)
    assert (bundle.name, bundle.read_bytes()[:2]) == (f"leaves-{model.info().version}.zip", b"PK")
    assert model.export(tmp_path / "graph.onnx", kind="onnx").stat().st_size > 0
    made = descent.import_model(bundle, "returns")
    assert made.imported is not None
    assert (made.run_id, made.imported.model) == (None, "leaves")
    assert descent.import_model(bundle.read_bytes(), "returns").version == made.version + 1
    assert descent.model("returns").predict({"Quiz": 10}) == model.predict({"Quiz": 10})
    assert descent.model("returns").parameters() == model.parameters()
    with pytest.raises(InvalidRequest, match="bundle"):
        descent.import_model(SCORES, "returns")


def test_an_alias_is_moved_and_rolled_back(descent: Client) -> None:
    dataset = descent.upload(SCORES)
    for _ in range(2):
        descent.submit(dataset, "Final", **LINEAR, register_as="moved").wait(60)
    model = descent.model("moved")
    assert model.set_alias("champion", 1).canary is None
    moved = model.set_alias("champion", 1, canary=2, percent=50)
    assert moved.canary is not None
    assert (moved.canary.version, moved.canary.percent) == (2, 50)
    assert model.set_alias("champion", 2).version == 2
    assert model.rollback("champion").version == 1
    with pytest.raises(Conflict, match="nothing_to_roll_back"):
        model.rollback("champion")


def test_names_are_quoted_in_the_path(descent: Client) -> None:
    with pytest.raises((NotFound, InvalidRequest)):
        descent.model("../runs?x=").info()
