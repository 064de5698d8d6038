"""A training that was stopped and goes on is, bit for bit, one that never stopped."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import checkpoint
from models.errors import NotResumable
from models.events import StopReason
from tests.models.samples import LINE, SURVIVAL, learn, passengers, scores

CONFIGS: dict[str, dict[str, Any]] = {
    "adam with dropout": {
        "optimizer": {"type": "adam"},
        "model": {"type": "mlp", "hidden": [8], "dropout": 0.2},
    },
    "momentum on a plateau": {
        "optimizer": {"type": "sgd", "momentum": 0.9, "learning_rate": 0.5},
        "schedule": {"type": "plateau", "patience": 1},
    },
    "rmsprop in one cycle": {
        "optimizer": {"type": "rmsprop", "momentum": 0.5},
        "schedule": {"type": "one_cycle"},
    },
    "lbfgs": {"optimizer": {"type": "lbfgs"}, "model": {"type": "mlp", "hidden": [2]}},
    "adamw without validation": {"optimizer": {"type": "adamw"}, "split": {"type": "none"}},
}


def stop_at(step: int, reason: StopReason) -> Callable[[], StopReason | None]:
    """Ask to stop at the so many-th step, where every step asks."""
    asked = itertools.count(1)
    return lambda: reason if next(asked) == step else None


def contents(path: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in checkpoint.read(path)[0].items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_stopped_at_any_step_resumes_exactly(tmp_path: Path, name: str) -> None:
    config = SURVIVAL | CONFIGS[name] | {"batch_size": 40, "epochs": 3}
    whole = learn(passengers(), tmp_path / "whole", config)
    assert whole.started is not None
    for step in range(1, whole.started.steps + 1):
        scratch = tmp_path / str(step)
        first = learn(passengers(), scratch, config, stop_at(step, "handback"), poll_s=0.0)
        saved = first.saved[-1]
        assert saved.step == step
        rest = learn(passengers(), scratch, config, resume=saved.path, seq=saved.seq, attempt=2)
        assert first.curve[: saved.seq] + rest.curve == whole.curve
        assert contents(rest.saved[-1].path) == contents(whole.saved[-1].path)


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
