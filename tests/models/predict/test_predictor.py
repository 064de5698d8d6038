import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from models import checkpoint
from models.architectures import ModelSpec
from models.checkpoint import read
from models.errors import CheckpointCorrupt
from models.nets.graph import chain
from models.nets.module import build
from models.nets.numeric import compiled
from models.predict.predictor import Prediction, Predictor
from models.predict.values import RawValue
from tests.models.samples import LINE, QUIZ, SURVIVAL, learn, make_table, passengers, scores

MODELS: TypeAdapter[Any] = TypeAdapter(ModelSpec)
ADULT: dict[str, RawValue] = {
    "Sex": "female",
    "Age": 30.0,
    "Port": "S",
    "Alone": True,
    "Boarded": "2020-11-01T12:00:00Z",
    "Class": 1,
}


@pytest.fixture(scope="module")
def survival(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    config = SURVIVAL | {"epochs": 40, "split": {"type": "none"}}
    outcome = learn(passengers(), tmp_path_factory.mktemp("survival"), config)
    return Predictor.load(outcome.saved[-1].path)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    config = LINE | {"optimizer": {"type": "lbfgs"}, "batch_size": "full", "epochs": 20}
    outcome = learn(scores(), tmp_path_factory.mktemp("line"), config)
    return Predictor.load(outcome.saved[-1].path.read_bytes())


def ask(predictor: Predictor, **changes: RawValue) -> Prediction:
    row = ADULT | changes
    (prediction,) = predictor.predict({name: [value] for name, value in row.items()}, 1)
    return prediction


def codes(prediction: Prediction) -> list[tuple[str, str]]:
    return [(warning.column, warning.code) for warning in prediction.warnings]


def test_a_line_predicts_what_least_squares_says(line: Predictor) -> None:
    (prediction,) = line.predict({"Quiz": [10.0]}, 1)
    assert prediction.value == pytest.approx(1.31196727 * 10 + 0.64804483, abs=1e-3)
    assert prediction.to_json() == {"value": prediction.value}


def test_a_complete_row_has_no_warning(survival: Predictor) -> None:
    prediction = ask(survival)
    assert prediction.warnings == ()
    assert isinstance(prediction.value, bool)
    assert prediction.probabilities is not None
    assert list(prediction.probabilities) == ["false", "true"]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_row_with_missing_age_and_unknown_port_is_predicted_with_warnings(
    survival: Predictor,
) -> None:
    prediction = ask(survival, Age=None, Port="SS")
    assert prediction.value is not None
    assert codes(prediction) == [("Age", "missing"), ("Port", "unknown_category")]
    assert "'S'" in prediction.warnings[1].detail


def test_an_absent_column_is_missing_in_every_row(line: Predictor) -> None:
    predictions = line.predict({}, 3)
    assert [codes(prediction) for prediction in predictions] == [[("Quiz", "missing")]] * 3
    assert predictions[0].value == pytest.approx(np.mean(scores().numbers("Final")), abs=1e-3)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("12", "coerced"),
        (True, "coerced"),
        ("ten", "wrong_type"),
        ("1_0", "wrong_type"),
        ("nan", "non_finite"),
        ("-inf", "non_finite"),
        ("", "missing"),
        (1000, "out_of_range"),
        (10**400, "wrong_type"),
    ],
)
def test_an_odd_number_is_answered_with_its_warning(
    line: Predictor, value: RawValue, code: str
) -> None:
    odd, good = line.predict({"Quiz": [value, 10.0]}, 2)
    assert codes(odd)[0] == ("Quiz", code)
    assert odd.value is not None
    assert good.warnings == ()


@pytest.mark.parametrize("value", ["yes", "TRUE", 1, 0.0])
def test_a_boolean_is_read_from_what_means_one(survival: Predictor, value: RawValue) -> None:
    assert codes(ask(survival, Alone=value)) == [("Alone", "coerced")]


@pytest.mark.parametrize("value", ["maybe", 2, 0.5])
def test_other_values_are_no_boolean(survival: Predictor, value: RawValue) -> None:
    assert codes(ask(survival, Alone=value)) == [("Alone", "wrong_type")]


def test_datetimes_without_a_zone_are_utc(survival: Predictor) -> None:
    assert ask(survival, Boarded="2020-11-01 12:00").value == ask(survival).value
    assert ask(survival, Boarded="2020-11-01 12:00").warnings == ()
    assert codes(ask(survival, Boarded="yesterday")) == [("Boarded", "wrong_type")]
    assert codes(ask(survival, Boarded="1850-01-01")) == [("Boarded", "out_of_range")]


def test_text_as_in_csv_needs_no_warning(line: Predictor) -> None:
    text, number = (
        line.predict({"Quiz": [value]}, 1, from_text=isinstance(value, str))[0]
        for value in ("12.5", 12.5)
    )
    assert text == number


