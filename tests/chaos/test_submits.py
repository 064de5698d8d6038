"""A submit that is sent again after its API was killed makes one run."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.chaos.submits import submit_under_kills


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_each_submit_makes_one_run_however_often_the_api_is_killed(
    kind: str, make_database: Callable[[str, Path], AbstractContextManager[str]], tmp_path: Path
) -> None:
    with make_database(kind, tmp_path) as url:
        figures = submit_under_kills(tmp_path, url, submits=90, seed=1, kills=3)
    assert figures.kills == 3
