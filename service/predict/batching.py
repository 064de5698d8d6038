"""Micro-batching: rows of concurrent requests for one model go through its net together.

For a net whose weights do not fit the processor's cache, a row among many costs a fraction of a row
alone. Nobody waits for company: what has come while a batch was computed is the next batch.
"""

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.predict.predictor import Predictor
from service.predict.executor import PredictionExecutor

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
