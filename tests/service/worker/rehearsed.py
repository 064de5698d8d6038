"""The process of a toy for which the warm parent keeps a spare child."""

from tests.service.worker import toy

main = toy.main


def rehearse() -> None:
    """Have nothing to rehearse."""
