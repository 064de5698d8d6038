"""Trainings in one process: each has the bits that it has alone, in whatever order they go on."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from descent.spec import RunConfig
from models.data import Table
from models.errors import Diverged
from models.training.dataset import Data, TrainingInput
from models.training.interface import Metrics, Piece, Saved, Started
from models.training.loop import MakeData, train
from models.training.together import Member, SharedData, take_turns
from tests.models.samples import passengers
from tests.models.training.test_resume import CONFIGS, configured

#: members of a group: one diverges, which builds nets while others are built
MEMBERS = {name: configured(name) for name in CONFIGS} | {
    "diverging": configured("plain descent in steps")
    | {"optimizer": {"type": "sgd", "learning_rate": 1e6}, "standardize": False}
}
#: the value of each row of a curve, exactly, and the hash of the last checkpoint
Result = tuple[list[str], str]


def member(
    config: dict[str, Any], table: Table, folder: Path, results: list[Any], make_data: MakeData
) -> Iterator[None]:
    """Train piece by piece, and add the result to `results`; a batch is a piece."""
    folder.mkdir()
    given = TrainingInput(
        RunConfig.model_validate(config), table, folder, poll_s=0, sign_s=60, threads=1
    )
    values: list[str] = []
    saved = ""
    with suppress(Diverged):
        for event in train(given, lambda: None, make_data):
            if isinstance(event, Metrics):
                values += [float(row.value).hex() for row in event.rows]
            if isinstance(event, Saved):
                saved = event.sha256
            if isinstance(event, Piece | Started):
                yield
    results.append((values, saved))


def alone(config: dict[str, Any], table: Table, folder: Path) -> Result:
    results: list[Result] = []
    for _piece in member(config, table, folder, results, Data):
        pass
    return results[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("alone")
    return {name: alone(config, passengers(), folder / name) for name, config in MEMBERS.items()}


def at_random(seed: int) -> Callable[[], bool]:
    """Return a function that lets members jump the queue at random."""
    random = Random(seed)  # noqa: S311  not for secrets
    return lambda: random.random() < 0.3


@pytest.mark.parametrize(
    ("threads", "turn_s", "seed"), [(1, 0.0, 0), (2, 0.0, 1), (3, 0.002, 2), (8, 0.0, 3)]
)
def test_each_training_has_the_bits_that_it_has_alone(
    tmp_path: Path, expected: dict[str, Result], threads: int, turn_s: float, seed: int
) -> None:
    found: dict[str, list[Result]] = {name: [] for name in MEMBERS}
    table, data = passengers(), SharedData()
    members = [
        Member(member(config, table, tmp_path / name, found[name], data), at_random(seed))
        for name, config in MEMBERS.items()
    ]
    take_turns(members, threads, turn_s)
    assert {name: each for name, (each,) in found.items()} == expected


def test_trainings_that_differ_in_their_steps_only_share_one_copy_of_the_data() -> None:
    table, data = passengers(), SharedData()

    def made(**config: Any) -> Data:
        given = RunConfig.model_validate(configured("adamw in a warm cosine") | config)
        return data(TrainingInput(given, table, Path()), torch.device("cpu"))

    first = made()
    assert made(optimizer={"learning_rate": 0.5}, epochs=3, batch_size=7) is first
    assert made(seed=1) is not first
    assert made(standardize=False) is not first


def test_the_error_of_a_member_ends_the_others_and_is_raised() -> None:
    def endless() -> Iterator[None]:
        while True:
            yield

    def broken() -> Iterator[None]:
        yield
        raise ConnectionError

    members = [Member(pieces, lambda: False) for pieces in (endless(), broken(), endless())]
    with pytest.raises(ConnectionError):
        take_turns(members, 2)
