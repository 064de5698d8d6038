"""Presets: the fields of a run that make a good model by default, by the count of rows.

Knows no arrays. A configuration names a preset, and `RunConfig.completed` adds its fields.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

PresetName = Literal["fast", "balanced"]
#: the fields that every preset chooses
CHOSEN = ("model", "optimizer", "schedule", "epochs", "batch_size", "early_stopping")
#: The rows of a batch by the rows with a target.
BATCHES = ((500, 32), (2_000, 64), (4_000, 128))
MOST_BATCH = 256
#: Tables with fewer rows get the narrower net.
NARROW = 2_000
#: The steps of a training, as far as its epochs are within the limits.
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 3_000, 30, 100
#: The share of the rows that a run without a split of its own trains on.
TRAINING = 0.8
#: The share of the epochs in which the learning rate rises.
WARMUP = 0.03


def fields_of(preset: str, rows: int) -> dict[str, Any]:
    """Return the fields that a preset chooses, as JSON; `rows` is the count with a target."""
    return _PRESETS[preset](rows)


def _fast(rows: int) -> dict[str, Any]:
    """One network that reads codes of numbers, with a learning rate that falls slowly.

    It trains until its last epoch; its best epoch on the validation rows is the model.
    """
    batch = next((size for most, size in BATCHES if rows < most), MOST_BATCH)
    width = 128 if rows < NARROW else 256
    epochs = round(STEPS / math.ceil(rows * TRAINING / batch))
    epochs = min(max(epochs, LEAST_EPOCHS), MOST_EPOCHS)
    return {
        "model": {
            "type": "mlp",
            "hidden": [width, width],
            "dropout": 0.1,
            "embedding": {"type": "piecewise_linear", "bins": 16, "size": 8},
        },
        "optimizer": {"type": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
        "schedule": {"type": "cosine", "warmup_epochs": math.ceil(WARMUP * epochs)},
        "epochs": epochs,
        "batch_size": batch,
        "early_stopping": None,
    }


def _balanced(rows: int) -> dict[str, Any]:
    """The network of `fast` once for each fold of a cross-validation: their mean is the model."""
    return _fast(rows) | {"split": {"type": "kfold"}}


_PRESETS: dict[str, Callable[[int], dict[str, Any]]] = {"fast": _fast, "balanced": _balanced}
