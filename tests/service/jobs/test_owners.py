"""The locks by which supervisors of one machine know each other's death."""

from pathlib import Path

from service.jobs import owners


def test_an_owner_that_lives_is_not_dead(tmp_path: Path) -> None:
    with owners.alive(tmp_path, "first"):
        assert owners.dead(tmp_path) == []
    assert owners.dead(tmp_path) == ["first"]
