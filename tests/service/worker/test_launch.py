"""What a supervisor reads of a process that speaks, is slow, or dies in the middle of a word."""

import socket
from collections.abc import Iterator
from multiprocessing import get_context

import pytest

from service.worker.launch import LocalChild

Pipe = tuple[LocalChild, socket.socket]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A child, of which only the pipe is looked at, and the end that its process would hold."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield LocalChild(get_context("spawn").Process(), ours), theirs


def test_messages_that_came_together_are_received_one_by_one(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": "alive"}\n{"type": "log"}\n')
    received = []
    while child.has_message():
        received.append(child.receive())
    assert received == [{"type": "alive"}, {"type": "log"}]


def test_the_rest_of_a_message_is_not_waited_for(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": ')
    assert not child.has_message()
    theirs.sendall(b'"alive"}\n')
    assert child.has_message()
    assert child.receive() == {"type": "alive"}


def test_a_message_that_a_death_cuts_short_is_the_end(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": "alive"}\n{"type": "metr')
    theirs.close()
    assert child.has_message()
    assert child.receive() == {"type": "alive"}
    assert child.has_message()
    assert child.receive() is None


def test_a_message_of_any_length_is_whole(pipe: Pipe) -> None:
    child, theirs = pipe
    line = "x" * 10_000_000
    theirs.setblocking(False)
    left = memoryview(b'{"type": "log", "line": "' + line.encode() + b'"}\n')
    while left:
        left = left[theirs.send(left) :]
        has_message = child.has_message()
    assert has_message
    assert child.receive() == {"type": "log", "line": line}


def test_an_order_to_a_process_that_has_ended_is_dropped(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.close()
    child.send({"type": "stop", "reason": "cancel"})
    assert child.has_message()
    assert child.receive() is None
