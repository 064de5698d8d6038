import os
import signal
import subprocess
import sys
from pathlib import Path

from models.failpoints import VARIABLE, reach

PASS_TWICE = (
    "from models.failpoints import reach; reach('here'); print('once', flush=True); reach('here')"
)


def pass_twice(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PASS_TWICE],
        env=os.environ | {VARIABLE: str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_is_killed_at_the_time_that_was_ordered(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("kill 2")
    done = pass_twice(tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")
    assert (tmp_path / "here.times").stat().st_size == 2


def test_processes_count_together(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("full 3")
    assert pass_twice(tmp_path).returncode == 0
    assert "No space left" in pass_twice(tmp_path).stderr


def test_nothing_happens_without_an_order(tmp_path: Path) -> None:
    assert pass_twice(tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_normal_process_looks_for_no_orders(tmp_path: Path) -> None:
    assert VARIABLE not in os.environ
    reach("../anything at all")


def test_a_rehearsal_is_no_visit(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("kill 1")
    code = "from models.failpoints import ignored, reach\nwith ignored('rehearsal'): reach('here')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {VARIABLE: str(tmp_path)}, check=False
    )
    assert done.returncode == 0
    assert not (tmp_path / "here.times").exists()
