from pathlib import Path

import pytest

from models.machine import free_memory

MEMORY = "MemTotal:  8000 kB\nMemFree:  1000 kB\nMemAvailable:  5000 kB\n"


def machine(folder: Path, **files: str) -> int | None:
    (folder / "meminfo").write_text(MEMORY)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return free_memory(folder / "meminfo", folder)


def test_a_machine_has_what_its_system_calls_available(tmp_path: Path) -> None:
    assert machine(tmp_path) == 5_000 * 1024


def test_a_container_has_what_its_limit_leaves_and_the_pages_of_files(tmp_path: Path) -> None:
    files = {"memory_max": "1000000\n", "memory_current": "800000\n"}
    stat = "anon 500000\nfile 300000\n"
    assert machine(tmp_path, **files, memory_stat=stat) == 500_000


@pytest.mark.parametrize("limit", ["max", "99999999999999"])
def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path, limit: str) -> None:
    files = {"memory_max": limit, "memory_current": "1", "memory_stat": "file 0"}
    assert machine(tmp_path, **files) == 5_000 * 1024


def test_a_system_that_does_not_say_limits_nothing(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "none", tmp_path) is None
