"""Where predictions wait that would hold up the event loop: a bounded line before some threads.

Knows nothing of what is predicted. Whoever finds the line full, or whose time is up, is told so.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.predict.predictor import Predictor
from service.errors import DeadlineExceeded, Overloaded

Result = TypeVar("Result")


class PredictionExecutor:
    """Runs work in threads, first come, first served."""

    def __init__(self, *, threads: int, length: int, timeout_s: float) -> None:
        self._length = length
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        #: one for each piece of work that waits or is done, also where nobody waits for its end
        self._places = BoundedSemaphore(threads + length)

    def close(self) -> None:
        """Drop what waits, and wait for what is being done."""
        self._threads.shutdown(cancel_futures=True)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, or raise what it raises; Overloaded, DeadlineExceeded."""
        if not self._places.acquire(blocking=False):
            raise self.full()
        job = self._threads.submit(work)
        job.add_done_callback(lambda _job: self._places.release())
        return await self.in_time(asyncio.wrap_future(job))

    async def in_time(self, future: "asyncio.Future[Result]") -> Result:
        """Wait for a result, but not longer than a client may wait. Raises DeadlineExceeded."""
        try:
            done, _ = await asyncio.wait([future], timeout=self._timeout_s)
        finally:
            future.cancel()  # unless it is done: nobody waits for it any more
        if done:
            return future.result()
        raise DeadlineExceeded(
            f"The prediction was not ready within {self._timeout_s:g} s "
            "(DESCENT_PREDICT_TIMEOUT_S): try again, or send fewer rows at a time."
        )

    def full(self) -> Overloaded:
        return Overloaded(
            f"As many predictions wait as may wait, {self._length} (DESCENT_PREDICT_QUEUE): "
            "try again in a moment."
        )


MAX_ROWS = 1024  # of a batch; more save nothing

Numbers = NDArray[np.float32]


class _Waiting(NamedTuple):
    encoded: Numbers
    outputs: "asyncio.Future[Numbers]"


class Batches:
    """The rows that wait for each net. For one event loop."""

    def __init__(self, queue: PredictionExecutor, length: int) -> None:
        self._queue = queue
        self._length = length
        self._lines: dict[int, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def outputs(self, predictor: Predictor, encoded: Numbers) -> Numbers:
        """Return what the net makes of encoded rows. Raises Overloaded, DeadlineExceeded."""
        line = self._lines.get(id(predictor))
        if line is None:
            line = self._lines[id(predictor)] = deque()
            task = asyncio.create_task(self._compute(predictor, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(line) >= self._length:
            raise self._queue.full()
        waiting = _Waiting(encoded, asyncio.get_running_loop().create_future())
        line.append(waiting)
        return await self._queue.in_time(waiting.outputs)

    async def _compute(self, predictor: Predictor, line: deque[_Waiting]) -> None:
        while batch := _taken(line):
            try:
                rows = np.concatenate([waiting.encoded for waiting in batch])
                outputs = await self._queue.run(partial(predictor.outputs, rows))
            except Exception as error:  # noqa: BLE001  whoever waits gets it
                _fail(batch, error)
            else:
                _answer(batch, outputs)
        del self._lines[id(predictor)]


def _taken(line: deque[_Waiting]) -> list[_Waiting]:
    """Take the next batch: at least one request, more while they fit."""
    batch: list[_Waiting] = []
    rows = 0
    while line and (not batch or rows + len(line[0].encoded) <= MAX_ROWS):
        waiting = line.popleft()
        if not waiting.outputs.done():  # else nobody waits for it any more
            batch.append(waiting)
            rows += len(waiting.encoded)
    return batch


def _answer(batch: list[_Waiting], outputs: Numbers) -> None:
    start = 0
    for waiting in batch:
        end = start + len(waiting.encoded)
        if not waiting.outputs.done():
            waiting.outputs.set_result(outputs[start:end])
        start = end


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.outputs.done():
            waiting.outputs.set_exception(error)
