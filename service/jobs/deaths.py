"""Why a process ended without a last message: a stall, a lack of memory, or an unknown cause.

Reads the kernel's counters and nothing else; `life` decides what follows for the job.
"""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from descent.codes import ErrorCode

#: the causes that are told apart
DeathCode = Literal["worker_lost", "out_of_memory", "stalled"]

#: Deaths without a new checkpoint between them that end a run, by the code of the last one.
MOST: dict[DeathCode, int] = {"worker_lost": 3, "out_of_memory": 3, "stalled": 2}
#: code → the sentence of a job that fails by deaths of that code
SENTENCES = {
    "worker_lost": "The process died {streak} times and got no further ({words}). Check"
    " the worker's log, then ask again.",
    "out_of_memory": "The machine ran out of memory, so its kernel killed the process;"
    " it died {streak} times and got no further ({words}). Use a smaller model, or a worker with"
    " more memory.",
    "stalled": "The process stood still, and ended {streak} times and got no further"
    " ({words}). Check the worker, then ask again; the setting DESCENT_STALL_S says how long it may"
    " be silent.",
}


@dataclass(frozen=True)
class Death:
    """The cause of a death, for the row of the job."""

    code: DeathCode
    #: the exit status and the last output of the process
    words: str


def problem(code: ErrorCode, detail: str, *, where: str | None = None) -> dict[str, Any]:
    """Return the problem object of a job that failed; `where` says which memory ran out."""
    place = {"where": where} if where else {}
    return {
        "type": f"urn:descent:error:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": 500 if code in {"worker_lost", "stalled", "internal_error"} else 422,
        "code": code,
        "detail": detail,
    } | place


def explain(
    status: int | None, words: str, *, stalled_s: float | None = None, memory_kills: int = 0
) -> Death:
    """Tell a stall, a lack of memory and other deaths apart.

    `stalled_s` is the time without progress after which the supervisor killed the process, and
    `memory_kills` the number of processes that the kernel killed for lack of memory meanwhile.
    """
    how = f"exit status {status}"
    if status is not None and status < 0:
        how = f"killed by {signal.Signals(-status).name}"
    if stalled_s is not None:
        how = f"no sign of progress for {stalled_s:g} s"
    told = f"{how}; it said: {words}" if words else how
    if stalled_s is not None:
        return Death(code="stalled", words=told)
    if status == -signal.SIGKILL and memory_kills > 0:
        return Death(code="out_of_memory", words=told)
    return Death(code="worker_lost", words=told)


def memory_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed for lack of memory, in this control group.

    Children are in the group of their supervisor. Without control groups (version 2) it is the
    count of the whole machine.
    """
    lines = _lines(root / "proc/self/cgroup")
    group = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = root / "sys/fs/cgroup" / group.lstrip("/")
    for path in (folder / "memory.events", root / "proc/vmstat"):
        for line in _lines(path):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
