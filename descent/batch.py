"""A batch prediction as the client sees it: wait for it, cancel it, take its result."""

import time
from typing import Self

from descent import schemas
from descent.connection import Connection
from descent.errors import RunFailed, TimedOut
from descent.progress import transfer
from descent.transport import API, Call, part

WAIT = 30  # seconds for which the service may hold back an answer that is awaited


class BatchPrediction:
    """Predictions for all rows of a dataset. `info` is what was last heard of them.

    >>> job = client.predict_dataset("scores", scores, name="predicted")
    >>> job.wait(60).info.errors
    0
    """

    def __init__(self, connection: Connection, info: schemas.BatchPrediction) -> None:
        self._connection = connection
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
        """Ask for it again; with `wait_s`, wait up to so long for its state to change.

        >>> job.refresh().is_over
        True
        """
        content = self._connection.get(self._path(), {"wait": wait_s})
        self.info = schemas.BatchPrediction.model_validate_json(content)
        return self

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until it is over. Raises TimedOut, and RunFailed unless it has succeeded.

        >>> job.wait(60).state
        'succeeded'
        """
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

    def show(self, *, check: bool = True) -> Self:
        """Show a bar of the rows until it is over, then be like `wait`.

        >>> job.show().state
        'succeeded'
        """
        title = f"Predicting {self.info.name}"
        with transfer(title, self._connection.screen, unit="rows") as tell:
            while not self.is_over:
                tell(self.info.progress.done, self.info.progress.rows)
                self.refresh(wait_s=1)
        return self.wait(check=check)

    def result(self) -> schemas.Dataset:
        """Return the dataset that was made. Raises RunFailed where there is none (yet).

        >>> made = job.result()
        >>> [column.name for column in made.columns]
        ['Quiz', 'Final', 'prediction', 'warnings', 'error']
        >>> int(client.frame(made)["prediction"].count())
        13
        """
        if self.info.result is None:
            raise RunFailed("no_result", f"{self.id} is {self.state} and has made no dataset")
        path = f"{API}/datasets/{part(self.info.result.id)}"
        return schemas.Dataset.model_validate_json(self._connection.get(path))

    def cancel(self) -> Self:
        """Ask it to stop; nothing is kept of it.

        >>> job.cancel().state  # it had come to its end
        Traceback (most recent call last):
        descent.errors.Conflict: ...
        """
        answer = self._connection.transport.send(Call("POST", self._path("/cancel")))
        self.info = schemas.BatchPrediction.model_validate_json(answer.content)
        return self

    def delete(self) -> None:
        """Remove it; the dataset that it made stays.

        >>> client.predict_dataset("scores", scores).wait(60).delete()
        """
        self._connection.transport.send(Call("DELETE", self._path()))

    def _path(self, rest: str = "") -> str:
        return f"{API}/batch_predictions/{part(self.id)}{rest}"