def test_a_column_that_the_model_does_not_know_is_ignored_with_a_warning(line: Predictor) -> None:
    first, second = line.predict({"Quiz": [9, 9], "Final": [1, None]}, 2)
    assert first.value == second.value
    assert codes(first) == [("Final", "unknown_column")]
    assert "what the model predicts" in first.warnings[0].detail
    assert second.warnings == ()


def test_on_request_a_problem_is_that_rows_error_alone(survival: Predictor) -> None:
    columns = {name: [value] * 4 for name, value in ADULT.items()}
    columns |= {"Port": ["S", "X", None, "S"], "Class": [1, 1, 1, None]}
    good, unknown, optional, required = survival.predict(columns, 4, on_problem="error")
    assert good.error is None
    assert unknown.error is not None
    assert (unknown.value, unknown.error.code) == (None, "unknown_category")
    # Training rows have missing ports too, so a missing one is no error.
    assert optional.value is not None
    assert required.error is not None
    assert (required.error.column, required.error.code) == ("Class", "missing")


@pytest.mark.parametrize(
    ("name", "value", "detail"),
    [
        ("Class", "first", "'first' is no integer"),
        ("Class", "inf", "'inf' is not finite"),
        ("Class", None, "no value"),
        ("Port", ["S"], "['S'] is no category"),
    ],
)
def test_a_row_in_error_does_not_say_that_anything_was_used_instead(
    survival: Predictor, name: str, value: RawValue, detail: str
) -> None:
    row = ADULT | {"Age": None, name: value}
    columns = {column: [cell] for column, cell in row.items()}
    (warned,) = survival.predict(columns, 1)
    assert all("; " in warning.detail for warning in warned.warnings)
    (refused,) = survival.predict(columns, 1, on_problem="error")
    assert refused.error is not None
    assert (refused.error.column, refused.error.detail) == (name, detail)
    assert [warning.detail for warning in refused.warnings] == ["no value"]


def test_an_output_that_is_not_finite_is_an_error_and_no_number(
    line: Predictor, tmp_path: Path
) -> None:
    tensors, document = read(learn(scores(), tmp_path, LINE | {"epochs": 1}).saved[-1].path)
    weight = np.array([[3e38]], dtype=np.float32)
    checkpoint.write(tmp_path / "steep", tensors | {"best.0.weight": weight}, document)
    bad, good = Predictor.load(tmp_path / "steep").predict({"Quiz": [1000.0, 10.0]}, 2)
    assert bad.value is None
    assert bad.error is not None
    assert bad.error.code == "non_finite"
    assert isinstance(good.value, float)


def test_a_finite_output_may_be_too_large_for_the_targets_units(
    line: Predictor, tmp_path: Path
) -> None:
    tensors, document = read(learn(scores(), tmp_path, LINE | {"epochs": 1}).saved[-1].path)
    document["features"]["target"] |= {"scale": [1e307]}
    checkpoint.write(tmp_path / "large", tensors, document)
    predictions = Predictor.load(tmp_path / "large").predict({"Quiz": [1e6, None]}, 2)
    assert [row.value is None for row in predictions] == [True, False]


@pytest.mark.parametrize("extreme", [1e300, -1e300, 1.7976931348623157e308, 10**300])
def test_an_extreme_number_is_clipped_with_a_warning(line: Predictor, extreme: float) -> None:
    (quiz,) = line.features.signature()["inputs"]
    limit = quiz["clip"]["max" if extreme > 0 else "min"]
    odd, edge = line.predict({"Quiz": [extreme, limit]}, 2)
    assert codes(odd) == [("Quiz", "out_of_range"), ("Quiz", "clipped")]
    assert odd.value == edge.value
    assert odd.warnings[1].detail.endswith(f"; {limit:g} is used")
    assert codes(edge) == [("Quiz", "out_of_range")]


def test_a_line_is_drawn_far_out_before_anything_is_clipped(line: Predictor) -> None:
    (far,) = line.predict({"Quiz": [10_000_000.0]}, 1)
    assert codes(far) == [("Quiz", "out_of_range")]
    assert far.value == pytest.approx(1.31196727e7, rel=1e-3)


def test_ten_thousand_rows_are_in_order(line: Predictor) -> None:
    quiz = np.linspace(2.5, 25.2, 10_000).tolist()
    values = [prediction.value for prediction in line.predict({"Quiz": quiz}, 10_000)]
    assert values == sorted(values, key=lambda value: value if isinstance(value, float) else 0)


def test_a_row_means_the_same_alone_and_among_others(survival: Predictor) -> None:
    alone = ask(survival, Age=None)
    columns = {name: [value] * 50 for name, value in ADULT.items()} | {"Age": [40] * 49 + [None]}
    among = survival.predict(columns, 50)[-1]
    assert among.probabilities == pytest.approx(alone.probabilities, rel=1e-6)
    assert codes(among) == codes(alone)


