from typing import Any

import pytest
from pydantic import TypeAdapter

from descent.spec import ScheduleSpec
from models.engine.optimizers import PlateauState, factor

SCHEDULES: TypeAdapter[Any] = TypeAdapter(ScheduleSpec)


def factors(epochs: int, **spec: Any) -> list[float]:
    schedule = SCHEDULES.validate_python(spec)
    return [factor(schedule, epoch, epochs, PlateauState()) for epoch in range(epochs)]


def test_constant_stays() -> None:
    assert set(factors(10, type="constant")) == {1.0}


def test_warmup_rises_evenly_to_the_full_rate() -> None:
    assert factors(5, type="constant", warmup_epochs=3) == [0.25, 0.5, 0.75, 1, 1]


def test_cosine_falls_from_one_towards_its_final_share() -> None:
    values = factors(100, type="cosine", final=0.1)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.55)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)


def test_one_cycle_peaks_where_it_is_told() -> None:
    values = factors(100, type="one_cycle", peak_at=0.3)
    assert max(values) == values[30] == 1
    assert values[0] == pytest.approx(0.04)
    assert values[-1] < 0.01


def test_step_multiplies_every_so_many_epochs() -> None:
    assert factors(6, type="step", every_epochs=2, factor=0.5) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_plateau_waits_for_progress() -> None:
    schedule = SCHEDULES.validate_python({"type": "plateau", "patience": 2, "factor": 0.5})
    state = PlateauState()
    for loss in (3.0, 2.0, 2.0, float("nan")):
        state.note(schedule, loss)
    assert factor(schedule, 4, 100, state) == 1
    state.note(schedule, 2.5)
    assert factor(schedule, 5, 100, state) == 0.5
