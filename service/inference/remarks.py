"""What there is to say of the rows of one answer: each problem once, with the rows that have it."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from models.values import Problem

MAX_TOLD = 50  # different problems of one answer; each names all its rows

Remarks = list[dict[str, Any]]


def remarks(problems: Sequence[Sequence[Problem]]) -> Remarks:
    """Return the problems of all rows, given by row, in the order in which they appear."""
    rows: dict[Problem, list[int]] = {}
    for row, found in enumerate(problems):
        for problem in found:
            rows.setdefault(problem, []).append(row)
    told: Remarks = [
        problem.to_json() | {"rows": places} for problem, places in islice(rows.items(), MAX_TOLD)
    ]
    if len(rows) > MAX_TOLD:
        rest = len(rows) - MAX_TOLD
        told.append({"code": "more", "detail": f"{rest} further problems are not shown"})
    return told
