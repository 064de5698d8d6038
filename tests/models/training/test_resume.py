"""A resumed training equals, bit for bit, one that never stopped."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from descent.spec import RunConfig
from models import checkpoint
from models.engine.examples import Examples
from models.errors import Diverged, NotResumable
from models.training.dataset import TrainingInput
from models.training.interface import Started, StopReason
from models.training.loop import prepare
from models.training.state import Training
from tests.models.samples import LINE, SURVIVAL, learn, passengers, scores

AGE: dict[str, Any] = {
    "target": "Age",
    "features": ["Sex", "Class", "Alone"],
    "task": "regression",
    "loss": "mse",
}
TREES: dict[str, Any] = {
    "model": {"type": "trees", "depth": 3},
    "optimizer": {"type": "sgd", "learning_rate": 0.2},
    "batch_size": "full",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "adam with dropout": {"model": {"type": "mlp", "hidden": [8], "dropout": 0.2}},
    "adamw in a warm cosine": {
        "optimizer": {"type": "adamw"},
        "schedule": {"type": "cosine", "warmup_epochs": 2},
    },
    "adam stopped early": {
        "optimizer": {"learning_rate": 0.3},
        "early_stopping": {"patience": 1},
        "epochs": 30,
    },
    "plain descent in steps": {
        "optimizer": {"type": "sgd", "learning_rate": 0.3},
        "schedule": {"type": "step", "every_epochs": 2},
    },
    "momentum on a plateau": {
        "optimizer": {"type": "sgd", "momentum": 0.9, "learning_rate": 0.5},
        "schedule": {"type": "plateau", "patience": 1},
    },
    "nesterov on the sum of a regression": AGE
    | {
        "optimizer": {"type": "sgd", "momentum": 0.5, "nesterov": True, "learning_rate": 1e-3},
        "loss": "sse",
    },
    "rmsprop in one cycle": {"optimizer": {"type": "rmsprop"}, "schedule": {"type": "one_cycle"}},
    "rmsprop with momentum": AGE | {"optimizer": {"type": "rmsprop", "momentum": 0.5}},
    "lbfgs past its memory": {
        "optimizer": {"type": "lbfgs"},
        "model": {"type": "mlp", "hidden": [3]},
        "epochs": 4,
    },
    "lbfgs on all rows": AGE
    | {
        "optimizer": {"type": "lbfgs"},
        "model": {"type": "mlp", "hidden": [5], "activation": "tanh"},
        "batch_size": "full",
        "epochs": 16,
    },
    "all rows without validation": {"split": {"type": "none"}, "batch_size": "full", "epochs": 8},
    "huber of a line without validation": AGE
    | {"loss": "huber", "model": {"type": "linear"}, "split": {"type": "none"}},
    "weights of classes and rows": {"class_weight": {"true": 3.0}, "weight": "Fare"},
    "weights of rows in all of them": AGE
    | {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "weight": "Fare"},
    "codes of numbers, with decay": {
        "model": {"type": "mlp", "hidden": [8], "dropout": 0.1, "embedding": {"bins": 4}},
        "optimizer": {"type": "adamw"},
    },
    "codes of numbers by lbfgs": {
        "model": {"type": "mlp", "hidden": [4], "embedding": {"bins": 6, "size": 2}},
        "optimizer": {"type": "lbfgs"},
        "batch_size": "full",
    },
    "trees of two classes": TREES | {"epochs": 12},
    "trees of numbers in a cosine": AGE
    | TREES
    | {"schedule": {"type": "cosine"}, "loss": "huber", "weight": "Fare", "epochs": 9},
    "trees of three classes stopped early": TREES
    | {"target": "Port", "features": ["Sex", "Age", "Fare"], "task": "multiclass"}
    | {"early_stopping": {"patience": 4}, "epochs": 30},
    "trees without validation": AGE | TREES | {"split": {"type": "none"}},
    "folds of classes": {"split": {"type": "kfold", "folds": 3}, "epochs": 3},
    "repeated folds of numbers that stop early": AGE
    | {
        "split": {"type": "kfold", "folds": 2, "repeats": 2, "column": "Class"},
        "features": ["Sex", "Age", "Boarded"],
        "target": "Fare",
        "optimizer": {"learning_rate": 0.3},
        "schedule": {"type": "plateau", "patience": 1},
        "early_stopping": {"patience": 1},
        "epochs": 12,
    },
    "folds of trees": AGE | TREES | {"split": {"type": "kfold", "folds": 3}, "epochs": 7},
    "folds by lbfgs": AGE
    | {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "weight": "Fare", "epochs": 4}
    | {"split": {"type": "kfold", "folds": 2}},
    "layers with dropout on a plateau": {
        "model": {"type": "layers", "layers": [{"linear": 7}, "gelu", {"dropout": 0.5}]},
        "schedule": {"type": "plateau", "patience": 1, "factor": 0.5},
        "split": {"type": "none"},
    },
}


def configured(name: str) -> dict[str, Any]:
    return SURVIVAL | {"batch_size": 20, "epochs": 5} | CONFIGS[name]


def stop_at(step: int, reason: StopReason) -> Callable[[], StopReason | None]:
    """Request a stop at the given step; every step checks for it."""
    asked = itertools.count(1)
    return lambda: reason if next(asked) == step else None


def stops(started: Started) -> list[int]:
    """Return steps to stop at: early, around an epoch's end, in the middle, at the very end."""
    epoch = started.steps // started.epochs
    return sorted({1, max(1, epoch - 1), epoch, epoch + 1, started.steps // 2, started.steps})


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_stopped_anywhere_ends_with_the_very_same_file(tmp_path: Path, name: str) -> None:
    config, table = configured(name), passengers()
    whole = learn(table, tmp_path / "whole", config)
    assert whole.started is not None
    made = whole.saved[-1].step
    for step in (step for step in stops(whole.started) if step <= made):
        scratch = tmp_path / str(step)
        first = learn(table, scratch, config, stop_at(step, "handback"), poll_s=0.0, threads=1)
        saved = first.saved[-1]
        assert saved.step == step
        rest = learn(table, scratch, config, resume=saved.path, seq=saved.seq, attempt=2)
        assert first.curve[: saved.seq] + rest.curve == whole.curve
        assert rest.evaluation == whole.evaluation
        assert rest.saved[-1].sha256 == whole.saved[-1].sha256


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_stopped_twice_ends_with_the_very_same_file(tmp_path: Path, name: str) -> None:
    config, table = configured(name), passengers()
    whole = learn(table, tmp_path / "whole", config)
    first = learn(table, tmp_path, config, stop_at(2, "handback"), poll_s=0.0, threads=1)
    saved = first.saved[-1]
    then: dict[str, Any] = {"resume": saved.path, "seq": saved.seq, "attempt": 2}
    second = learn(table, tmp_path, config, stop_at(3, "pause"), poll_s=0.0, threads=1, **then)
    saved = second.saved[-1]
    assert saved.step == 5
    then = {"resume": saved.path, "seq": saved.seq, "attempt": 3}
    third = learn(table, tmp_path, config, **then)
    assert first.curve + second.curve + third.curve == whole.curve
    assert third.saved[-1].sha256 == whole.saved[-1].sha256


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_died_after_its_last_checkpoint_makes_it_again(
    tmp_path: Path, name: str
) -> None:
    config, table = configured(name), passengers()
    whole = learn(table, tmp_path / "whole", config)
    last = whole.saved[-1]
    again = learn(table, tmp_path, config, resume=last.path, seq=last.seq, attempt=2)
    assert whole.curve[: last.seq] + again.curve == whole.curve
    assert (again.saved[-1].sha256, again.evaluation) == (last.sha256, whole.evaluation)


#: Its parameters become NaN in the middle of an epoch.
DIVERGING = SURVIVAL | {
    "task": "regression",
    "loss": "mse",
    "target": "Age",
    "features": ["Class"],
    "standardize": False,
    "model": {"type": "linear"},
    "optimizer": {"type": "sgd", "learning_rate": 1.0},
    "split": {"type": "none"},
    "batch_size": 1,
}


def test_a_run_that_diverges_gives_the_same_rows_however_often_it_looks_up(tmp_path: Path) -> None:
    seldom = learn(passengers(), tmp_path / "a", DIVERGING, poll_s=1e9)
    often = learn(passengers(), tmp_path / "b", DIVERGING, poll_s=0.0, checkpoint_s=0.0)
    assert isinstance(seldom.error, Diverged)
    assert 1 < len(often.saved) < often.rows[-1].step  # not every step left a state to save
    assert often.curve == seldom.curve
    for saved in often.saved[:-1:8]:
        rest = learn(passengers(), tmp_path / "c", DIVERGING, resume=saved.path, seq=saved.seq)
        assert rest.saved[-1].sha256 == often.saved[-1].sha256 == seldom.saved[-1].sha256


def test_a_run_that_is_handed_back_when_it_has_diverged_saves_nothing(tmp_path: Path) -> None:
    whole = learn(passengers(), tmp_path / "whole", DIVERGING, poll_s=0.0, checkpoint_s=0.0)
    steps = {saved.step for saved in whole.saved[:-1]}
    step = max(steps) + 1
    first = learn(passengers(), tmp_path, DIVERGING, stop_at(step, "handback"), poll_s=0.0)
    assert (first.saved, first.error) == ([], None)
    assert first.finished is not None
    assert first.finished.reason == "handback"


def test_what_is_learned_from_lies_where_torch_would_put_it(tmp_path: Path) -> None:
    # The order in which MKL adds up depends on it, and NumPy's memory lies elsewhere each time.
    for rows in range(20, 30):
        job = TrainingInput(RunConfig.model_validate(SURVIVAL), passengers(rows), tmp_path)
        training, _ = prepare(job, torch.device("cpu"))
        assert isinstance(training, Training)
        data = training.data
        assert isinstance(data.train, Examples)
        assert isinstance(data.validation, Examples)
        assert data.train.x.data_ptr() % 64 == data.validation.x.data_ptr() % 64 == 0


def test_a_run_killed_after_a_checkpoint_resumes_exactly(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 4}
    whole = learn(passengers(), tmp_path, config, poll_s=0.0, checkpoint_s=0.0)
    for saved in whole.saved:
        rest = learn(passengers(), tmp_path, config, resume=saved.path, seq=saved.seq, attempt=2)
        assert whole.curve[: saved.seq] + rest.curve == whole.curve
        assert rest.evaluation == whole.evaluation


def test_a_new_run_from_a_checkpoint_numbers_its_own_rows(tmp_path: Path) -> None:
    config = LINE | {"epochs": 5}
    first = learn(scores(), tmp_path, config, stop_at(2, "pause"), poll_s=0.0)
    rest = learn(scores(), tmp_path, config, resume=first.saved[-1].path, attempt=2)
    assert [(row.seq, row.epoch) for row in rest.rows] == [(1, 2), (2, 3), (3, 4), (4, 5)]


@pytest.mark.parametrize("reason", ["cancel", "pause", "handback"])
def test_a_stop_saves_the_best_so_far_and_says_why(tmp_path: Path, reason: StopReason) -> None:
    outcome = learn(passengers(), tmp_path, SURVIVAL, stop_at(4, reason), poll_s=0.0)
    assert outcome.finished is not None
    assert (outcome.finished.reason, outcome.finished.evaluation) == (reason, None)
    assert outcome.saved[-1].is_best
    assert outcome.saved[-1].resumable


def test_a_diverged_run_cannot_be_resumed(tmp_path: Path) -> None:
    config = LINE | {"optimizer": {"type": "sgd", "learning_rate": 1e6}, "standardize": False}
    saved = learn(scores(), tmp_path, config).saved[-1]
    assert isinstance(learn(scores(), tmp_path, config, resume=saved.path).error, NotResumable)


def test_another_network_cannot_be_resumed(tmp_path: Path) -> None:
    saved = learn(scores(), tmp_path, LINE | {"epochs": 2}).saved[-1]
    config = LINE | {"epochs": 4, "model": {"type": "mlp", "hidden": [3]}}
    assert isinstance(learn(scores(), tmp_path, config, resume=saved.path).error, NotResumable)


def test_another_environment_is_named(tmp_path: Path) -> None:
    config = LINE | {"epochs": 50}
    here = learn(scores(), tmp_path, config, stop_at(30, "pause"), poll_s=0.0).saved[-1]
    tensors, document = checkpoint.read(here.path)
    document["environment"]["torch"] = "1.0"
    elsewhere = tmp_path / "elsewhere.safetensors"
    checkpoint.write(elsewhere, tensors, document)
    for path, named in ((here.path, []), (elsewhere, ["resume_inexact"])):
        started = learn(scores(), tmp_path, config, resume=path, seq=30).started
        assert started is not None
        assert [warning["code"] for warning in started.warnings] == named
        details = [warning["detail"] for warning in started.warnings]
        assert all(f"torch was 1.0, is {torch.__version__}" in detail for detail in details)


def test_the_time_of_earlier_attempts_counts(tmp_path: Path) -> None:
    config = LINE | {"epochs": 50}
    first = learn(scores(), tmp_path, config, stop_at(30, "pause"), poll_s=0.0)
    at = first.saved[-1].path
    rest = learn(scores(), tmp_path, config, resume=at, seq=30, elapsed_s=1000.0)
    assert rest.rows[0].at_s > 1000.0


def test_equal_trainings_make_equal_files(tmp_path: Path) -> None:
    config = LINE | {"epochs": 20}
    first, second = (learn(scores(), tmp_path / name, config).saved[-1] for name in "ab")
    assert first.sha256 == second.sha256
