"""An alias that moves under load answers every request, in every process."""

from pathlib import Path

import pytest

from tests.chaos.alias_moves import move_under_load
from tests.conftest import MakeDatabase
from tests.serving import RunService

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def test_an_alias_is_moved_under_load_and_is_live_everywhere_within_a_second(
    kind: str, make_database: MakeDatabase, run_service: RunService, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with make_database(kind, tmp_path) as url:
        figures = move_under_load(data, url, moves=20, clients=8, run_service=run_service)
    assert all(len(answers) > 20 for answers in figures.seen)
