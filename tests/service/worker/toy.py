"""The process of a toy: it counts. Knows no database, like the processes of real jobs."""

import os
import signal
import socket
import threading
from typing import ClassVar, Literal

from pydantic import BaseModel

from service.jobs.pipe import Channel, Heartbeat, Message, StopOrdered, last_message

PAUSE_S = 0.01  # seconds between two counts


class ToyInput(BaseModel):
    """One attempt at a toy."""

    start: int
    until: int
    #: its action at the count `until`: end, die, or send a message that its supervisor refuses
    then: str


class Counted(Message):
    """The toy has counted so far."""

    type: Literal["counted"] = "counted"
    count: int
    pid: int
    #: the GPU that it sees
    gpu: str | None


class Done(Message):
    """The toy has counted to its end."""

    type: Literal["done"] = "done"
    is_last: ClassVar[bool] = True


class Nonsense(Message):
    """A message that no toy may send."""

    type: Literal["nonsense"] = "nonsense"


def main(end: socket.socket, job: str) -> None:
    channel = Channel(end)
    with last_message(channel, "toy"):
        _count(channel, ToyInput.model_validate_json(job))


def _count(channel: Channel, job: ToyInput) -> None:
    for count in range(job.start + 1, job.until + 1):
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        channel.send(Counted(count=count, pid=os.getpid(), gpu=gpu))
        if channel.should_stop():
            raise StopOrdered
        threading.Event().wait(PAUSE_S)
    if job.then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    channel.send(Nonsense() if job.then == "babble" else Done())
    while job.then == "babble":
        channel.send(Heartbeat())
        threading.Event().wait(PAUSE_S)
