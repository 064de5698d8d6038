"""What there is to say of the rows of one answer: each problem once, with the rows that have it."""

from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Any, TypeVar

from descent.codes import make_warning

MAX_TOLD = 50  # different problems of one answer; each names all its rows

Problem = TypeVar("Problem", bound=Hashable)
Remarks = list[dict[str, Any]]


def remarks(
    problems: Sequence[Sequence[Problem]], tell: Callable[[Problem], dict[str, Any]]
) -> Remarks:
    """Return the problems of all rows, given by row, in the order in which they appear."""
    rows: dict[Problem, list[int]] = {}
    for row, found in enumerate(problems):
        for problem in found:
            rows.setdefault(problem, []).append(row)
    told: Remarks = [
        tell(problem) | {"rows": places} for problem, places in islice(rows.items(), MAX_TOLD)
    ]
    if len(rows) > MAX_TOLD:
        rest = len(rows) - MAX_TOLD
        told.append(make_warning("more", f"{rest} further problems are not shown"))
    return told
