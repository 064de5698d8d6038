"""The space of a sweep: its values, the draws of each trial, and the configurations they make.

A draw is a pure function of the seed of the sweep, the number of the trial and the field, so that
it can be repeated, and a further field changes no draw of the others.
"""

import copy
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from descent.schemas.sweeps import MAX_TRIALS
from descent.spec import RunConfig
from service.errors import Invalid, field_error, invalid_at
from service.http.validation import to_error

DIGITS = 6  # significant digits of a drawn number
#: fields in which members cannot differ, with the reason
FIXED = {
    "dataset": "all members use one dataset",
    "target": "all members predict one target",
    "task": "all members have one task",
    "name": "members are named after the sweep",
    "tags": "give the sweep tags",
    "register_as": "give register_best_as",
    "device": "workers choose the device",
    "budget": "give the sweep a budget",
    "lr_range": "a test of learning rates makes no model",
}

#: the path of a field → its dimension, `{kind: values}`
Space = Mapping[str, Mapping[str, Any]]
Parameters = dict[str, Any]


# ---- draws --------------------------------------------------------------------------------------


def kept(trials: int, factor: int, rung: int) -> int:
    """Return how many trials of a halving train for a rung, counted from 0."""
    return max(1, trials // int(factor**rung))


def values_of(dimension: Mapping[str, Any]) -> list[Any] | None:
    """Return the values of a dimension if they are listed, else None."""
    found: list[Any] | None = dimension.get("grid", dimension.get("choice"))
    return found


def draw(space: Space, seed: int, trial: int) -> Parameters:
    """Return the random parameters of a trial."""
    return {path: _at(space[path], _share(seed, trial, path)) for path in space}


def _share(seed: int, trial: int, path: str) -> float:
    """Return a number in [0, 1) with 53 random bits."""
    digest = hashlib.sha256(f"{seed}:{trial}:{path}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53


def _at(dimension: Mapping[str, Any], share: float) -> object:
    """Return the value at a share of the way through a dimension."""
    if (values := values_of(dimension)) is not None:
        return values[int(share * len(values))]
    if "int" in dimension:
        low, high = dimension["int"]
        return low + int(share * (high - low + 1))
    if "uniform" in dimension:
        low, high = dimension["uniform"]
        return rounded(low + share * (high - low), low, high)
    low, high = dimension["log_uniform"]
    return rounded(low * math.pow(high / low, share), low, high)


def rounded(value: float, low: float, high: float) -> float:
    """Return a drawn number with few digits, within its bounds."""
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


def combinations(space: Space) -> list[Parameters]:
    """Return every combination of listed values; the last field varies fastest.

    Raises Invalid if a field has no list, or if there are too many combinations.
    """
    lists = []
    for path, dimension in space.items():
        values = values_of(dimension)
        if values is None:
            raise invalid_at(
                pointer_of(path),
                "invalid_value",
                f"A grid search needs a list of values, but {path} is {next(iter(dimension))}:"
                " give it a grid, or choose the strategy random.",
            )
        lists.append(values)
    count = math.prod(map(len, lists))
    if count > MAX_TRIALS:
        raise invalid_at(
            "/space",
            "out_of_range",
            f"The grid has {count:,} combinations, more than {MAX_TRIALS:,} trials: list fewer"
            " values, or choose the strategy random.",
        )
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*lists)]


# ---- configurations -----------------------------------------------------------------------------


def configured(base: dict[str, Any], parameters: Parameters) -> RunConfig:
    """Return the configuration of a member. Raises Invalid that points to the field of the space.

    `base` holds the fields that the request gave: all others get the defaults of their type, which
    the space may choose.
    """
    config = copy.deepcopy(base)
    for path in sorted(parameters, key=lambda path: path.count(".")):
        _put(config, path, parameters[path])
    try:
        return RunConfig.model_validate(config)
    except ValidationError as error:
        raise blame(to_error(_in_body(error), config), parameters) from error


def _in_body(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False)
    return [{**each, "loc": ("body", *each["loc"])} for each in found]


def _put(config: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    place = config
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise invalid_at(
                pointer_of(path),
                "invalid_value",
                f"{path}: {parent} is {inner!r} in the base, which has no fields: give {parent} as"
                " a whole in the space.",
            )
        place = inner
    place[last] = copy.deepcopy(value)


def blame(error: Invalid, parameters: Parameters) -> Invalid:
    """Return the error of a configuration with pointers into the request of the sweep.

    A pointer leads to the field of the space that set the value, else into the base.
    """
    items = error.errors or [field_error("", error.code, error.detail)]
    found = [_blamed(item, parameters) for item in items]
    return Invalid(found[0]["detail"], code=error.code, errors=found)


def _blamed(item: dict[str, Any], parameters: Parameters) -> dict[str, Any]:
    pointer = item["pointer"]
    path = pointer.strip("/").replace("/", ".")
    near = [key for key in parameters if _meets(key, path)]
    if not near:
        return item | {"pointer": f"/base{pointer}"}
    setting = ", ".join(f"{key} = {parameters[key]!r}" for key in near)
    return item | {
        "pointer": pointer_of(near[0]),
        "detail": f"With {setting}: {item['detail']}",
    }


def _meets(one: str, other: str) -> bool:
    """Return whether one path leads to the other or past it."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def pointer_of(path: str) -> str:
    return "/space/" + path.replace("~", "~0").replace("/", "~1")


# ---- checks -------------------------------------------------------------------------------------


def check(base: dict[str, Any], space: Space) -> None:
    """Check each path and each listed value or bound alone. Raises Invalid."""
    first = {path: next(_extremes(space[path])) for path in space}
    for path in space:
        root = path.partition(".")[0]
        if root in FIXED:
            raise invalid_at(
                pointer_of(path),
                "not_allowed",
                f"{path} cannot be part of the space, because {FIXED[root]}.",
            )
        if root not in RunConfig.model_fields:
            raise invalid_at(
                pointer_of(path),
                "unknown_field",
                f"{path} is not a known field of a run: its fields are"
                f" {', '.join(name for name in RunConfig.model_fields if name not in FIXED)}.",
            )
    for path in space:
        for value in _extremes(space[path]):
            configured(base, first | {path: value})


def _extremes(dimension: Mapping[str, Any]) -> Iterator[Any]:
    yield from next(iter(dimension.values()))
