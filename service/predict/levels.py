"""Refuses levels of intervals and sets that a model cannot keep. Loads nothing that predicts."""

import math

from service.errors import Conflict, Invalid


class NotCalibrated(Conflict):
    """The model has no calibration."""

    code = "not_calibrated"


class LevelTooHigh(Invalid):
    """The model was calibrated on too few rows for the level."""

    code = "interval_not_possible"


def check(level: float, most_level: float | None) -> None:
    """Raise NotCalibrated or LevelTooHigh unless a model keeps this level.

    `most_level` is the highest one that its rows suffice for; None without a calibration.
    """
    if most_level is None:
        raise NotCalibrated(
            "This model cannot say how sure its predictions are: no rows were held out when it was"
            " trained. Train again with a split that holds out rows, or a linear model until it"
            " reaches the closed form."
        )
    if level > most_level:
        rows = round(most_level / (1 - most_level))
        needed = math.ceil(round(level / (1 - level), 9))
        raise LevelTooHigh(
            f"interval={level:g} needs at least {needed} held-out rows, and this model was"
            f" calibrated on {rows}: ask for at most {math.floor(most_level * 100) / 100:g},"
            " or train again with more held-out rows."
        )
