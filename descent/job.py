"""Jobs of the service, from the client's side: the base of every job, and batch predictions."""

import time
from collections.abc import Callable
from typing import ClassVar, Generic, Self, TypeVar

from descent import schemas
from descent.errors import RunFailed, TimedOut
from descent.progress import transfer
from descent.transport import API, ApiCall, Connection, part

LONG_POLL = 30  # seconds that the service may hold back one answer while a job goes on

Info = TypeVar("Info", bound=schemas.Run | schemas.BatchPrediction)


class RemoteJob(Generic[Info]):
    """A job that a worker carries out. `info` is its state as of the latest answer."""

    #: the last part of the path under which the service lists such jobs
    _collection: ClassVar[str]
    _parse: Callable[[bytes], Info]

    def __init__(self, connection: Connection, info: Info) -> None:
        self._connection = connection
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state}>"

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
        """Fetch the job again; with `wait_s`, wait up to that long for its state to change.

        >>> run.refresh().is_over
        True
        """
        return self._take(self._connection.get(self._path(), {"wait": wait_s}))

    def wait(self, timeout_s: float | None = None, *, check: bool = True) -> Self:
        """Wait until the job is over. Raises TimedOut, and RunFailed unless it succeeded.

        With `check=False` a job that failed or was cancelled is returned too.

        >>> run.wait(60).state
        'succeeded'
        """
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        while not self.is_over:
            left_s = LONG_POLL if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise TimedOut("timed_out", f"{self.id} is still {self.state} after {timeout_s} s")
            self.refresh(wait_s=min(LONG_POLL, int(left_s) + 1))
        if check and self.state != "succeeded":
            problem = self.info.error
            code = problem.code if problem else self.state
            detail = problem.detail if problem else f"{self.id} was {self.state}"
            raise RunFailed(code, detail, problem)
        return self

    def cancel(self) -> Self:
        """Ask the job to stop. A run keeps its best checkpoint, a batch prediction keeps nothing.

        >>> long = client.submit(scores, "Final", epochs=1_000_000, early_stopping=None)
        >>> long.cancel().wait(60, check=False).state
        'cancelled'
        >>> job.wait(60).cancel()
        Traceback (most recent call last):
        descent.errors.Conflict: ...
        """
        return self._ask("cancel")

    def delete(self) -> None:
        """Delete a job that is over.

        A run's curves and checkpoints are deleted with it. Models that a run registered, and the
        dataset that a batch prediction made, stay.

        >>> client.submit(scores, "Final", epochs=1).wait(60).delete()
        >>> client.predict_dataset("scores", scores).wait(60).delete()
        """
        self._connection.transport.send(ApiCall("DELETE", self._path()))

    def _ask(self, verb: str) -> Self:
        call = ApiCall("POST", self._path(f"/{verb}"))
        return self._take(self._connection.transport.send(call).content)

    def _take(self, content: bytes) -> Self:
        self.info = self._parse(content)
        return self

    def _path(self, rest: str = "") -> str:
        return f"{API}/{self._collection}/{part(self.id)}{rest}"


class BatchPrediction(RemoteJob[schemas.BatchPrediction]):
    """Predictions for all rows of a dataset. `info` is its state as of the latest answer.

    >>> job = client.predict_dataset("scores", scores, name="predicted")
    >>> job.wait(60).info.errors
    0
    """

    _collection = "batch_predictions"
    _parse = staticmethod(schemas.BatchPrediction.model_validate_json)

    def show(self, *, check: bool = True) -> Self:
        """Show a progress bar of the rows until the job is over, then return as `wait` does.

        >>> job.show().state
        'succeeded'
        """
        title = f"Predicting {self.info.name}"
        with transfer(title, self._connection.screen, unit="rows") as report:
            while not self.is_over:
                report(self.info.progress.done, self.info.progress.rows)
                self.refresh(wait_s=1)
        return self.wait(check=check)

    def result(self) -> schemas.Dataset:
        """Return the dataset of the predictions. Raises RunFailed unless the job succeeded.

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