@pytest.mark.parametrize(
    "value", ["x" * 100_000, "\x00", "💥", -1e308, 2**63, "1e5000", [], [1], {}]
)
def test_no_value_breaks_the_predictor(survival: Predictor, value: RawValue) -> None:
    for column in ADULT:
        prediction = ask(survival, **{column: value})
        assert len(prediction.warnings) + (prediction.error is not None) >= 1
        assert all(len(warning.detail) < 300 for warning in prediction.warnings)


def test_several_targets_make_an_object(tmp_path: Path) -> None:
    table = make_table(
        {"x": "number", "a": "number", "b": "number"}, x=[1, 2, 3], a=[1, 2, 3], b=[3, 2, 1]
    )
    config = LINE | {"features": ["x"], "target": ["a", "b"], "epochs": 2}
    predictor = Predictor.load(learn(table, tmp_path, config).saved[-1].path)
    (prediction,) = predictor.predict({"x": [2]}, 1)
    assert isinstance(prediction.value, dict)
    assert list(prediction.value) == ["a", "b"]


def test_the_predictor_answers_what_training_evaluated(tmp_path: Path) -> None:
    table = passengers()
    outcome = learn(table, tmp_path, SURVIVAL | {"epochs": 10, "split": {"type": "none"}})
    predictor = Predictor.load(outcome.saved[-1].path)
    outputs = predictor.outputs(predictor.features.encode(table))
    hits = outputs.argmax(axis=1) == table.numbers("Survived")
    assert hits.mean() == pytest.approx(outcome.evaluation["train"]["accuracy"])


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu"])
def test_the_forward_pass_equals_pytorchs(activation: str) -> None:
    spec = MODELS.validate_python(
        {"type": "mlp", "hidden": [32, 16], "activation": activation, "dropout": 0.5}
    )
    net = build(spec, 5, 3, seed=1).eval()
    parameters = {name: value.numpy() for name, value in net.state_dict().items()}
    x = torch.randn(500, 5, generator=torch.Generator().manual_seed(1)) * 4
    with torch.no_grad():
        expected = net(x).numpy()
    outputs = compiled(spec.graph(5, 3), parameters).forward(x.numpy())
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_tensors_that_do_not_fit_the_net_are_refused(tmp_path: Path) -> None:
    path = learn(scores(), tmp_path, LINE | {"epochs": 1}).saved[-1].path
    tensors, document = read(path)
    damages: list[dict[str, Any]] = [
        {"net": document["net"] | {"inputs": 2}},
        {"net": chain(1, [{"linear": 7}]).to_json()},
        {"net": {"inputs": 1, "outputs": 7, "layers": [{"linear": 7}]}},
        {"net": {}},
        {"features": {}},
        {"features": {"inputs": [{"kind": "spell"}], "target": {}}},
    ]
    for damage in damages:
        checkpoint.write(tmp_path / "bad", tensors, document | damage)
        with pytest.raises(CheckpointCorrupt):
            Predictor.load(tmp_path / "bad")


def test_an_answer_is_strict_json(line: Predictor) -> None:
    values: Sequence[RawValue] = [*QUIZ, None, "x", 1e300, math.nan]
    for prediction in line.predict({"Quiz": values}, len(values)):
        assert prediction.error is not None or math.isfinite(float(str(prediction.value)))


def test_far_out_no_digit_is_lost_where_large_numbers_cancel(survival: Predictor) -> None:
    random = np.random.default_rng(0)
    near = random.normal(size=(40, survival.features.width)).astype(np.float32)
    far = near * np.float32(1e5)
    far[:, 0] += np.float32(17.3)
    weights = np.repeat([1.0, -1.0], 32)
    parameters = {"0.weight": weights[None].astype(np.float32), "0.bias": np.zeros(1, np.float32)}
    net = compiled(chain(64, [{"linear": 1}]), parameters)
    x = np.tile(random.normal(size=(30, 32)) * 1e6, 2).astype(np.float32)
    exact = x.astype(np.float64) @ weights
    assert np.abs(net.forward(x)[:, 0] - exact).max() > 1e-4
    assert np.abs(net.forward_precisely(x)[:, 0] - exact).max() < 1e-6
    # A predictor computes only the far rows precisely.
    outputs = survival.outputs_with_care(np.concatenate([near, far]))
    assert np.array_equal(outputs[40:], survival.model.forward_precisely(far))
    assert np.array_equal(outputs[:40], survival.model.forward(np.concatenate([near, far]))[:40])


def test_the_precise_forward_pass_equals_pytorchs_in_float64() -> None:
    for activation in ("relu", "sigmoid", "tanh", "gelu"):
        spec = MODELS.validate_python({"type": "mlp", "hidden": [32, 16], "activation": activation})
        net = build(spec, 5, 3, seed=1).eval()
        parameters = {name: value.numpy() for name, value in net.state_dict().items()}
        x = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) * 1e5
        stack = compiled(spec.graph(5, 3), parameters)
        with torch.no_grad():
            expected = net.double()(x.double()).numpy()
        np.testing.assert_allclose(
            stack.forward_precisely(x.numpy()), expected, rtol=3e-7, atol=1e-6, err_msg=activation
        )
