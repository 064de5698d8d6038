"""Runs predictions outside the event loop: a bounded queue, threads, and batches of plain rows.

- `PredictionExecutor` runs any function in a thread. A full queue raises Overloaded, a timeout
  DeadlineExceeded.
- `Batches` joins rows that wait for the same net into one computation.
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

MAX_ROWS = 1024  # rows of a batch; larger batches save no time

Result = TypeVar("Result")
Numbers = NDArray[np.float32]


class PredictionExecutor:
    """Runs functions in threads, first come, first served; at most `length` of them wait."""

    def __init__(self, *, threads: int, length: int, timeout_s: float) -> None:
        self._length = length
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        #: one place for each function that waits or runs, even if its client has gone
        self._places = BoundedSemaphore(threads + length)

    def close(self) -> None:
        """Cancel the waiting functions and wait for the running ones."""
        self._threads.shutdown(cancel_futures=True)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`. Raises its error, Overloaded or DeadlineExceeded."""
        if not self._places.acquire(blocking=False):
            raise self.full()
        job = self._threads.submit(work)
        job.add_done_callback(lambda _job: self._places.release())
        return await self.in_time(asyncio.wrap_future(job))

    async def in_time(self, future: "asyncio.Future[Result]") -> Result:
        """Wait for a result, at most DESCENT_PREDICT_TIMEOUT_S. Raises DeadlineExceeded."""
        try:
            done, _ = await asyncio.wait([future], timeout=self._timeout_s)
        finally:
            future.cancel()  # has no effect if it is done; else its result is not needed any more
        if done:
            return future.result()
        raise DeadlineExceeded(
            f"The prediction was not ready within {self._timeout_s:g} s "
            "(DESCENT_PREDICT_TIMEOUT_S): try again, or send fewer rows at a time."
        )

    def full(self) -> Overloaded:
        return Overloaded(
            f"{self._length} predictions are waiting, which is the limit (DESCENT_PREDICT_QUEUE): "
            "try again in a moment."
        )


class _Waiting(NamedTuple):
    encoded: Numbers
    outputs: "asyncio.Future[Numbers]"


class Batches:
    """Computes waiting rows of the same net together. Belongs to one event loop."""

    def __init__(self, queue: PredictionExecutor, length: int) -> None:
        self._queue = queue
        self._length = length
        self._lines: dict[int, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def outputs(self, predictor: Predictor, encoded: Numbers) -> Numbers:
        """Return the net's outputs for encoded rows. Raises Overloaded, DeadlineExceeded."""
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
            except Exception as error:  # noqa: BLE001  the waiting requests raise it
                _fail(batch, error)
            else:
                _answer(batch, outputs)
        del self._lines[id(predictor)]


def _taken(line: deque[_Waiting]) -> list[_Waiting]:
    """Take the next batch: at least one request, and more while they fit."""
    batch: list[_Waiting] = []
    rows = 0
    while line and (not batch or rows + len(line[0].encoded) <= MAX_ROWS):
        waiting = line.popleft()
        if not waiting.outputs.done():  # it is done if its request was cancelled
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
