import tracemalloc

import numpy as np
import pytest

from descent.spec import Sgd
from models.data import Floats, Table
from models.features.encoding import Features
from models.nets.lines import (
    Line,
    describe_line,
    largest_learning_rate,
    least_squares,
    predict_line,
    squared_errors,
)
from tests.models.samples import PASSENGER_FEATURES, QUIZ, passengers, scores

SCORES = np.arange(13)


def fit(*, standardize: bool) -> Features:
    return Features.fit(
        scores(),
        SCORES,
        features=["Quiz"],
        targets=["Final"],
        task="regression",
        standardize=standardize,
    )


def products_of(x: Floats) -> Floats:
    design = np.column_stack([x, np.ones_like(x)])
    return design.T @ design


@pytest.mark.parametrize("standardize", [True, False])
def test_least_squares_of_the_scores(standardize: bool) -> None:  # noqa: FBT001  parametrised
    features = fit(standardize=standardize)
    line = least_squares(features, scores(), SCORES)
    assert line is not None
    described = describe_line(features, line)["Final"]
    assert described["weights"]["Quiz"] == pytest.approx(1.3119672661918047, rel=1e-12)
    assert described["bias"] == pytest.approx(0.6480448256267218, rel=1e-12)
    (sse,) = squared_errors(features, line, scores(), SCORES)
    assert sse == pytest.approx(241.7887861102668, rel=1e-12)


def test_the_errors_of_a_line_take_the_memory_of_a_few_rows_only() -> None:
    rows = 600_000
    random = np.random.default_rng(2)
    x, noise, weights = random.normal(size=rows), random.normal(size=rows), random.random(rows)
    table = Table({"x": "number", "y": "number"}, {"x": x, "y": 2 * x + 1 + noise}, rows=rows)
    chosen = np.arange(0, rows, 2)
    features = Features.fit(
        table, chosen, features=["x"], targets=["y"], task="regression", standardize=False
    )
    line, chosen_weights = Line(np.array([[2.0]]), np.array([1.0])), weights[chosen]
    tracemalloc.start()
    try:
        (sse,) = squared_errors(features, line, table, chosen, chosen_weights)
        sizes = [len(each) for each in predict_line(features, line, table, chosen)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sse == pytest.approx((noise[chosen] ** 2 * chosen_weights).sum(), rel=1e-9)
    assert sum(sizes) == len(chosen)
    assert peak < 8 * len(chosen)


def test_the_largest_learning_rate_of_the_scores() -> None:
    products, rows = products_of(np.array(QUIZ)), len(QUIZ)
    assert largest_learning_rate(products, rows, "mse", Sgd()) == pytest.approx(
        0.006554706614104333, rel=1e-12
    )
    assert largest_learning_rate(products, rows, "sse", Sgd()) == pytest.approx(
        0.0005042082010849488, rel=1e-12
    )
    assert largest_learning_rate(products, rows, "mae", Sgd()) is None


@pytest.mark.parametrize(
    "spec",
    [
        Sgd(),
        Sgd(momentum=0.9),
        Sgd(momentum=0.5, nesterov=True),
        Sgd(weight_decay=3.0),
    ],
    ids=str,
)
def test_gradient_descent_converges_just_below_the_largest_rate_only(spec: Sgd) -> None:
    x, y = np.array(QUIZ), scores().numbers("Final")
    design = np.column_stack([x, np.ones_like(x)])
    largest = largest_learning_rate(products_of(x), len(x), "mse", spec)
    assert largest is not None
    for share, converges in ((0.98, True), (1.02, False)):
        point, velocity = np.array([50.0, 50.0]), np.zeros(2)
        for _ in range(4_000):
            slope = 2 * design.T @ (design @ point - y) / len(y) + spec.weight_decay * point
            velocity = spec.momentum * velocity + slope
            step = slope + spec.momentum * velocity if spec.nesterov else velocity
            point = point - share * largest * step
            if not np.abs(point).max() < 1e9:
                break
        assert bool(np.abs(point).max() < 1e3) is converges


def test_columns_of_very_different_size_are_all_told() -> None:
    random = np.random.default_rng(1)
    tiny, huge = random.normal(size=50) * 1e-9, random.normal(size=50) * 1e9
    y = 2e9 * tiny + 3e-9 * huge + 1
    table = Table(
        {"tiny": "number", "huge": "number", "y": "number"},
        {"tiny": tiny, "huge": huge, "y": y},
        rows=50,
    )
    features = Features.fit(
        table,
        np.arange(50),
        features=["tiny", "huge"],
        targets=["y"],
        task="regression",
        standardize=False,
    )
    line = least_squares(features, table, np.arange(50))
    assert line is not None
    weights = describe_line(features, line)["y"]["weights"]
    assert weights == pytest.approx({"tiny": 2e9, "huge": 3e-9})


def test_a_lines_own_numbers_predict_what_the_encoded_line_does() -> None:
    table = passengers()
    rows = np.flatnonzero(table.present(PASSENGER_FEATURES))
    features = Features.fit(
        table,
        np.arange(table.rows),
        features=["Sex", "Age", "Alone"],
        targets=["Class"],
        task="regression",
        standardize=True,
    )
    line = least_squares(features, table, rows)
    assert line is not None
    described = describe_line(features, line)["Class"]
    by_hand = (
        described["bias"]
        + described["weights"]["Age"] * table.numbers("Age")[rows]
        + described["weights"]["Alone"] * table.numbers("Alone")[rows]
        + np.where(
            table.categories("Sex").codes[rows] == 0,
            described["weights"]["Sex=female"],
            described["weights"]["Sex=male"],
        )
    )
    x = features.encode(table, rows, dtype=np.float64)
    expected = features.decode(x @ line.weights.T + line.biases)[:, 0]
    np.testing.assert_allclose(by_hand, expected, rtol=1e-9)
