"""A submit that is repeated after the API was killed creates one run."""

from pathlib import Path

import pytest

from tests.chaos.submits import submit_under_kills
from tests.conftest import MakeDatabase
from tests.warm import Parent

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def test_each_submit_makes_one_run_however_often_the_api_is_killed(
    kind: str, make_database: MakeDatabase, warm: Parent, tmp_path: Path
) -> None:
    with make_database(kind, tmp_path) as url:
        figures = submit_under_kills(tmp_path, url, submits=90, seed=1, kills=3, start=warm.start)
    assert figures.kills == 3
