"""A sample of `make chaos`: some histories on each pair of a database and a store."""

from pathlib import Path

import pytest

from models.engine.kernel import is_there
from tests.chaos.director import LANES, folder_of, report_of
from tests.warm import Order, Parent

pytestmark = pytest.mark.slow

SEED = 105
HISTORIES = 4  # a lane: a process killed with each engine, a disk that is full


#: each database and each store once; `make nightly` plays the other pairs
SAMPLED = [("sqlite", "local"), ("postgresql", "s3")]


@pytest.mark.parametrize(
    ("database", "store"),
    [pytest.param(*lane, marks=() if lane in SAMPLED else pytest.mark.nightly) for lane in LANES],
)
def test_no_promise_is_broken(
    database: str,
    store: str,
    breakable: Parent,
    postgres_url: str,
    s3_url: str,
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path, (database, store))
    order = Order(database, store, folder, postgres_url, s3_url, SEED, 1, HISTORIES)
    breakable.play(order)
    report = report_of(order)
    assert report["wrong"] == []
    assert len(report["reached"]) >= HISTORIES - 1
    assert report["looks"] > 100
    assert report["engines"] == sorted(["autograd", "chunked", *(["kernel"] if is_there() else [])])
