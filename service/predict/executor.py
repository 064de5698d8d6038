"""Where predictions wait that would hold up the event loop: a bounded line before some threads.

Knows nothing of what is predicted. Whoever finds the line full, or whose time is up, is told so.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

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
