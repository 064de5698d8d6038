"""Which supervisors of this machine are alive: each holds a lock that the kernel frees at its end.

So the death of one is noticed at once, not when its leases run out. Its trainers inherit the lock:
it is free when the last of them is gone too, and no successor trains beside one that lingers.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alive(folder: Path, owner: str) -> Iterator[int]:
    """Hold the lock of `owner` for the block; gives its descriptor, for children to inherit."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / owner).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def dead(folder: Path) -> list[str]:
    """Return the owners that have ended, with all their trainers: their lock is free."""
    return [path.name for path in folder.iterdir() if _is_free(path)]


def forget(folder: Path, owner: str) -> None:
    """Remove the lock of an owner that has ended and holds no run."""
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
