import signal
from pathlib import Path

import pytest

from service.jobs import life
from service.jobs.kind import SENTENCES


def machine(root: Path, *, group: str | None, of_group: int | None, of_machine: int) -> Path:
    """Write the kernel's report of its kills."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/vmstat").write_text(f"nr_free_pages 7\noom_kill {of_machine}\npgpgin 3\n")
    if group is not None:
        (root / "proc/self/cgroup").write_text(f"1:cpu:/other\n0::{group}\n")
        folder = root / "sys/fs/cgroup" / group.lstrip("/")
        folder.mkdir(parents=True)
        if of_group is not None:
            (folder / "memory.events").write_text(f"low 0\noom 9\noom_kill {of_group}\n")
    return root


@pytest.mark.parametrize("group", ["/", "/system.slice/descent.service"])
def test_kills_are_counted_in_the_workers_own_group(tmp_path: Path, group: str) -> None:
    assert life.memory_kills(machine(tmp_path, group=group, of_group=2, of_machine=5)) == 2


@pytest.mark.parametrize("group", [None, "/user.slice"])
def test_without_a_count_of_the_group_the_machines_stands_in(
    tmp_path: Path, group: str | None
) -> None:
    assert life.memory_kills(machine(tmp_path, group=group, of_group=None, of_machine=5)) == 5


def test_a_machine_that_tells_nothing_has_no_kills(tmp_path: Path) -> None:
    assert life.memory_kills(tmp_path) == 0


def test_a_kill_while_the_kernel_ran_out_of_memory_is_told_as_that() -> None:
    death = life.explain(-signal.SIGKILL, "", memory_kills=1)
    assert (death.code, death.words) == ("out_of_memory", "killed by SIGKILL")
    assert "The machine ran out of memory" in SENTENCES[death.code].format(
        words=death.words, streak=3
    )


@pytest.mark.parametrize(
    ("status", "kills", "words"),
    [
        (-signal.SIGKILL, 0, "killed by SIGKILL; it said: last"),
        (-signal.SIGSEGV, 1, "killed by SIGSEGV; it said: last"),
        (1, 1, "exit status 1; it said: last"),
        (None, 1, "exit status None; it said: last"),
    ],
)
def test_any_other_death_is_a_loss_with_its_last_words(
    status: int | None, kills: int, words: str
) -> None:
    death = life.explain(status, "last", memory_kills=kills)
    assert (death.code, death.words) == ("worker_lost", words)


def test_a_trainer_that_was_killed_for_standing_still_has_stalled() -> None:
    death = life.explain(-signal.SIGKILL, "", stalled_s=300.0, memory_kills=1)
    assert (death.code, death.words) == ("stalled", "no sign of progress for 300 s")
