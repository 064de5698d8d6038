"""Every example in the client's documentation, run against a real service."""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import descent.client
from descent import Client
from descent.model import Model
from descent.predictions import Predictions
from descent.run import BatchPrediction, Run
from descent.sweep import Sweep
from tests.serving import RunService

pytestmark = pytest.mark.slow

SCORES = Path(__file__).parents[2] / "descent" / "data" / "scores.csv"
CLASSES = (Client, Run, Sweep, Model, Predictions, BatchPrediction)
#: in this order: later examples use the results of earlier ones
ORDER = ("upload", "train", "sweep", "show", "predict", "set_alias", "rollback", "history")
#: at the end: for a second after it the service still asks for the deleted key
LAST = "create_key"
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
#: documented by the example of another one
SHOWN_ELSEWHERE = {"Run.resume", "Sweep.resume", "Client.delete_key"}


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members of a class, inherited ones too, without plain properties."""
    for name, member in inspect.getmembers(kind):
        is_ours = inspect.isfunction(member) and member.__module__.startswith("descent")
        if is_ours and not name.startswith("_"):
            yield name, member


def test_every_method_of_the_client_has_an_example() -> None:
    lacking = [
        f"{kind.__name__}.{name}"
        for kind in CLASSES
        for name, member in members(kind)
        if ">>>" not in (member.__doc__ or "")
    ]
    assert sorted(set(lacking) - SHOWN_ELSEWHERE) == []


def examples() -> list[tuple[str, Any]]:
    """Return the names and the documented objects, in an order in which their examples run."""
    found = [(name, member) for kind in CLASSES for name, member in members(kind)]
    found += [
        (name, member)
        for kind in CLASSES
        for name, member in inspect.getmembers(kind)
        if isinstance(member, property)
    ]
    found += [(kind.__name__, kind) for kind in CLASSES]
    order = {name: place for place, name in enumerate(ORDER)}
    return sorted(found, key=lambda item: order.get(item[0], len(order) + (item[0] == LAST)))


def test_the_examples_in_the_documentation_are_true(
    run_service: RunService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl.use("agg")
    work = tmp_path / "work"
    work.mkdir()
    (work / "scores.csv").write_bytes(SCORES.read_bytes())
    monkeypatch.chdir(work)
    (tmp_path / "service").mkdir()
    with run_service(tmp_path / "service") as url:
        monkeypatch.setenv("DESCENT_URL", url)
        names: dict[str, Any] = {}
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        finder = doctest.DocTestFinder(recurse=False)
        run(runner, finder, "descent.client", descent.client, names)
        prepare(names)
        for name, member in examples():
            run(runner, finder, name, member, names)
        names["client"].close()
    assert runner.failures == 0
    assert runner.tries > 100


def prepare(names: dict[str, Any]) -> None:
    """Create the objects that single examples need: a model to delete, a prediction of a table."""
    client = names["client"]
    client.train(names["scores"], "Final", epochs=1, register_as="outdated")
    names["job"] = client.predict_dataset("scores", names["scores"], name="predicted")


def run(
    runner: doctest.DocTestRunner,
    finder: doctest.DocTestFinder,
    name: str,
    documented: object,
    names: dict[str, Any],
) -> None:
    for test in finder.find(documented, name, module=descent.client, globs=names):
        test.globs = names  # the next example uses the variables of this one
        runner.run(test, clear_globs=False)
