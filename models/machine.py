"""The memory that this machine, or the container around this process, has left."""

from pathlib import Path

MEMORY = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
#: The limit and the use of a container's memory: control groups of version 2, then of version 1.
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def free_memory(memory: Path = MEMORY, cgroup: Path = CGROUP) -> int | None:
    """Return the bytes that a process may still take; None if the system does not say."""
    found = [_available(memory), *(_left(cgroup / limit, cgroup / used) for limit, used in LIMITS)]
    return min((each for each in found if each is not None), default=None)


def _available(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return None


def _left(limit: Path, used: Path) -> int | None:
    """Return what a container has left of its limit; None if there is no limit."""
    try:
        most = int(limit.read_text(encoding="ascii"))
        # Pages of files count as used, but the system frees them when memory is needed.
        stat = (used.parent / "memory.stat").read_text(encoding="ascii").split()
        files = int(stat[stat.index("file") + 1]) if "file" in stat else 0
        return max(0, most - int(used.read_text(encoding="ascii")) + files)
    except (OSError, ValueError):
        return None
