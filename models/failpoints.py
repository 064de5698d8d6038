"""Named places where a test can kill, stop or fail the process; in normal runs they do nothing.

A process looks for orders only if the environment variable `DESCENT_FAILPOINTS` names a folder
when it starts. An order is a file with the name of the place. It holds an action and the number of
the visit at which to act: `kill 2` kills at the second visit. All processes with the same folder
share one count.
"""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "DESCENT_FAILPOINTS"
FOLDER = os.environ.get(VARIABLE)
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_ignored: list[str] = []  # the reasons for which this process passes every place


def reach(name: str) -> None:
    """Pass the place `name`, unless an order for it is due.

    `kill` and `stop` send that signal to this process; `full` raises the OSError of a full disk.
    """
    if FOLDER and not _ignored:
        _obey(Path(FOLDER), name)


@contextmanager
def ignored(reason: str) -> Iterator[None]:
    """Count no visit and obey no order inside the block, because it does no job."""
    _ignored.append(reason)
    try:
        yield
    finally:
        _ignored.remove(reason)


def _obey(folder: Path, name: str) -> None:
    try:
        action, due = (folder / name).read_text().split()
    except FileNotFoundError:
        return
    # Every visit appends one byte, so the size of the file is the number of this visit.
    with (folder / f"{name}.times").open("ab", buffering=0) as file:
        file.write(b".")
        times = file.tell()
    if times != int(due):
        return
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    # Written before the signal, so that a test can wait for the end of this process.
    (folder / f"{name}.{action}.{os.getpid()}").touch()
    os.kill(os.getpid(), SIGNALS[action])
