"""Named places where a test may kill, stop or fail the process; in normal runs they do nothing.

Only a process that starts with `DESCENT_FAILPOINTS`, a folder, looks for orders there: a file
named like the place says what to do and at which time the place is reached, `kill 2` for the
second. All processes with the same folder count together.
"""

import errno
import os
import signal
from pathlib import Path

VARIABLE = "DESCENT_FAILPOINTS"
FOLDER = os.environ.get(VARIABLE)
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def reach(name: str) -> None:
    """Pass the place `name`, unless an order for it is due; `full` raises what a full disk does."""
    if FOLDER:
        _obey(Path(FOLDER), name)


def _obey(folder: Path, name: str) -> None:
    try:
        action, due = (folder / name).read_text().split()
    except FileNotFoundError:
        return
    # Appended by one write each, so the place in the file is the number of this time.
    with (folder / f"{name}.times").open("ab", buffering=0) as file:
        file.write(b".")
        times = file.tell()
    if times != int(due):
        return
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    os.kill(os.getpid(), SIGNALS[action])
