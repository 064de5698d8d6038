"""An alias that is moved under load answers every request, in every process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.chaos.alias_moves import move_under_load


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_alias_is_moved_under_load_and_is_live_everywhere_within_a_second(
    kind: str, make_database: Callable[[str, Path], AbstractContextManager[str]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with make_database(kind, tmp_path) as url:
        figures = move_under_load(data, url, moves=20, clients=8)
    assert all(len(answers) > 20 for answers in figures.seen)
