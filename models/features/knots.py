"""The knots of piecewise-linear codes: quantiles of the training rows. Knows NumPy only."""

import numpy as np
from numpy.typing import NDArray

from models.features.inputs import Matrix

#: The least width of a bin, in standard deviations: a narrower one would make steep slopes.
LEAST = 1e-3
LARGEST = float(np.finfo(np.float32).max)


def knots_of(x: Matrix, bins: int) -> NDArray[np.float32]:
    """Return the knots of each number from its values x, (rows, numbers): (numbers, bins + 1).

    They are quantiles at equal distances. Of those that lie too near to each other, one is kept;
    then the last but one is repeated, so that the first and the last bin stay where they are.
    """
    values = np.clip(x.astype(np.float64), -LARGEST, LARGEST)
    quantiles = np.quantile(values, np.linspace(0, 1, bins + 1), axis=0).T.astype(np.float32)
    found = np.empty_like(quantiles)
    for place, least in enumerate(LEAST * values.std(axis=0)):
        kept = quantiles[place, :1].tolist()
        for each in quantiles[place, 1:].tolist():
            if each - kept[-1] > least:
                kept.append(each)
        *inner, last = kept
        found[place] = [*inner, *[(inner or kept)[-1]] * (bins - len(inner)), last]
    return found
