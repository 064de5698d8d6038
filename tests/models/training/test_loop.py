from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import checkpoint
from models.errors import Diverged
from tests.models.samples import (
    LINE,
    SURVIVAL,
    learn,
    make_table,
    passengers,
    scores,
)

#: plain gradient descent as in a course: full batch, unscaled columns
DESCENT: dict[str, Any] = LINE | {
    "optimizer": {"type": "sgd", "learning_rate": 0.006},
    "batch_size": "full",
    "standardize": False,
    "early_stopping": None,
}
#: An optimizer that leaves the parameters where they are, to the last bit of a float32.
STILL: dict[str, Any] = {"type": "sgd", "learning_rate": 1e-30}


def test_gradient_descent_reaches_the_closed_form(tmp_path: Path) -> None:
    outcome = learn(scores(), tmp_path, DESCENT | {"epochs": 5000})
    assert outcome.parameters["weights"]["Quiz"] == pytest.approx(1.31197, abs=1e-3)
    assert outcome.parameters["bias"] == pytest.approx(0.64804, abs=1e-2)
    assert outcome.parameters["sse"] == pytest.approx(241.7887861, rel=1e-4)
    assert outcome.parameters["closed_form"]["sse"] == pytest.approx(241.7887861, rel=1e-9)
    assert len(outcome.values("train")) == 5000
    assert outcome.values("train")[-1] == pytest.approx(241.7887861 / 13, rel=1e-4)


def test_a_learning_rate_that_is_too_small_barely_moves(tmp_path: Path) -> None:
    config = DESCENT | {"optimizer": {"type": "sgd", "learning_rate": 1e-9}, "epochs": 50}
    losses = learn(scores(), tmp_path, config).values("train")
    assert losses[-1] == pytest.approx(losses[0], rel=1e-3)


def test_a_learning_rate_that_is_too_large_diverges_with_its_whole_curve(tmp_path: Path) -> None:
    config = DESCENT | {"optimizer": {"type": "sgd", "learning_rate": 0.0067}, "epochs": 5000}
    outcome = learn(scores(), tmp_path, config)
    assert isinstance(outcome.error, Diverged)
    assert "0.0067" in outcome.error.detail
    losses = np.array(outcome.values("train"))
    assert np.isfinite(losses[:-1]).all()
    assert not np.isfinite(losses[-1])
    assert [row.seq for row in outcome.rows] == list(range(1, len(losses) + 1))


def test_the_learning_rate_that_a_diverged_run_names_converges(tmp_path: Path) -> None:
    config = DESCENT | {"optimizer": {"type": "sgd", "learning_rate": 0.0067}, "epochs": 5000}
    error = learn(scores(), tmp_path, config).error
    assert error is not None
    named = float(error.detail.rpartition(" is ")[2])
    assert named == 0.006554  # of at most 0.0065547066
    optimizer = {"type": "sgd", "learning_rate": named}
    losses = learn(scores(), tmp_path, config | {"optimizer": optimizer}).values("train")
    assert losses[-1] < losses[0]


def test_a_diverged_run_keeps_its_last_finite_parameters(tmp_path: Path) -> None:
    config = DESCENT | {"optimizer": {"type": "sgd", "learning_rate": 0.0067}, "epochs": 5000}
    saved = learn(scores(), tmp_path, config).saved[-1]
    tensors, _ = checkpoint.read(saved.path)
    assert not saved.resumable
    assert all(np.isfinite(tensors[name]).all() for name in tensors if name.startswith("net."))


def test_the_checkpoint_of_a_diverged_run_stands_where_its_parameters_are(tmp_path: Path) -> None:
    config = DESCENT | {
        "optimizer": {"type": "sgd", "learning_rate": 0.02},
        "epochs": 500,
        "batch_size": 5,
    }
    outcome = learn(scores(), tmp_path, config)
    saved = outcome.saved[-1]
    assert not saved.resumable
    last = [row for row in outcome.rows if np.isfinite(row.value)][-1]
    assert (saved.epoch, saved.metrics_epoch, saved.step) == (last.epoch, last.epoch, last.step)
    assert saved.metrics == {"train": {"loss": last.value}}


def test_a_checkpoint_names_the_epoch_that_its_metrics_are_of(tmp_path: Path) -> None:
    config = LINE | {"epochs": 60, "split": {"type": "random", "validation": 0.3}}
    outcome = learn(scores(), tmp_path, config)
    saved, best = outcome.saved[-1], outcome.metrics[-1].best
    assert best is not None
    assert (saved.epoch, saved.metrics_epoch) == (outcome.rows[-1].epoch, best.epoch)
    figures = {
        row.split: row.value
        for row in outcome.rows
        if (row.epoch, row.name) == (saved.metrics_epoch, "loss")
    }
    assert figures == {split: values["loss"] for split, values in saved.metrics.items()}


