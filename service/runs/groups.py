"""Groups of runs that may train in one process, because they read one table in one way."""

import copy
import hashlib
import json
from typing import Any

#: fields in which the runs of a group may differ, beside the learning rate, the decay and dropout
FREE = ("seed", "split", "register_as", "name", "tags")


def group_of(config: dict[str, Any]) -> str:
    """Return the group of a complete configuration.

    Runs of one group differ in nothing but learning rate, weight decay, seed, dropout and rows
    (the split). The name is a digest of the rest of the configuration.
    """
    rest = copy.deepcopy({name: value for name, value in config.items() if name not in FREE})
    for name in ("learning_rate", "weight_decay"):
        rest["optimizer"].pop(name, None)
    rest["model"].pop("dropout", None)
    for layer in rest["model"].get("layers", ()):
        if isinstance(layer, dict) and "dropout" in layer:
            layer["dropout"] = None
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
