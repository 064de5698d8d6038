"""A disk so small that a test can fill it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNT, UNMOUNT = "/bin/mount", "/bin/umount"


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Give the folder of a small disk; skip the test where none can be mounted."""
    folder.mkdir()
    mount = [MOUNT, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([UNMOUNT, "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave not a byte free, as often as it is called; return the file to remove."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast
