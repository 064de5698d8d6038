"""The parser's process: its limits hold, and its death affects no other process."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.datasets import sandbox
from service.datasets.messages import XLSX
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from tests.service.datasets.workbooks import workbook
from tests.serving import ROOT

MIB = 1024 * 1024
LIMITS = Limits(memory_bytes=512 * MIB, timeout_s=60)


def task(folder: Path, data: bytes, **changes: Any) -> Task:
    path = folder / "received"
    path.write_bytes(data)
    (folder / "scratch").mkdir(exist_ok=True)
    fields: dict[str, Any] = {
        "path": str(path),
        "folder": str(folder / "scratch"),
        "media_type": "text/csv",
        "options": {},
        "max_columns": 1000,
        "parser": "service.datasets.parse:parse",
    }
    return Task(**(fields | changes))


def test_a_table_comes_back_from_the_process(tmp_path: Path) -> None:
    parsed = sandbox.run(task(tmp_path, b"x,y\n1,2\n3,4\n"), LIMITS)
    assert (parsed["rows"], len(parsed["columns"])) == (2, 2)
    assert (tmp_path / "scratch" / "table.parquet").exists()


def test_a_workbook_is_read_in_the_process(tmp_path: Path) -> None:
    book = workbook({"A": [["x", "y"], [1, 2], [3, 4]]})
    parsed = sandbox.run(task(tmp_path, book, media_type=XLSX), LIMITS)
    assert (parsed["rows"], parsed["reading"]["sheet"]) == (2, "A")


def test_a_workbook_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    book = workbook({"A": [["x", "y"], *([n, f"text {n}"] for n in range(20_000))]})
    with pytest.raises(Rejected):
        sandbox.run(task(tmp_path, book, media_type=XLSX), Limits(8 * MIB, timeout_s=60))


def test_a_rehearsal_starts_no_thread_that_the_confinement_would_not_bind() -> None:
    script = (
        "import os\nfrom service.datasets import parse\n"
        "if os.fork():\n    os.wait()\n"
        "else:\n    parse.rehearse()\n    print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["1"]


def test_a_refusal_comes_back_with_its_rows(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as refused:
        sandbox.run(task(tmp_path, b"x,y\n1\n"), LIMITS)
    assert (refused.value.code, refused.value.errors[0]["row"]) == ("ragged_row", 1)


def test_a_file_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    body = b'{"rows":[' + b",".join([b"[[[]]]"] * 1_000_000) + b"]}"
    wanted = task(tmp_path, body, media_type="application/json")
    with pytest.raises(Rejected) as refused:
        sandbox.run(wanted, Limits(memory_bytes=32 * MIB, timeout_s=60))
    assert refused.value.code == "parse_out_of_memory"


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    data = b"x,y\n" + b"1,2\n" * 1_000_000
    began = time.monotonic()
    with pytest.raises(Rejected) as refused:
        sandbox.run(task(tmp_path, data), Limits(memory_bytes=512 * MIB, timeout_s=0.01))
    assert refused.value.code == "parse_timeout"
    assert time.monotonic() - began < 20


def test_a_process_that_dies_is_a_refusal_that_names_the_signal() -> None:
    refused = sandbox.died(-11, LIMITS)
    assert refused.code == "dataset_unparseable"
    assert "SIGSEGV" in refused.detail


KEPT = """
import sys
from pathlib import Path
from service.datasets import sandbox
inside, outside = Path(sys.argv[1]), Path(sys.argv[2])
sandbox.confine(sandbox.Limits(512 * 1024 * 1024, 60))
is_kept = sandbox.keep_to(inside)
(inside / "file").write_text("x")
try:
    (outside / "file").write_text("x")
    print(is_kept, "left")
except PermissionError:
    print(is_kept, "kept")
"""


def test_the_process_makes_no_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    told = subprocess.run(
        [sys.executable, "-c", KEPT, tmp_path / "inside", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    # An old kernel lacks the feature and reports that.
    assert told.stdout.split() in (["True", "kept"], ["False", "left"])


CONFINED = """
import os, socket
from service.datasets import sandbox
sandbox.confine(sandbox.Limits(512 * 1024 * 1024, 60))
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except ConnectionRefusedError:
    reach = "network"  # somebody was there to refuse
except OSError:
    reach = "none"
print(len(os.environ), reach)
"""


def test_the_process_has_no_environment_and_no_network() -> None:
    told = subprocess.run(
        [sys.executable, "-c", CONFINED], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert told == ["0", "none"] or (os.getuid() != 0 and told == ["0", "network"])
