"""Several trainings in one process: they share their data and take turns on a few threads.

Each has the same bits as alone, because its pieces are computed one after the other, its engine is
its own, and the data never changes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from descent.spec import RunConfig
from models.features.encoding import Features
from models.training.cost import DRAWN
from models.training.dataset import Data, TrainingInput

#: The fields of a configuration that change nothing about its data.
OTHER = frozenset(
    {
        "preset",
        "model",
        "loss",
        "optimizer",
        "schedule",
        "epochs",
        "batch_size",
        "early_stopping",
        "device",
        "on_divergence",
        "budget",
        "lr_range",
        "register_as",
        "name",
        "tags",
    }
)
#: Seconds of a turn: many short trainings end in their first one, and long ones wait little.
TURN_S = 0.25


class SharedData:
    """Makes the data of trainings; those that need the same data share one copy."""

    def __init__(self) -> None:
        self._held: dict[Any, list[Data]] = {}

    def __call__(
        self,
        given: TrainingInput,
        device: torch.device,
        features: Features | None = None,
        *,
        is_stored: bool | None = None,
    ) -> Data:
        """Return the data of a training; see `Data`."""
        stored = None if features is None else str(features.to_json())
        key = (id(given.table), str(device), stored, str(_of_data(given.config)))
        held = self._held.setdefault(key, [])
        for data in held:
            if is_stored in {None, data.is_stored}:
                return data
        held.append(Data(given, device, features, is_stored=is_stored))
        return held[-1]


def _of_data(config: RunConfig) -> dict[str, Any]:
    """Return the fields of a configuration that decide its data."""
    fields = config.model_dump(exclude=set(OTHER))
    if config.split.type not in DRAWN:
        del fields["seed"]
    return fields


@dataclass(frozen=True)
class Member:
    """One of several trainings."""

    #: Makes one piece with each step; the first one prepares the training.
    pieces: Iterator[object]
    #: Returns whether its next piece should not wait for its turn.
    is_urgent: Callable[[], bool]


def take_turns(members: Sequence[Member], threads: int, turn_s: float = TURN_S) -> None:
    """Advance all members to their ends, in turns, on at most this many threads.

    A turn takes `turn_s` seconds, or one piece if that takes longer. The first error of a member,
    after which the others stop too, is raised.
    """
    turns = _Turns(members, turn_s)
    helpers = [
        threading.Thread(target=turns.work, name=f"member-{number}")
        for number in range(1, min(threads, len(members)))
    ]
    for helper in helpers:
        helper.start()
    turns.work()
    for helper in helpers:
        helper.join()
    if turns.error is not None:
        raise turns.error


class _Turns:
    """The members that wait for their turns."""

    def __init__(self, members: Sequence[Member], turn_s: float) -> None:
        self._turn_s = turn_s
        self.error: BaseException | None = None
        #: held while the other fields change
        self._changed = threading.Condition()
        #: Members that are not prepared. One is prepared at a time, because all use torch's global
        #: generator and read the table.
        self._new = deque(members)
        self._is_preparing = False
        self._waiting: deque[Member] = deque()

    def work(self) -> None:
        """Advance members until none waits."""
        torch.set_num_threads(1)  # of an operation; a new thread may have another number
        while (turn := self._take()) is not None:
            member, is_new = turn
            # The thread's mode for subnormal numbers may be that of a training that has ended.
            torch.set_flush_denormal(True)
            is_over, error = False, None
            try:
                if is_new:
                    self._prepare(member)
                until = time.monotonic() + self._turn_s
                next(member.pieces)
                while time.monotonic() < until and not self._is_wanted():
                    next(member.pieces)
            except StopIteration:
                is_over = True
            except BaseException as raised:  # noqa: BLE001  the caller of `take_turns` gets it
                is_over, error = True, raised
            with self._changed:
                self.error = self.error or error
                if not is_over:
                    self._waiting.append(member)
                self._changed.notify_all()

    def _prepare(self, member: Member) -> None:
        try:
            next(member.pieces)
        finally:
            with self._changed:
                self._is_preparing = False
                self._changed.notify_all()

    def _is_wanted(self) -> bool:
        """Return whether a turn has to end early: for an urgent member or after an error."""
        with self._changed:
            return self.error is not None or any(each.is_urgent() for each in self._waiting)

    def _take(self) -> tuple[Member, bool] | None:
        """Return the next member and whether it is new; None if the others are in work."""
        with self._changed:
            while self.error is None:
                urgent = next((each for each in self._waiting if each.is_urgent()), None)
                if urgent is not None:
                    self._waiting.remove(urgent)
                    return urgent, False
                if self._new and not self._is_preparing:
                    self._is_preparing = True
                    return self._new.popleft(), True
                if self._waiting:
                    return self._waiting.popleft(), False
                if not self._new:
                    return None
                self._changed.wait()
            return None