def test_the_sum_of_squares_is_reported_as_a_sum(tmp_path: Path) -> None:
    config = DESCENT | {
        "loss": "sse",
        "epochs": 3000,
        "optimizer": {"type": "sgd", "learning_rate": 0.0004},
    }
    losses = learn(scores(), tmp_path, config).values("train")
    assert losses[-1] == pytest.approx(241.7887861, rel=1e-3)


def test_the_largest_rate_of_the_sum_is_named(tmp_path: Path) -> None:
    config = DESCENT | {
        "loss": "sse",
        "epochs": 5000,
        "optimizer": {"type": "sgd", "learning_rate": 0.0006},
    }
    error = learn(scores(), tmp_path, config).error
    assert error is not None
    assert "0.0005042" in error.detail


def test_losses_are_in_the_targets_units_whether_scaled_or_not(tmp_path: Path) -> None:
    config = LINE | {"optimizer": {"type": "lbfgs"}, "epochs": 10, "batch_size": "full"}
    for loss, expected in (("mse", 18.5991), ("sse", 241.789)):
        for standardize in (True, False):
            outcome = learn(scores(), tmp_path, config | {"loss": loss, "standardize": standardize})
            assert outcome.values("train")[-1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["mae", "huber"])
def test_robust_losses_are_the_same_in_the_targets_units(tmp_path: Path, loss: str) -> None:
    config = LINE | {"loss": loss, "epochs": 400, "optimizer": {"learning_rate": 0.05}}
    scaled = learn(scores(), tmp_path, config).values("train")[-1]
    plain = learn(scores(), tmp_path, config | {"standardize": False}).values("train")[-1]
    assert plain == pytest.approx(scaled, rel=0.05)


@pytest.mark.parametrize("config", [LINE | {"epochs": 20, "batch_size": 4}, SURVIVAL])
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, config: dict[str, Any]) -> None:
    table = scores() if config["target"] == "Final" else passengers()
    first = learn(table, tmp_path / "a", config)
    again = learn(table, tmp_path / "b", config)
    assert first.curve == again.curve
    assert _tensors(first.saved[-1].path) == _tensors(again.saved[-1].path)


def test_another_seed_gives_another_curve(tmp_path: Path) -> None:
    first = learn(passengers(), tmp_path, SURVIVAL)
    other = learn(passengers(), tmp_path, SURVIVAL | {"seed": 1})
    assert first.curve != other.curve


def test_several_targets_are_learned_at_once(tmp_path: Path) -> None:
    x = np.linspace(-3, 3, 40)
    up, down = (2 * x + 1).tolist(), (5 - 30 * x).tolist()
    table = make_table(
        {"x": "number", "up": "number", "down": "number"}, x=x.tolist(), up=up, down=down
    )
    config = LINE | {
        "target": ["up", "down"],
        "features": ["x"],
        "optimizer": {"type": "lbfgs"},
        "batch_size": "full",
        "epochs": 10,
    }
    outcome = learn(table, tmp_path, config)
    assert outcome.parameters["up"]["weights"]["x"] == pytest.approx(2, abs=1e-3)
    assert outcome.parameters["down"]["bias"] == pytest.approx(5, abs=1e-3)
    assert set(outcome.evaluation["train"]["targets"]) == {"up", "down"}


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "rmsprop", "lbfgs"])
def test_every_optimizer_lowers_the_loss(tmp_path: Path, kind: str) -> None:
    config = SURVIVAL | {"optimizer": {"type": kind}, "batch_size": "full", "epochs": 30}
    losses = learn(passengers(), tmp_path, config).values("train")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["constant", "cosine", "one_cycle", "step", "plateau"])
def test_every_schedule_trains(tmp_path: Path, kind: str) -> None:
    config = SURVIVAL | {"schedule": {"type": kind, "warmup_epochs": 2}, "epochs": 8}
    losses = learn(passengers(), tmp_path, config).values("train")
    assert losses[-1] < losses[0]


def test_training_stops_where_validation_no_longer_improves(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 500, "early_stopping": {"patience": 3}}
    outcome = learn(passengers(), tmp_path, config | {"optimizer": {"learning_rate": 0.05}})
    losses = outcome.values("validation")
    assert outcome.finished is not None
    assert outcome.finished.reason == "early_stopping"
    assert len(losses) - 1 - int(np.argmin(losses)) == 3


