"""The tensors that an Open Inference Protocol answer has: what was predicted, by column."""

from collections.abc import Iterator
from typing import Any

from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.predict.predictor import Prediction
from service.datasets.names import free_name

#: datatype of a tensor of classes that are numbers
CLASS_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}

Tensor = dict[str, Any]


def tensors_of(features: Features, predictions: list[Prediction]) -> Iterator[Tensor]:
    """Give a tensor for each target, and one of all shares where there are classes."""
    goal = features.target
    if isinstance(goal, ClassTarget):
        datatype = CLASS_DATATYPES.get(goal.type, "BYTES")
        yield _tensor(goal.name, datatype, [row.value for row in predictions])
        shares = [
            (row.probabilities or {}).get(label) for row in predictions for label in goal.labels
        ]
        yield _tensor(shares_name(features), "FP64", shares, len(goal.labels))
    elif len(goal.names) == 1:
        yield _tensor(goal.names[0], "FP64", [row.value for row in predictions])
    else:
        for name in goal.names:
            values = [
                row.value.get(name) if isinstance(row.value, dict) else None for row in predictions
            ]
            yield _tensor(name, "FP64", values)


def errors_of(features: Features, predictions: list[Prediction]) -> Tensor:
    """Return the sentence of each row without an answer, and an empty text for the others."""
    sentences = [row.error.detail if row.error else "" for row in predictions]
    return _tensor(free_name("error", _targets(features)), "BYTES", sentences)


def shares_name(features: Features) -> str:
    """Return the name of the tensor of all shares."""
    return free_name("probabilities", _targets(features))


def _targets(features: Features) -> set[str]:
    return {output["name"] for output in features.target.signature()}


def _tensor(name: str, datatype: str, data: list[Any], width: int | None = None) -> Tensor:
    shape = [len(data)] if width is None else [len(data) // width, width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
