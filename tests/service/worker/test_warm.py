"""The parent process of attempts: it outlives workers, and attempts end with it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.worker import machine
from service.worker.launch import LocalChild, LocalLauncher, WarmProcess
from tests.service.worker import rehearsed, toy
from tests.service.worker.toy import Counted, ToyInput
from tests.service.worker.workplace import until
from tests.warm import children

pytestmark = pytest.mark.slow

MODULES = [toy.__name__]
ENDLESS = ToyInput(start=0, until=1_000_000, then="end")


@pytest.fixture(scope="module")
def parent() -> Iterator[WarmProcess]:
    parent = WarmProcess(MODULES)
    yield parent
    parent.close()


@pytest.fixture
def launcher(parent: WarmProcess) -> Iterator[LocalLauncher]:
    launcher = LocalLauncher(MODULES, parent.orders)
    until(launcher.is_warm)
    yield launcher
    launcher.close()


def counted(child: LocalChild) -> Counted:
    """Wait for the next message of a toy."""
    until(child.has_message)
    line = child.receive()
    assert line is not None
    return Counted.model_validate_json(line)


def end(child: LocalChild) -> int | None:
    child.kill()
    return child.exit_code()


def test_a_child_that_is_done_reports_its_exit_status(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    job = ToyInput(start=0, until=1, then="end")
    child = launcher.start(toy.__name__, job, tmp_path)
    assert counted(child).count == 1
    assert child.exit_code() == 0


def test_a_child_is_killed_and_says_by_what(launcher: LocalLauncher, tmp_path: Path) -> None:
    child = launcher.start(toy.__name__, ENDLESS, tmp_path)
    counted(child)
    assert end(child) == -signal.SIGKILL


def test_a_child_that_raises_leaves_its_traceback_in_its_output(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    child = launcher.start("tests.service.worker.none", ENDLESS, tmp_path)
    assert child.exit_code() == 1
    assert "ModuleNotFoundError" in (tmp_path / "output.log").read_text()


def test_a_child_whose_supervisor_died_is_killed_and_the_next_one_is_forked(
    parent: WarmProcess, launcher: LocalLauncher, tmp_path: Path
) -> None:
    child = launcher.start(toy.__name__, ENDLESS, tmp_path)
    pid = counted(child).pid
    os.kill(pid, signal.SIGSTOP)  # so that it cannot notice the death by itself
    child.close()  # as the kernel does when a process dies
    until(lambda: pid not in children(parent.pid))
    other = launcher.start(toy.__name__, ENDLESS, tmp_path)
    assert counted(other).count == 1
    end(other)


def test_children_die_with_their_parent_and_a_new_parent_takes_its_place(tmp_path: Path) -> None:
    parent = WarmProcess(MODULES)
    launcher = LocalLauncher(MODULES, parent.orders)
    until(launcher.is_warm)
    child = launcher.start(toy.__name__, ENDLESS, tmp_path)
    counted(child)
    os.kill(parent.pid, signal.SIGKILL)
    assert child.exit_code() is None
    with pytest.raises(ConnectionError):
        launcher.start(toy.__name__, ENDLESS, tmp_path)
    assert not launcher.is_warm()
    until(launcher.is_warm)
    child = launcher.start(toy.__name__, ENDLESS, tmp_path)
    assert counted(child).count == 1
    end(child)
    launcher.close()
    parent.close()


def test_a_parent_ends_with_the_last_process_that_can_order_forks(tmp_path: Path) -> None:
    parent = WarmProcess(MODULES)
    launcher = LocalLauncher(MODULES, parent.orders)
    until(launcher.is_warm)
    child = launcher.start(toy.__name__, ENDLESS, tmp_path)
    counted(child)
    parent.orders.close()
    until(parent.has_ended)
    assert child.exit_code() is None
    parent.close()


@pytest.fixture
def spare() -> Iterator[tuple[WarmProcess, LocalLauncher]]:
    parent = WarmProcess([rehearsed.__name__])
    launcher = LocalLauncher([rehearsed.__name__], parent.orders)
    until(launcher.is_warm)
    yield parent, launcher
    launcher.close()
    parent.close()


def test_an_order_goes_to_the_spare_child_and_another_one_takes_its_place(
    spare: tuple[WarmProcess, LocalLauncher], tmp_path: Path
) -> None:
    parent, launcher = spare
    for _order in range(2):
        until(lambda: len(children(parent.pid)) == 1)
        waiting = set(children(parent.pid))
        child = launcher.start(rehearsed.__name__, ENDLESS, tmp_path)
        assert counted(child).pid in waiting
        assert end(child) == -signal.SIGKILL


def test_the_death_of_a_spare_child_costs_no_order(
    spare: tuple[WarmProcess, LocalLauncher], tmp_path: Path
) -> None:
    parent, launcher = spare
    (waiting,) = children(parent.pid)
    os.kill(waiting, signal.SIGKILL)
    until(lambda: not children(parent.pid))
    child = launcher.start(rehearsed.__name__, ENDLESS, tmp_path)
    assert counted(child).pid != waiting
    end(child)


def test_a_spare_child_takes_no_lock_and_no_pipe_of_another_attempt(
    spare: tuple[WarmProcess, LocalLauncher], tmp_path: Path
) -> None:
    parent, launcher = spare
    with machine.alive(tmp_path / "locks", "owner") as lock:
        child = launcher.start(rehearsed.__name__, ENDLESS, tmp_path, lock)
        counted(child)
    assert machine.dead(tmp_path / "locks") == []
    end(child)
    until(lambda: len(children(parent.pid)) == 1)
    assert machine.dead(tmp_path / "locks") == ["owner"]


def test_a_lock_is_kept_by_the_attempt_that_was_given_it_and_by_no_other(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("locks", "first", "second")]
    for folder in folders:
        folder.mkdir()
    with machine.alive(folders[0], "owner") as lock:
        first = launcher.start(toy.__name__, ENDLESS, folders[1], lock)
        second = launcher.start(toy.__name__, ENDLESS, folders[2])
        counted(first)
        counted(second)
    assert machine.dead(folders[0]) == []
    end(first)
    assert machine.dead(folders[0]) == ["owner"]
    end(second)


@pytest.mark.parametrize("spawns", [False, True])
def test_variables_are_those_of_one_attempt_and_secrets_of_none(
    parent: WarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, spawns: bool
) -> None:
    monkeypatch.setenv("DESCENT_API_KEY", "a secret of the worker")
    launcher = LocalLauncher(MODULES, parent.orders, spawns=spawns)
    until(launcher.is_warm)
    own = {"CUDA_VISIBLE_DEVICES": "3"}
    first = launcher.start(toy.__name__, ENDLESS, tmp_path, None, own)
    message = counted(first)
    environment = Path(f"/proc/{message.pid}/environ").read_bytes()
    end(first)
    second = launcher.start(toy.__name__, ENDLESS, tmp_path)
    assert (message.gpu, counted(second).gpu) == ("3", os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert end(second) == -signal.SIGKILL
    assert b"a secret" not in environment
    launcher.close()