def test_the_best_epoch_predicts(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 60, "early_stopping": None}
    outcome = learn(passengers(), tmp_path, config | {"optimizer": {"learning_rate": 0.05}})
    losses = outcome.values("validation")
    best = outcome.metrics[-1].best
    assert best is not None
    assert best.epoch == int(np.argmin(losses)) + 1
    assert best.value == min(losses)
    evaluated = outcome.evaluation["validation"]["cross_entropy"]
    assert evaluated == pytest.approx(best.value, rel=1e-5)
    assert outcome.saved[-1].metrics["validation"]["loss"] == best.value


def test_without_validation_rows_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    outcome = learn(scores(), tmp_path, LINE | {"epochs": 7})
    best = outcome.metrics[-1].best
    assert best is not None
    assert (best.epoch, best.split) == (7, "train")


def test_a_budget_ends_with_the_best_model(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 1_000_000, "early_stopping": None, "budget": {"time_s": 0.2}}
    outcome = learn(passengers(), tmp_path, config)
    assert outcome.finished is not None
    assert outcome.finished.reason == "budget"
    assert outcome.evaluation["test"]["accuracy"] > 0


def test_a_budget_that_ends_before_the_first_epoch_keeps_what_was_learned(tmp_path: Path) -> None:
    config = SURVIVAL | {"batch_size": 20, "budget": {"time_s": 1e-9}}
    outcome = learn(passengers(), tmp_path, config, poll_s=0.0)
    assert outcome.finished is not None
    assert outcome.finished.reason == "budget"
    assert outcome.evaluation["validation"]["cross_entropy"] > 0
    assert {row.split for row in outcome.rows} == {"test"}
    tensors, _ = checkpoint.read(outcome.saved[-1].path)
    untrained = learn(passengers(), tmp_path / "untrained", config | {"optimizer": STILL})
    before, _ = checkpoint.read(untrained.saved[-1].path)
    assert np.array_equal(tensors["best.0.weight"], tensors["net.0.weight"])
    assert not np.array_equal(tensors["best.0.weight"], before["best.0.weight"])


def test_a_budget_counts_the_time_of_earlier_attempts(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 100_000, "early_stopping": None, "budget": {"time_s": 1000.0}}
    first = learn(passengers(), tmp_path, config, lambda: "handback", poll_s=0.0)
    saved = first.saved[-1]
    again = learn(
        passengers(),
        tmp_path,
        config,
        resume=saved.path,
        seq=saved.seq,
        elapsed_s=999.9,
        attempt=2,
    )
    assert again.finished is not None
    assert again.finished.reason == "budget"
    assert again.saved[-1].is_best
    assert 1000.0 <= again.saved[-1].progress.elapsed_s < 1010.0


def test_a_long_epoch_gives_signs_of_life(tmp_path: Path) -> None:
    config = SURVIVAL | {"batch_size": 20, "epochs": 1}
    outcome = learn(passengers(), tmp_path, config, poll_s=0.0, sign_s=0.0)
    assert [sign.progress.step for sign in outcome.alive] == [1, 2, 3, 4]


def test_a_run_that_diverges_may_keep_its_best_epoch(tmp_path: Path) -> None:
    config = DESCENT | {
        "optimizer": {"type": "sgd", "learning_rate": 0.0067},
        "epochs": 5000,
        "on_divergence": "keep_best",
    }
    outcome = learn(scores(), tmp_path, config)
    assert (outcome.error, outcome.finished is not None) == (None, True)
    assert outcome.finished is not None
    assert outcome.finished.reason == "diverged"
    (warning,) = outcome.finished.warnings
    assert (warning["code"], "0.0067" in warning["detail"]) == ("diverged", True)
    losses = np.array(outcome.values("train"))
    assert np.isfinite(losses[:-1]).all()
    assert not np.isfinite(losses[-1])
    best = outcome.metrics[-1].best
    assert best is not None
    assert best.epoch == len(losses) - 1
    saved = outcome.saved[-1]
    assert (saved.is_best, saved.resumable) == (True, False)
    assert np.isfinite(outcome.parameters["weights"]["Quiz"])
    assert np.isfinite(outcome.evaluation["train"]["mse"])


def test_what_is_kept_is_the_best_epoch_by_validation_loss(tmp_path: Path) -> None:
    config = DESCENT | {
        "optimizer": {"type": "sgd", "learning_rate": 0.0067},
        "split": {"type": "random", "validation": 0.3},
        "epochs": 5000,
        "on_divergence": "keep_best",
    }
    outcome = learn(scores(), tmp_path, config)
    losses = np.array(outcome.values("validation"))
    best = outcome.metrics[-1].best
    assert best is not None
    assert best.epoch == int(np.nanargmin(losses)) + 1 < len(losses) - 1
    saved = outcome.saved[-1]
    assert (saved.metrics_epoch, saved.epoch) == (best.epoch, best.epoch)
    assert outcome.evaluation["validation"]["mse"] == pytest.approx(best.value, rel=1e-5)


