"""The frame of every process that does an attempt: its device, and its last message."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import LearningError
from service.jobs.messages import Failure, Obeyed
from service.jobs.pipe import Channel

#: The variable that names the one GPU that this process sees, as the worker's machine counts it.
OWN_DEVICE = "DESCENT_OWN_DEVICE"


class StopOrdered(Exception):
    """The supervisor wants the attempt to end here."""


@contextmanager
def last_message(channel: Channel, work: str) -> Iterator[None]:
    """Send how the block ended, if it raised; `work` names it in a sentence."""
    try:
        yield
    except StopOrdered:
        channel.send(Obeyed())
    except LearningError as error:
        channel.send(Failure(code=error.code, detail=error.detail, where=error.where))
    except Exception:  # noqa: BLE001  after any error the job must end with a sentence
        traceback.print_exc()
        last = traceback.format_exc().splitlines()[-1]
        channel.send(
            Failure(code="internal_error", detail=f"The {work} stopped unexpectedly: {last}")
        )
    channel.close()
