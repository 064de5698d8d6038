"""Draws of a space, and the errors of its paths and values."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descent.schemas import SweepRequest
from descent.spec import DatasetRef, RunConfig
from service.errors import Invalid
from service.runs.groups import group_of
from service.sweeps import space
from service.sweeps.messages import EndedTrial, SuggestJob
from service.sweeps.plan import make_sweep_plan
from service.sweeps.suggest import suggest
from tests.service.rows import COLUMNS

BASE = {"dataset": {"id": "ds_1", "version": 1}, "target": "Final"}
SPACE: dict[str, dict[str, Any]] = {
    "optimizer.learning_rate": {"log_uniform": [1e-4, 0.1]},
    "optimizer.weight_decay": {"uniform": [0.0, 0.1]},
    "seed": {"int": [3, 7]},
    "model.hidden": {"choice": [[8], [16, 16]]},
}
seeds, trials = st.integers(0, 2**32 - 1), st.integers(1, 1000)


def plan(space: dict[str, Any], **asked: Any) -> Any:
    base = {"dataset": "ds_1", "target": "Final"} | asked.pop("base", {})
    request = SweepRequest.model_validate({"base": base, "space": space} | asked)
    return make_sweep_plan(request, DatasetRef(id="ds_1", version=1), COLUMNS, 100)


def refusal(space: dict[str, Any], **asked: Any) -> dict[str, Any]:
    with pytest.raises(Invalid) as caught:
        plan(space, **asked)
    return caught.value.errors[0]


@given(seed=seeds, trial=trials)
def test_a_draw_lies_within_its_bounds(seed: int, trial: int) -> None:
    found = space.draw(SPACE, seed, trial)
    assert 1e-4 <= found["optimizer.learning_rate"] <= 0.1
    assert 0 <= found["optimizer.weight_decay"] <= 0.1
    assert found["seed"] in {3, 4, 5, 6, 7}
    assert found["model.hidden"] in ([8], [16, 16])


@given(seed=seeds, trial=trials)
def test_a_further_field_changes_no_other_draw(seed: int, trial: int) -> None:
    more = SPACE | {"batch_size": {"choice": [8, 16]}}
    found = space.draw(more, seed, trial)
    del found["batch_size"]
    assert found == space.draw(SPACE, seed, trial)


def test_every_value_of_a_range_is_drawn() -> None:
    drawn = {space.draw({"seed": {"int": [3, 7]}}, 0, trial)["seed"] for trial in range(100)}
    assert drawn == {3, 4, 5, 6, 7}


def test_logarithms_are_drawn_evenly() -> None:
    rates = {"optimizer.learning_rate": {"log_uniform": [1e-4, 1.0]}}
    drawn = [space.draw(rates, 1, trial)["optimizer.learning_rate"] for trial in range(1000)]
    assert 450 < sum(value < 1e-2 for value in drawn) < 550


def test_a_space_changes_fields_that_a_preset_chose() -> None:
    varied = {"model.dropout": {"grid": [0.0, 0.3]}, "epochs": {"grid": [5]}}
    found = plan(varied, base={"preset": "fast"})
    for member, dropout in zip(found.members, (0.0, 0.3), strict=True):
        config = member.config
        assert (config["model"]["dropout"], config["model"]["hidden"]) == (dropout, [128, 128])
        assert (config["epochs"], config["optimizer"]["type"]) == (5, "adamw")
        assert config["preset"] == "fast"


def test_a_grid_is_every_combination_in_order() -> None:
    found = plan({"seed": {"grid": [1, 2]}, "batch_size": {"grid": [8, 16, 32]}})
    assert found.trials == 6
    assert [member.parameters for member in found.members][:4] == [
        {"seed": 1, "batch_size": 8},
        {"seed": 1, "batch_size": 16},
        {"seed": 1, "batch_size": 32},
        {"seed": 2, "batch_size": 8},
    ]


def test_parameters_become_the_configuration_of_the_run() -> None:
    config = space.configured(BASE, {"optimizer.type": "sgd", "optimizer.momentum": 0.9})
    assert config == RunConfig.model_validate(
        BASE | {"optimizer": {"type": "sgd", "momentum": 0.9}}
    )


@pytest.mark.parametrize(
    ("dimensions", "pointer", "code"),
    [
        ({"optimizer.rate": {"grid": [0.1]}}, "/space/optimizer.rate", "unknown_field"),
        ({"epoch": {"grid": [5]}}, "/space/epoch", "unknown_field"),
        (
            {"optimizer.learning_rate": {"grid": [0.1, -1]}},
            "/space/optimizer.learning_rate",
            "out_of_range",
        ),
        (
            {"optimizer.learning_rate": {"uniform": [0, 1]}},
            "/space/optimizer.learning_rate",
            "out_of_range",
        ),
        ({"batch_size": {"log_uniform": [1, 64.5]}}, "/space/batch_size", "wrong_type"),
        ({"model.hidden": {"choice": [[8], 8]}}, "/space/model.hidden", "wrong_type"),
        ({"dataset": {"grid": ["ds_2"]}}, "/space/dataset", "not_allowed"),
        ({"name.x": {"grid": [1]}}, "/space/name.x", "not_allowed"),
        ({"lr_range.max": {"grid": [1]}}, "/space/lr_range.max", "not_allowed"),
        ({"batch_size.x": {"grid": [1]}}, "/space/batch_size.x", "invalid_value"),
        ({"features": {"grid": [["Quizz"]]}}, "/space/features", "unknown_column"),
    ],
)
def test_an_error_of_the_space_points_to_its_field(
    dimensions: dict[str, Any], pointer: str, code: str
) -> None:
    base = {"batch_size": 32}
    item = refusal(dimensions, base=base)
    assert (item["pointer"], item["code"]) == (pointer, code)


def test_values_that_do_not_fit_together_are_named() -> None:
    item = refusal({"split.validation": {"grid": [0.5]}, "split.test": {"grid": [0.2, 0.6]}})
    assert item["pointer"] == "/space/split.validation"
    assert "split.test = 0.6" in item["detail"]


def test_an_error_of_the_base_points_into_the_base() -> None:
    assert refusal({"seed": {"grid": [1]}}, base={"target": "final"})["pointer"] == "/base/target"


def test_members_that_could_each_register_a_version_are_refused() -> None:
    item = refusal({"seed": {"grid": [1]}}, base={"register_as": "scores"})
    assert item["pointer"] == "/base/register_as"
    assert "register_best_as" in item["detail"]


def test_members_that_would_test_learning_rates_are_refused() -> None:
    item = refusal({"seed": {"grid": [1]}}, base={"lr_range": {}})
    assert (item["pointer"], item["code"]) == ("/base/lr_range", "not_allowed")
    assert "POST /runs/lr_range" in item["detail"]


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"metric": {"name": "accuracy"}}, "/metric/name"),
        ({"metric": {"split": "test", "name": "mae"}}, "/metric/split"),
        ({"metric": {"split": "train"}}, "/metric/split"),
        ({"strategy": "halving", "metric": {"name": "mae"}}, "/metric/name"),
        ({"strategy": "halving", "trials": 2}, "/strategy"),
        ({"strategy": "halving", "budget": {"time_s": 5}}, "/budget/time_s"),
        ({"strategy": "grid"}, "/space/seed"),
        ({"budget": {"epochs": 199}}, "/budget/epochs"),
    ],
)
def test_what_cannot_be_compared_or_paid_is_refused(asked: dict[str, Any], pointer: str) -> None:
    assert refusal({"seed": {"int": [0, 9]}}, **asked)["pointer"] == pointer


def test_a_grid_of_too_many_combinations_is_refused() -> None:
    values = {"grid": list(range(1, 41))}
    item = refusal({"seed": values, "batch_size": values})
    assert "1,600 combinations" in item["detail"]


def test_the_metric_is_the_validation_loss_unless_no_row_is_held_out() -> None:
    seed = {"seed": {"grid": [1]}}
    assert plan(seed).metric == {"name": "loss", "split": "validation", "direction": "min"}
    whole = plan(seed, base={"split": {"type": "none"}})
    assert whole.metric == {"name": "loss", "split": "train", "direction": "min"}
    assert [warning["code"] for warning in whole.warnings] == ["metric_of_training_rows"]
    assert plan(seed, metric={"name": "r2"}).metric["direction"] == "max"


def test_a_halving_triples_the_epochs_of_a_third_of_its_trials() -> None:
    found = plan({"seed": {"int": [0, 9]}}, strategy="halving", trials=27, base={"epochs": 81})
    assert found.rungs == [3, 9, 27]
    assert [space.kept(27, 3, rung) for rung in range(4)] == [27, 9, 3, 1]


def test_a_budget_of_epochs_limits_the_trials() -> None:
    found = plan({"seed": {"int": [0, 9]}}, budget={"epochs": 750}, base={"epochs": 100})
    assert (found.trials, len(found.members)) == (7, 7)
    assert [warning["code"] for warning in found.warnings] == ["fewer_trials"]


def test_a_sweep_compares_cross_validations_by_their_out_of_fold_loss() -> None:
    found = plan({"seed": {"int": [0, 9]}}, base={"split": {"type": "kfold", "folds": 3}})
    assert found.metric == {"name": "loss", "split": "validation", "direction": "min"}
    with pytest.raises(Invalid, match="no test rows"):
        plan(
            {"seed": {"int": [0, 9]}},
            base={"split": {"type": "kfold"}},
            metric={"name": "rmse", "split": "test"},
        )


def test_a_cross_validation_trains_alone_in_its_process() -> None:
    assert group(split={"type": "kfold", "folds": 3}) is None


def group(**changes: Any) -> str | None:
    config = RunConfig.model_validate(BASE | {"features": ["Quiz"]} | changes)
    return group_of(config.model_dump(mode="json"))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"learning_rate": 0.5, "weight_decay": 0.1}},
        {"seed": 9},
        {"model": {"dropout": 0.5}},
        {"split": {"type": "random", "validation": 0.3}},
        {"name": "other", "tags": {"a": "b"}},
    ],
)
def test_runs_that_may_train_together_are_of_one_group(changes: dict[str, Any]) -> None:
    assert group(**changes) == group()


@pytest.mark.parametrize(
    "changes",
    [{"model": {"hidden": [8]}}, {"batch_size": 8}, {"epochs": 3}, {"optimizer": {"type": "sgd"}}],
)
def test_runs_of_other_shapes_are_of_other_groups(changes: dict[str, Any]) -> None:
    assert group(**changes) != group()


def suggested(count: int = 3) -> list[dict[str, Any]]:
    past = [space.draw(SPACE, 5, trial) for trial in range(1, 13)]
    told = [EndedTrial(parameters=each, value=each["optimizer.learning_rate"]) for each in past]
    told[3] = EndedTrial(parameters=past[3], value=None)
    job = SuggestJob(
        run_id="suggest_1",
        attempt=1,
        base=BASE,
        columns=COLUMNS,
        rows=100,
        space=SPACE,
        direction="min",
        seed=5,
        trials=told,
        count=count,
    )
    return suggest(job)


def test_a_sampler_suggests_the_same_trials_again() -> None:
    assert suggested() == suggested()


def test_a_sampler_suggests_valid_trials_near_the_best() -> None:
    found = suggested(20)
    for parameters in found:
        space.configured(BASE, parameters)
    assert sorted(each["optimizer.learning_rate"] for each in found)[10] < 1e-3