def test_a_run_that_diverges_in_its_first_epoch_has_nothing_to_keep(tmp_path: Path) -> None:
    config = DESCENT | {
        "optimizer": {"type": "sgd", "learning_rate": 1e6},
        "batch_size": 1,
        "on_divergence": "keep_best",
    }
    outcome = learn(scores(), tmp_path, config)
    assert isinstance(outcome.error, Diverged)


def test_test_rows_are_measured_at_the_end(tmp_path: Path) -> None:
    outcome = learn(passengers(), tmp_path, SURVIVAL)
    names = {row.name for row in outcome.rows if row.split == "test"}
    assert {"accuracy", "cross_entropy", "auc"} <= names
    assert [row.seq for row in outcome.rows] == list(range(1, len(outcome.rows) + 1))
    assert outcome.saved[-1].seq == min(row.seq for row in outcome.rows if row.split == "test") - 1


def test_the_evaluation_has_a_baseline_to_beat(tmp_path: Path) -> None:
    outcome = learn(scores(), tmp_path, DESCENT | {"epochs": 3000})
    baseline = outcome.evaluation["baseline"]
    assert baseline["split"] == "train"
    assert baseline["linear"]["sse"] < outcome.evaluation["train"]["sse"]
    assert outcome.evaluation["train"]["sse"] < baseline["constant"]["sse"]


def test_the_start_tells_rows_steps_and_parameters(tmp_path: Path) -> None:
    config = SURVIVAL | {"batch_size": 50, "features": ["Class"]}
    started = learn(passengers(), tmp_path, config).started
    assert started is not None
    assert started.rows == {"train": 72, "validation": 24, "test": 24}
    assert (started.epochs, started.steps) == (3, 6)
    assert started.parameters == 8 * (1 + 1) + 2 * (8 + 1)


def test_rows_without_a_target_are_left_out_with_a_warning(tmp_path: Path) -> None:
    table = make_table(
        {"Quiz": "number", "Final": "number"}, Quiz=[1, 2, 3, 4], Final=[1, None, 3, 5]
    )
    started = learn(table, tmp_path, LINE | {"epochs": 2}).started
    assert started is not None
    assert started.rows["train"] == 3
    assert "1 of 4 rows" in started.warnings[0]["detail"]


def test_a_class_of_one_row_trains_and_is_not_held_out(tmp_path: Path) -> None:
    table = make_table(
        {"x": "number", "y": "category"}, x=list(range(10)), y=["a"] * 5 + ["b"] * 4 + ["c"]
    )
    config = SURVIVAL | {"target": "y", "features": ["x"], "task": "multiclass"}
    finished = learn(table, tmp_path, config).finished
    assert finished is not None
    assert finished.evaluation is not None
    assert finished.evaluation["train"]["classes"]["c"]["support"] == 1
    assert finished.evaluation["validation"]["classes"]["c"]["support"] == 0


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = learn(scores(), tmp_path, LINE | {"device": "cuda:99"}).error
    assert error is not None
    assert "cuda:99" in error.detail


def test_a_long_run_saves_on_its_way(tmp_path: Path) -> None:
    config = SURVIVAL | {"epochs": 40, "early_stopping": None}
    outcome = learn(passengers(), tmp_path, config, poll_s=0.0, checkpoint_s=0.0)
    assert len(outcome.saved) > 40
    assert [saved.is_best for saved in outcome.saved].count(True) == 1
    assert len({saved.path for saved in outcome.saved}) == len(outcome.saved)


def _tensors(path: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in checkpoint.read(path)[0].items()}


def test_a_run_that_diverges_within_an_epoch_never_saves_what_is_no_number(tmp_path: Path) -> None:
    config = SURVIVAL | {
        "task": "regression",
        "loss": "mse",
        "target": "Age",
        "features": ["Class"],
        "standardize": False,
        "optimizer": {"type": "sgd", "learning_rate": 1e3},
        "batch_size": 1,
    }
    outcome = learn(passengers(), tmp_path, config, poll_s=0.0, checkpoint_s=0.0)
    assert isinstance(outcome.error, Diverged)
    assert not np.isfinite(outcome.values("train")[-1])
    for saved in outcome.saved:
        tensors, _ = checkpoint.read(saved.path)
        assert all(np.isfinite(tensors[name]).all() for name in tensors if name.startswith("net."))
