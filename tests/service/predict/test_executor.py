"""The queue of the prediction threads: bounded, first in first out, with a deadline."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from service.errors import DeadlineExceeded, Overloaded
from service.predict.executor import PredictionExecutor

ENDS = 30.0  # seconds until a wait fails


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return an event that blocks threads until the test sets it, or ends."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def make(gate: threading.Event) -> Iterator[Callable[..., PredictionExecutor]]:
    made = []

    def make_one(
        *, threads: int = 1, length: int = 1, timeout_s: float = ENDS
    ) -> PredictionExecutor:
        made.append(PredictionExecutor(threads=threads, length=length, timeout_s=timeout_s))
        return made[-1]

    yield make_one
    gate.set()
    for queue in made:
        queue.close()


async def held(
    queue: PredictionExecutor, gate: threading.Event, count: int
) -> list[asyncio.Task[bool]]:
    """Submit this number of tasks that wait for the gate; return them once they are queued."""
    tasks = [asyncio.create_task(queue.run(gate.wait)) for _ in range(count)]
    await asyncio.sleep(0)  # each task runs until it waits for its result
    return tasks


async def refused(work: Awaitable[object]) -> bool:
    try:
        await work
    except Overloaded:
        return True
    return False


def test_work_has_its_result_or_its_error(make: Callable[..., PredictionExecutor]) -> None:
    async def ask() -> None:
        assert await make().run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await make().run(lambda: 1 / 0)

    asyncio.run(ask())


def test_what_finds_the_line_full_is_refused_at_once(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    async def ask() -> None:
        queue = make(threads=2, length=3)
        tasks = await held(queue, gate, 5)
        with pytest.raises(Overloaded) as caught:
            await queue.run(gate.wait)
        assert caught.value.headers["Retry-After"] == "1"
        gate.set()
        assert await asyncio.gather(*tasks) == [True] * 5

    asyncio.run(ask())


def test_a_place_is_free_again_when_its_work_has_ended(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    async def ask() -> None:
        queue = make(threads=1, length=0)
        for _ in range(3):
            (task,) = await held(queue, gate, 1)
            assert await refused(queue.run(gate.wait))
            gate.set()
            await task
            gate.clear()

    asyncio.run(ask())


def test_what_takes_longer_than_it_may_is_told_so(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    async def ask() -> None:
        with pytest.raises(DeadlineExceeded) as caught:
            await make(timeout_s=0.01).run(gate.wait)
        assert caught.value.headers["Retry-After"] == "1"
        assert "DESCENT_PREDICT_TIMEOUT_S" in caught.value.detail

    asyncio.run(ask())


def test_work_that_is_being_done_holds_its_place_though_nobody_waits_for_it(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    """Otherwise a client that disconnects and retries would fill the memory with results."""

    async def ask() -> None:
        queue = make(threads=1, length=0, timeout_s=0.01)
        with pytest.raises(DeadlineExceeded):
            await queue.run(gate.wait)
        assert await refused(queue.run(gate.wait))

    asyncio.run(ask())


def test_work_that_still_waited_when_its_time_was_up_is_never_done(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    done: list[int] = []

    async def ask() -> None:
        queue = make(threads=1, length=1, timeout_s=0.01)
        results = await asyncio.gather(
            queue.run(gate.wait), queue.run(lambda: done.append(1)), return_exceptions=True
        )
        assert [type(result) for result in results] == [DeadlineExceeded] * 2
        gate.set()
        queue.close()

    asyncio.run(ask())
    assert not done


def test_a_client_that_leaves_gives_its_place_away(
    make: Callable[..., PredictionExecutor], gate: threading.Event
) -> None:
    async def ask() -> None:
        queue = make(threads=1, length=1)
        first, second = await held(queue, gate, 2)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(queue.run(lambda: 3))
        await asyncio.sleep(0)
        gate.set()
        assert await first
        assert await third == 3

    asyncio.run(ask())
