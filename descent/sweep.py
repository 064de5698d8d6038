"""A sweep on the client's side: follow it, steer it, read its leaderboard."""

import sys
from collections.abc import Iterator
from typing import Any, Self, overload

from descent import frames, schemas
from descent.errors import RunFailed
from descent.leaderboard import show_sweep
from descent.model import Model
from descent.progress import Event
from descent.run import RemoteJob, Run
from descent.transport import API, part


class Sweep(RemoteJob[schemas.Sweep]):
    """A search over settings. `info` is its state as of the latest answer.

    >>> sweep = client.get_sweep(sweep.id)
    >>> sweep.state
    'succeeded'
    """

    _collection = "sweeps"
    _parse = staticmethod(schemas.Sweep.model_validate_json)

    def show(self, *, check: bool = True) -> Self:
        """Show the leaderboard until the sweep is over, then return as `wait` does.

        A terminal and a notebook show a live table, any other output gets a line for each trial
        that has ended. Ctrl-C stops the table but not the sweep.

        >>> sweep.show().state
        'succeeded'
        """
        try:
            show_sweep(self._looks(), self._connection.screen)
        except KeyboardInterrupt:
            sys.stderr.write(
                f'\n{self.id} goes on: client.get_sweep("{self.id}").cancel() stops it\n'
            )
            raise
        return self.wait(check=check)

    def _looks(self) -> Iterator[schemas.Sweep]:
        while not self.is_over:
            yield self.info
            self.refresh(wait_s=1)
        yield self.info

    def follow(self, after: int = 0) -> Iterator[Event]:
        """Yield every event after number `after` as it happens, until the sweep is over.

        >>> trials = [event.data for event in sweep.follow() if event.kind == "trial"]
        >>> sorted({trial["trial"] for trial in trials if trial["state"] == "succeeded"})
        [1, 2, 3]
        """
        yield from self._events(after)

    @overload
    def leaderboard(self, frame: None = None) -> list[schemas.SweepTrial]: ...
    @overload
    def leaderboard(self, frame: frames.Kind) -> frames.DataFrame: ...
    def leaderboard(
        self, frame: frames.Kind | None = None
    ) -> list[schemas.SweepTrial] | frames.DataFrame:
        """Return the trials, best first, also as a pandas or polars DataFrame.

        A DataFrame has a column for each field of the space.

        >>> best = sweep.leaderboard()[0]
        >>> best.trial, best.state, list(best.parameters)
        (1, 'succeeded', ['optimizer.learning_rate'])
        >>> list(sweep.leaderboard("pandas").columns)
        ['trial', 'run', 'state', 'value', 'epochs', 'optimizer.learning_rate']
        """
        trials = self.refresh().info.leaderboard or []
        if frame is None:
            return trials
        names = ("trial", "run", "state", "value", "epochs")
        columns: dict[str, list[Any]] = {
            name: [getattr(trial, name) for trial in trials] for name in names
        }
        columns |= {path: [trial.parameters[path] for trial in trials] for path in self.info.space}
        return frames.frame_of(columns, frame)

    def best(self) -> Run:
        """Return the run at the top of the leaderboard. Raises RunFailed if none has a value.

        >>> sweep.best().info.config["optimizer"]["learning_rate"]
        0.1
        """
        best = self.refresh().info.best
        if best is None or best.run is None:
            raise RunFailed("no_trial", f"{self.id} is {self.state} and no trial has a value")
        content = self._connection.get(f"{API}/runs/{part(best.run)}")
        return Run(self._connection, schemas.Run.model_validate_json(content))

    @property
    def model(self) -> Model:
        """The model version that the best member became. Raises RunFailed if there is none.

        >>> sweep.model
        <Model tuned@1>
        """
        if self.info.model is None:
            raise RunFailed(
                "no_model", f"{self.id} has registered no model: give register_best_as=…"
            )
        return Model(self._connection, self.info.model.name, version=self.info.model.version)

    def pause(self) -> Self:
        """Ask the members to pause. `resume` continues them exactly at the same steps.

        >>> endless = {"epochs": 1_000_000, "early_stopping": None}
        >>> long = client.submit_sweep(scores, "Final", {"seed": [1, 2]}, **endless)
        >>> long.pause().state in {"pausing", "paused"}
        True
        >>> while long.refresh(wait_s=30).state != "paused":
        ...     pass
        >>> long.resume().cancel().wait(60, check=False).state
        'cancelled'
        """
        return self._ask("pause")

    def resume(self) -> Self:
        """Continue a paused sweep; see `pause`."""
        return self._ask("resume")
