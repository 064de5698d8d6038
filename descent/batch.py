"""A batch prediction as the client sees it: wait for it, cancel it, take its result."""

import time
from typing import Self

from descent import schemas
from descent.errors import RunFailed, TimedOut
from descent.transport import API, Call, Transport, part

WAIT = 30  # seconds for which the service may hold back an answer that is awaited


class BatchPrediction:
    """Predictions for all rows of a dataset. `info` is what was last heard of them."""

    def __init__(self, transport: Transport, info: schemas.BatchPrediction) -> None:
        self._transport = transport
        self.info = info

    def __repr__(self) -> str:
        return f"<BatchPrediction {self.id} {self.state}>"

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def state(self) -> str:
        return self.info.state

    @property
    def is_over(self) -> bool:
        return self.info.state in schemas.TERMINAL_STATES

    def refresh(self, *, wait_s: int | None = None) -> Self:
        """Ask for it again; with `wait_s`, wait up to so long for its state to change."""
        answer = self._transport.send(Call("GET", self._path(), params={"wait": wait_s}))
        self.info = schemas.BatchPrediction.model_validate_json(answer.content)
        return self

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until it is over. Raises TimedOut, and RunFailed unless it has succeeded."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while not self.is_over:
            left_s = WAIT if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise TimedOut("timed_out", f"{self.id} is still {self.state} after {timeout_s} s")
            self.refresh(wait_s=min(WAIT, int(left_s) + 1))
        if check and self.state != "succeeded":
            problem = self.info.error
            code = problem.code if problem else self.state
            raise RunFailed(
                code, problem.detail if problem else f"{self.id} was {self.state}", problem
            )
        return self

    def result(self) -> schemas.Dataset:
        """Return the dataset that was made. Raises RunFailed where there is none (yet)."""
        if self.info.result is None:
            raise RunFailed("no_result", f"{self.id} is {self.state} and has made no dataset")
        call = Call("GET", f"{API}/datasets/{part(self.info.result.id)}")
        return schemas.Dataset.model_validate_json(self._transport.send(call).content)

    def cancel(self) -> Self:
        """Ask it to stop; nothing is kept of it."""
        answer = self._transport.send(Call("POST", self._path("/cancel")))
        self.info = schemas.BatchPrediction.model_validate_json(answer.content)
        return self

    def delete(self) -> None:
        """Remove it; the dataset that it made stays."""
        self._transport.send(Call("DELETE", self._path()))

    def _path(self, rest: str = "") -> str:
        return f"{API}/batch_predictions/{part(self.id)}{rest}"
