"""The pipe of a supervisor to a process that sends, is slow, or dies in the middle of a message."""

import socket
from collections.abc import Iterator

import pytest

from service.jobs.pipe import StopOrder
from service.worker.launch import LocalChild

Pipe = tuple[LocalChild, socket.socket]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A child, of which only the pipe is used, and the other end, which a process would hold."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield LocalChild(ours), theirs


def test_messages_that_came_together_are_received_one_by_one(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": "alive"}\n{"type": "log"}\n')
    received = []
    while child.has_message():
        received.append(child.receive())
    assert received == [b'{"type": "alive"}', b'{"type": "log"}']


def test_the_rest_of_a_message_is_not_waited_for(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": ')
    assert not child.has_message()
    theirs.sendall(b'"alive"}\n')
    assert child.has_message()
    assert child.receive() == b'{"type": "alive"}'


def test_a_message_that_a_death_cuts_short_is_the_end(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.sendall(b'{"type": "alive"}\n{"type": "metr')
    theirs.close()
    assert child.has_message()
    assert child.receive() == b'{"type": "alive"}'
    assert child.has_message()
    assert child.receive() is None


def test_a_message_of_any_length_is_whole(pipe: Pipe) -> None:
    child, theirs = pipe
    line = b'{"type": "log", "line": "' + b"x" * 10_000_000 + b'"}'
    theirs.setblocking(False)
    left = memoryview(line + b"\n")
    while left:
        left = left[theirs.send(left) :]
        has_message = child.has_message()
    assert has_message
    assert child.receive() == line


def test_an_order_to_a_process_that_has_ended_is_dropped(pipe: Pipe) -> None:
    child, theirs = pipe
    theirs.close()
    child.send(StopOrder(reason="cancel"))
    assert child.has_message()
    assert child.receive() is None
