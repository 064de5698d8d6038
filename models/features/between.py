"""From one encoding of a table to another: what a member of several models needs.

The members of a cross-validation are fitted on rows of their own, so that each encodes a row in its
own way. One model of all of them encodes a row once. That encoding knows at least the categories,
the gaps and the phases of each member's, so a member's numbers follow from it by products and sums,
which a net absorbs. Knows NumPy only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.data import Floats
from models.features.encoding import Features
from models.features.inputs import Choice, Input, Moment, Numeric, phase_of
from models.features.targets import NumberTargets


@dataclass(frozen=True)
class Block:
    """The encoded numbers of one column: own = weight · whole + bias."""

    own: slice
    whole: slice
    #: float64 (own, whole) and (own,)
    weight: Floats
    bias: Floats


def widened(whole: Features, members: Sequence[Features]) -> Features:
    """Return `whole`, fitted on all rows, with each category that any member tells apart.

    A category may be among the most frequent ones of a member's rows only.
    """
    columns = zip(whole.inputs, *(each.inputs for each in members), strict=True)
    return replace(whole, inputs=tuple(_widened(column, own) for column, *own in columns))


def _widened(column: Input, members: Sequence[Input]) -> Input:
    if not isinstance(column, Choice) or not column.rare:
        return column
    more: Counter[str] = Counter()
    for each in members:
        if isinstance(each, Choice):
            for value, count in zip(each.categories, each.counts, strict=True):
                if value not in column.index:
                    more[value] = max(more[value], count)
    ranked = sorted(more.items(), key=lambda pair: (-pair[1], pair[0]))
    return replace(
        column,
        categories=(*column.categories, *(value for value, _ in ranked)),
        counts=(*column.counts, *(count for _, count in ranked)),
        rare=column.rare - sum(more.values()),
    )


def blocks(whole: Features, own: Features) -> Iterator[Block]:
    """Yield for each column how its own encoding follows from that of all rows.

    Both are of the same columns, and `own` was fitted on some of the rows of `whole`.
    """
    at = to = 0
    for column, member in zip(whole.inputs, own.inputs, strict=True):
        weight, bias = _block(column, member)
        before, after = slice(at, at + column.width), slice(to, to + member.width)
        yield Block(after, before, weight, bias)
        at, to = before.stop, after.stop


def output_scale(whole: Features, own: Features) -> tuple[Floats, Floats] | None:
    """Return factors and sums, (outputs,) each, from a member's outputs to those of all rows.

    None if both have the same scale.
    """
    target, member = whole.target, own.target
    if not isinstance(target, NumberTargets) or not isinstance(member, NumberTargets):
        return None
    if (target.center, target.scale) == (member.center, member.scale):
        return None
    scale = np.array(target.scale)
    shift = np.array(member.center) - np.array(target.center)
    return np.array(member.scale) / scale, shift / scale


def _block(column: Input, own: Input) -> tuple[Floats, Floats]:
    weight, bias = np.zeros((own.width, column.width)), np.zeros(own.width)
    if isinstance(column, Choice) and isinstance(own, Choice):
        _relate_choices(column, own, weight)
    elif isinstance(column, Numeric) and isinstance(own, Numeric):
        _relate_numbers(column, own, weight, bias)
    elif isinstance(column, Moment) and isinstance(own, Moment):
        _relate_numbers(column, own, weight, bias)
        for place, part in enumerate(own.parts):
            at, to = 1 + 2 * column.parts.index(part), 1 + 2 * place
            weight[to, at] = weight[to + 1, at + 1] = 1.0
            if column.missing:
                here, there = (phase_of(np.array([each.mean]), part) for each in (own, column))
                weight[to, -1] = (np.sin(here) - np.sin(there))[0]
                weight[to + 1, -1] = (np.cos(here) - np.cos(there))[0]
    else:
        raise TypeError(f"{column.name!r} is encoded as {column.kind} and as {own.kind}")
    return weight, bias


def _relate_numbers(
    column: Numeric | Moment, own: Numeric | Moment, weight: Floats, bias: Floats
) -> None:
    (center, scale), (own_center, own_scale) = column.scaling()[0], own.scaling()[0]
    weight[0, 0], bias[0] = scale / own_scale, (center - own_center) / own_scale
    if column.missing:
        # A gap becomes the mean of the member's rows, not that of all rows.
        weight[0, -1] = (own.mean - column.mean) / own_scale
        if own.missing:
            weight[-1, -1] = 1.0


def _relate_choices(column: Choice, own: Choice, weight: Floats) -> None:
    # A category that the member has never seen becomes what an unknown one becomes alone: `other`
    # where it learned that, else the average of its rows. So no weight is used that never learned.
    stand_in = own.stand_in()
    for at, value in enumerate(column.categories):
        to = own.index.get(value)
        weight[:, at] = stand_in if to is None else 0.0
        if to is not None:
            weight[to, at] = 1.0
    if column.has_other:
        weight[:, -1] = stand_in
