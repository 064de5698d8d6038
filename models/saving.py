"""Checkpoints on a disk that may be full: put off while training goes on, waited for at the end."""

import errno
import time
from collections.abc import Callable, Generator
from typing import Any

from models.events import Alive, Event, Noted, Saved, StopReason
from models.snapshots import save
from models.training import Training

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
AGAIN_S = 1.0  # seconds between two tries to write a checkpoint that cannot be done without


def try_to_save(training: Training) -> Saved | Noted:
    """Save the training, or say that the disk is full: then a crash costs more, and no more."""
    try:
        return save(training)
    except OSError as error:
        if error.errno not in FULL:
            raise
        return Noted(
            "checkpoint_skipped",
            f"The disk has no space for a checkpoint at step {training.state.step}: the training"
            " goes on and tries again.",
        )


def save_at_last(
    training: Training,
    should_stop: Callable[[], StopReason | None],
    **options: Any,  # noqa: ANN401  options of `save`
) -> Generator[Event, None, StopReason | None]:
    """Save what the run cannot end without. While the disk is full, wait for space or a stop.

    Returns the reason to stop where one came before there was space.
    """
    is_noted = False
    while True:
        reason = should_stop()
        try:
            saved = save(training, **options)
        except OSError as error:
            if error.errno not in FULL:
                raise
        else:
            yield saved
            return None
        if reason is not None:
            return reason
        if not is_noted:
            is_noted = True
            detail = "The disk has no space for the last checkpoint: waiting until there is."
            yield Noted("checkpoint_waits", detail)
        yield Alive(training.progress())
        time.sleep(AGAIN_S)
