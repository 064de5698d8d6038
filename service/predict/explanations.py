"""What each column contributed to the predictions of a request, where it is asked for."""

import math
from collections.abc import Sequence
from typing import Any

from models.features.targets import ClassTarget
from models.predict.explain import Explanation, explain, most_rows
from models.predict.predictor import Predictor
from models.predict.values import Problems
from service.errors import Invalid
from service.predict import bodies
from service.predict.answers import Answer


class ExplanationTooLarge(Invalid):
    """So many rows cannot be explained in one request."""

    code = "explanation_too_large"


def check(predictor: Predictor, rows: int) -> None:
    """Raise ExplanationTooLarge where it would take too long."""
    most = most_rows(predictor.features, predictor.stack)
    if rows > most:
        raise ExplanationTooLarge(
            f"At most {most} rows of this model can be explained in a request, got {rows}: "
            "send them in parts, or without explain=true."
        )


def add(found: Sequence[Answer], predictor: Predictor, rows: bodies.Rows) -> None:
    """Give each answer that has a value its `explanation`."""
    features = predictor.features
    # What is odd about the values is told with the predictions.
    table = predictor.read(rows.columns, rows.count, Problems(), from_text=rows.is_text)
    explained = explain(features, predictor.stack, table)
    several = not isinstance(features.target, ClassTarget) and features.outputs > 1
    for answer, by_goal in zip(found, explained, strict=True):
        if answer["value"] is None or not all(map(_is_finite, by_goal.values())):
            continue
        told: dict[str, Any] = {goal: each.to_json() for goal, each in by_goal.items()}
        answer["explanation"] = told if several else next(iter(told.values()))


def _is_finite(explanation: Explanation) -> bool:
    return math.isfinite(explanation.base + sum(explanation.contributions.values()))
