"""Groups of runs that may train in one process, because they read one table in one way."""

import copy
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from descent.spec import RunConfig
from models.training.cost import DRAWN, Size, count_together, expected_net, rows_with, size_of

#: fields in which the runs of a group may differ, beside the learning rate, the decay and dropout
FREE = ("seed", "split", "register_as", "name", "tags")


def group_of(config: dict[str, Any]) -> str | None:
    """Return the group of a complete configuration; None if it trains alone in its process.

    Runs of one group differ in nothing but learning rate, weight decay, seed, dropout and rows
    (the split). The name is a digest of the rest of the configuration. A cross-validation trains
    alone, as its members already share a process and its processors.
    """
    if config["split"]["type"] == "kfold":
        return None
    rest = copy.deepcopy({name: value for name, value in config.items() if name not in FREE})
    for name in ("learning_rate", "weight_decay"):
        rest["optimizer"].pop(name, None)
    rest["model"].pop("dropout", None)
    for layer in rest["model"].get("layers", ()):
        if isinstance(layer, dict) and "dropout" in layer:
            layer["dropout"] = None
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def count_fitting(
    configs: Sequence[dict[str, Any]],
    columns: Sequence[dict[str, Any]],
    rows: int,
    memory_bytes: int | None,
) -> int:
    """Return how many runs of a group, from the first on, one process has memory for, at least 1.

    The table has these columns and rows. `memory_bytes` is what a training process may take; None:
    as much as is free.
    """
    sizes: dict[str, Size] = {}
    members: list[tuple[Size, tuple[str, int | None]]] = []
    for config in configs:
        # Members differ in their splits and seeds; all else that decides their data is equal.
        split = json.dumps(config["split"], sort_keys=True)
        if split not in sizes:
            sizes[split] = _size(RunConfig.model_validate(config), columns, rows)
        is_drawn = config["split"]["type"] in DRAWN
        members.append((sizes[split], (split, config["seed"] if is_drawn else None)))
    return count_together(members, memory_bytes)


def _size(config: RunConfig, columns: Sequence[dict[str, Any]], rows: int) -> Size:
    """Return the size of the training of a complete configuration."""
    by_name = {column["name"]: column for column in columns}
    targets = [by_name[name] for name in config.targets]
    net = expected_net(config, [by_name[name] for name in config.features or []], targets)
    return size_of(config, rows_with(targets, rows), net)
