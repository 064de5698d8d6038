"""The locks that tell which supervisors of this machine are alive; the kernel frees them.

The death of a supervisor is noticed at once by its lock, not only when its leases run out. Its
attempts inherit the lock, so it is free only when the last of them has ended too, and no successor
trains beside an attempt that lingers.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alive(folder: Path, owner: str) -> Iterator[int]:
    """Hold the lock of `owner` for the block; gives its descriptor, for children to inherit."""
    folder.mkdir(parents=True, exist_ok=True)
    unseen = folder / f".{owner}"  # until it is locked, or another worker would take us for dead
    with unseen.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        unseen.rename(folder / owner)
        yield file.fileno()


def dead(folder: Path) -> list[str]:
    """Return the owners that have ended, with all their attempts: their lock is free."""
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return [path.name for path in found if _is_free(path)]


def forget(folder: Path, owner: str) -> None:
    """Remove the lock of an owner that has ended and holds no job."""
    (folder / owner).unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True
