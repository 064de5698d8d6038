"""Rows in files: their order, exact resume, and the same learning as in memory."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from descent.spec import RunConfig
from models import data
from models.engine.examples import Examples
from models.errors import StorageFull
from models.training import scratch
from models.training.interface import StopReason
from models.training.scores import split_table
from models.training.scratch import StoredExamples
from tests.models.samples import SURVIVAL, learn, passengers

ROWS = 10_001
CONFIG = SURVIVAL | {"batch_size": 20, "epochs": 3}


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredExamples]:
    """Rows whose class is their number."""
    whole = Examples(torch.arange(3 * ROWS).reshape(ROWS, 3).float(), torch.arange(ROWS))
    made = StoredExamples(tmp_path, whole.part(slice(0)), torch.device("cpu"))
    for start in range(0, ROWS, 1_000):
        made.append(whole.part(slice(start, start + 1_000)))
    made.seal()
    yield made
    made.close()


@pytest.fixture
def tiny_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small table have many blocks and windows."""
    monkeypatch.setattr(scratch, "BLOCK", 7)
    monkeypatch.setattr(scratch, "WINDOW_BYTES", 4_000)


def order_of(stored: StoredExamples, seed: int, epoch: int, size: int, begin: int = 0) -> list[int]:
    found: list[int] = []
    for rows, order, first in stored.windows(seed, epoch, size, begin):
        assert first == begin * size + len(found)
        assert torch.equal(rows.x[order, 0], 3.0 * rows.truth[order])
        found += rows.truth[order].tolist()
    return found


@pytest.mark.parametrize("size", [256, 2_048, 5 * 256, 20_000])
def test_an_epoch_visits_every_row_once_in_an_order_of_its_seed_and_number(
    stored: StoredExamples, size: int
) -> None:
    order = order_of(stored, 1, 0, size)
    assert sorted(order) == list(range(ROWS))
    assert order_of(stored, 1, 0, size) == order
    assert order_of(stored, 1, 1, size) != order
    assert order_of(stored, 2, 0, size) != order


def test_an_epoch_continues_at_any_window_in_the_same_order(stored: StoredExamples) -> None:
    order = order_of(stored, 1, 3, 256)
    for begin in (1, 17, ROWS // 256):
        assert order_of(stored, 1, 3, 256, begin) == order[begin * 256 :]


def test_rows_come_back_in_their_order_and_at_their_places(
    stored: StoredExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "WINDOW_BYTES", 30_000)
    pieces = [piece.truth.clone() for piece in stored.pieces()]
    assert len(pieces) > 3
    assert torch.cat(pieces).tolist() == list(range(ROWS))
    assert stored.rows(np.array([7, ROWS - 1]))[:, 0].tolist() == [21.0, 3.0 * (ROWS - 1)]


def stop_at(step: int) -> Callable[[], StopReason | None]:
    asked = itertools.count(1)
    return lambda: "handback" if next(asked) == step else None


@pytest.mark.usefixtures("tiny_windows")
@pytest.mark.parametrize("step", [1, 6, 7, 13, 30])
def test_a_run_with_its_rows_in_files_stopped_anywhere_ends_with_the_very_same_file(
    tmp_path: Path, step: int
) -> None:
    table = passengers(400)
    whole = learn(table, tmp_path / "whole", CONFIG, memory_bytes=0)
    first = learn(table, tmp_path, CONFIG, stop_at(step), memory_bytes=0, poll_s=0.0)
    saved = first.saved[-1]
    assert saved.step == step
    # There is memory enough now, but the order of the rows stays that of the checkpoint.
    rest = learn(table, tmp_path, CONFIG, resume=saved.path, seq=saved.seq, attempt=2)
    assert first.curve[: saved.seq] + rest.curve == whole.curve
    assert rest.evaluation == whole.evaluation
    assert rest.saved[-1].sha256 == whole.saved[-1].sha256


@pytest.mark.usefixtures("tiny_windows")
def test_rows_in_files_teach_as_much_as_rows_in_memory(tmp_path: Path) -> None:
    rates = {"model": {"type": "linear"}, "optimizer": {"type": "sgd", "learning_rate": 0.1}}
    table, config = passengers(400), CONFIG | rates | {"epochs": 60}
    memory = learn(table, tmp_path / "memory", config)
    files = learn(table, tmp_path / "files", config, memory_bytes=0)
    assert files.curve != memory.curve
    assert files.values("validation")[-1] == pytest.approx(
        memory.values("validation")[-1], rel=0.02
    )
    assert files.evaluation["baseline"] == memory.evaluation["baseline"]


@pytest.mark.usefixtures("tiny_windows")
def test_rows_that_are_held_out_never_train(tmp_path: Path) -> None:
    table = passengers(400)
    split = split_table(RunConfig.model_validate(CONFIG), table)
    held_out = np.concatenate([split.validation, split.test])
    spoilt = table.numbers("Age").copy()
    spoilt[held_out] = 1e30
    poisoned = replace(table, columns={**table.columns, "Age": spoilt})
    one, other = (
        learn(each, tmp_path / str(place), CONFIG, memory_bytes=0)
        for place, each in enumerate([table, poisoned])
    )
    assert one.values("train") == other.values("train")
    assert one.values("validation") != other.values("validation")


@pytest.mark.usefixtures("tiny_windows")
def test_weights_stay_with_their_rows(tmp_path: Path) -> None:
    """A step size of nearly zero leaves the net as it was, so the loss depends on no order."""
    config = CONFIG | {
        "weight": "Fare",
        "class_weight": "balanced",
        "optimizer": {"type": "sgd", "learning_rate": 1e-12},
    }
    one, other = (
        learn(passengers(400), tmp_path / str(limit), config, memory_bytes=limit).values("train")
        for limit in (None, 0)
    )
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.usefixtures("tiny_windows")
@pytest.mark.parametrize("split", [{"validation": 0.2}, {"type": "none"}])
def test_a_part_of_the_split_may_have_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: dict[str, float | str]
) -> None:
    monkeypatch.setattr(data, "BLOCK_ROWS", 3)  # in most blocks too
    outcome = learn(passengers(), tmp_path, CONFIG | {"split": split}, memory_bytes=0)
    assert outcome.error is None
    assert len(outcome.values("train")) == CONFIG["epochs"]


def test_a_batch_of_all_rows_stays_in_memory(tmp_path: Path) -> None:
    config = CONFIG | {"batch_size": "full"}
    one, other = (
        learn(passengers(), tmp_path / str(limit), config, memory_bytes=limit)
        for limit in (None, 0)
    )
    assert one.curve == other.curve


def test_rows_that_do_not_fit_the_disk_end_the_run_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "RESERVE_BYTES", 10**18)
    outcome = learn(passengers(), tmp_path, CONFIG, memory_bytes=0)
    assert isinstance(outcome.error, StorageFull)
    assert "free space" in outcome.error.detail
