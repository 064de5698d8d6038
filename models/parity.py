"""How far answers are from what training computes, and how far they may be. Knows NumPy only."""

import numpy as np

from models.data import Floats
from models.features import Features
from models.targets import NumberTargets

#: Of a number: times the larger of it and its target's standard deviation. Of a share: itself.
TOLERANCE = 1e-5


def scales(features: Features) -> Floats:
    """Return by output the size of an error that counts: a deviation, or a whole share."""
    target = features.target
    if isinstance(target, NumberTargets):
        return np.array(target.std, dtype=np.float64)
    return np.ones(target.outputs)


def differences(features: Features, expected: Floats, found: Floats) -> Floats:
    """Return (rows,): the largest difference of each, to be compared with the tolerance.

    NaN stands for no answer: it equals itself, and is infinitely far from any number.
    """
    size = np.broadcast_to(scales(features), expected.shape)
    if isinstance(features.target, NumberTargets):
        size = np.maximum(np.abs(expected), size)
    with np.errstate(all="ignore"):
        apart = np.abs(found - expected)
        shares = np.where(apart == 0, 0.0, apart / size)
    shares[np.isnan(expected) & np.isnan(found)] = 0.0
    shares[np.isnan(shares)] = np.inf
    largest: Floats = shares.max(axis=1, initial=0.0)
    return largest
