"""Rows of concurrent requests form a batch, and no answer depends on the rest of the batch."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from models import checkpoint
from models.model import GraphModel
from models.predict.predictor import Predictor
from service.errors import DeadlineExceeded, Overloaded
from service.predict.executor import MAX_ROWS, Batches, Numbers, PredictionExecutor
from tests.service import trained

ENDS = 30.0  # seconds until a wait fails
WIDE = 512
#: The kernel of BLAS depends on the number of rows, and so does the order of a sum's terms: an
#: answer may differ by some units in the last place of float32, at most the number of terms.
NEAR = 1e-5


@dataclass
class Gate:
    """A layer that blocks until it is opened, and records the number of rows of each batch."""

    opened: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    rows: list[int] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, x: Numbers) -> Numbers:
        self.rows.append(len(x))
        self.reached.set()
        assert self.opened.wait(ENDS)
        if self.error is not None:
            raise self.error
        return x


@dataclass(frozen=True)
class Gated(GraphModel):
    """A model whose rows pass a gate first."""

    gate: Gate = field(default_factory=Gate)

    def forward(self, x: Numbers) -> Numbers:
        return super().forward(self.gate(x))


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def predictor(tmp_path: Path, gate: Gate) -> Predictor:
    """Return a net of two wide layers behind the gate."""
    random = np.random.default_rng(0)
    shapes = {"0": (WIDE, 8), "2": (WIDE, WIDE), "4": (1, WIDE)}
    tensors = {}
    for name, (outputs, inputs) in shapes.items():
        weights = random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        tensors[f"net.{name}.weight"] = weights.astype(np.float32)
        tensors[f"net.{name}.bias"] = np.zeros(outputs, np.float32)
    columns = [f"x{place}" for place in range(8)]
    document = trained.saved(trained.numbers(columns), [[0.0] * 8], [0.0])["document"]
    layers = [{"linear": WIDE}, "relu", {"linear": WIDE}, "relu", {"linear": 1}]
    document["net"]["layers"] = layers
    file = tmp_path / "wide"
    checkpoint.write(file, tensors, document)
    found = Predictor.load(file)
    model = found.model
    assert isinstance(model, GraphModel)
    return Predictor(Gated(model.features, model.graph, model.tensors, gate=gate))


@pytest.fixture
def queue(gate: Gate) -> Iterator[PredictionExecutor]:
    queue = PredictionExecutor(threads=1, length=4, timeout_s=ENDS)
    yield queue
    gate.opened.set()
    queue.close()


def encoded(rows: int, seed: int = 0) -> Numbers:
    return np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)


Asked = list["asyncio.Task[Numbers]"]


async def ask(batches: Batches, predictor: Predictor, gate: Gate, *several: Numbers) -> Asked:
    """Request predictions of each; return once the first is computing and the others wait."""
    tasks = [asyncio.create_task(batches.outputs(predictor, rows)) for rows in several]
    await asyncio.to_thread(gate.reached.wait, ENDS)
    return tasks


def test_what_comes_while_a_batch_is_computed_is_the_next_batch(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        tasks = await ask(Batches(queue, 16), predictor, gate, *map(encoded, (1, 2, 1, 3)))
        gate.opened.set()
        assert [len(outputs) for outputs in await asyncio.gather(*tasks)] == [1, 2, 1, 3]

    asyncio.run(go())
    assert gate.rows in ([1, 6], [7])  # if all came before the first was taken


def test_a_rows_answer_does_not_depend_on_who_else_asks(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    gate.opened.set()
    rows = [encoded(1, seed) for seed in range(40)]
    alone = [float(predictor.outputs(row)[0, 0]) for row in rows]

    async def go() -> list[Numbers]:
        batches = Batches(queue, 64)
        return await asyncio.gather(*(batches.outputs(predictor, row) for row in rows))

    together = [float(outputs[0, 0]) for outputs in asyncio.run(go())]
    assert max(gate.rows) > 1, "no batch was made"
    assert together == pytest.approx(alone, rel=NEAR, abs=NEAR * float(np.std(alone)))


def test_a_batch_has_no_more_rows_than_it_may(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        several = [encoded(1), *[encoded(400)] * 5, encoded(2 * MAX_ROWS)]
        tasks = await ask(Batches(queue, 16), predictor, gate, *several)
        gate.opened.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())
    # A request above the limit is not cut: it is a batch by itself.
    assert [rows for rows in gate.rows if rows > MAX_ROWS] == [2 * MAX_ROWS]
    assert sum(gate.rows) == 1 + 5 * 400 + 2 * MAX_ROWS


def test_rows_that_cannot_be_put_together_fail_and_the_line_goes_on(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    gate.opened.set()

    async def go() -> None:
        batches = Batches(queue, 16)
        several = (encoded(1), encoded(1)[:, :5])
        failed = await asyncio.gather(
            *(batches.outputs(predictor, rows) for rows in several), return_exceptions=True
        )
        assert [type(error) for error in failed] == [ValueError, ValueError]
        assert len(await batches.outputs(predictor, encoded(2))) == 2

    asyncio.run(asyncio.wait_for(go(), ENDS))


def test_who_finds_the_line_of_a_net_full_is_refused(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        batches = Batches(queue, 2)
        tasks = await ask(batches, predictor, gate, encoded(1))
        tasks += [asyncio.create_task(batches.outputs(predictor, encoded(1))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batches.outputs(predictor, encoded(1))
        gate.opened.set()
        await asyncio.gather(*tasks)
        assert len(await batches.outputs(predictor, encoded(1))) == 1, "it is not full any more"

    asyncio.run(go())


def test_who_waits_longer_than_he_may_is_told_so(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        hasty = PredictionExecutor(threads=1, length=4, timeout_s=0.01)
        try:
            with pytest.raises(DeadlineExceeded):
                await Batches(hasty, 4).outputs(predictor, encoded(1))
        finally:
            gate.opened.set()
            hasty.close()

    asyncio.run(go())


def test_an_error_reaches_all_who_wait_for_the_batch_and_nobody_after_them(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        batches = Batches(queue, 8)
        gate.error = MemoryError("on purpose")
        tasks = await ask(batches, predictor, gate, encoded(1), encoded(1), encoded(1))
        gate.opened.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in found] == [MemoryError] * 3
        gate.error = None
        assert len(await batches.outputs(predictor, encoded(1))) == 1

    asyncio.run(go())


def test_the_rows_of_who_has_left_are_not_computed(
    predictor: Predictor, queue: PredictionExecutor, gate: Gate
) -> None:
    async def go() -> None:
        batches = Batches(queue, 8)
        (first,) = await ask(batches, predictor, gate, encoded(1))
        left, stays = (
            asyncio.create_task(batches.outputs(predictor, encoded(rows))) for rows in (5, 3)
        )
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        gate.opened.set()
        assert [len(outputs) for outputs in await asyncio.gather(first, stays)] == [1, 3]

    asyncio.run(go())
    assert gate.rows == [1, 3]
