"""The commands as real processes: start, refusals, and end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service import logs
from service.__main__ import main
from service.runs import lifecycle
from service.runs.tables import Checkpoint
from service.serve import only_service, wait_before
from service.settings import Settings
from service.storage.database import create_database, migrate, newest_schema_version, reading
from tests.service.worker.workplace import until
from tests.serving import ROOT, running_service, start_service, url_of
from tests.warm import children

pytestmark = pytest.mark.slow

IRIS = "descent/data/iris.csv"
STOP_S = 10.0  # seconds that the service may take to end


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Restore the logging of the tests, which a command in this process changes."""
    yield
    logs.configure("warning")


def command(data_dir: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DESCENT_")}
    own = {"DESCENT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "service", *arguments],
        env=inherited | own | variables,
        cwd=data_dir,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_service_migrates_says_where_it_listens_and_ends_when_told(tmp_path: Path) -> None:
    # Otherwise `python -m` would find this folder before ours.
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise RuntimeError('the wrong models')")
    process = start_service(tmp_path, "serve", "--no-worker")
    url = url_of(process, tmp_path)
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/readyz").status_code == 200
    began = time.monotonic()
    process.terminate()
    assert process.wait(STOP_S) == 0
    assert time.monotonic() - began < STOP_S
    assert process.stdout is not None
    assert process.stdout.read() == "", "one line on standard output, no more"
    process.stdout.close()
    log = (tmp_path / "service.log").read_text()
    assert '"route":"/readyz"' in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DESCENT_PROT", "1", "Did you mean DESCENT_PORT?"),
        ("DESCENT_HOST", "0.0.0.0", "keys create"),  # noqa: S104  refused, not bound
        ("DESCENT_DATABASE_URL", "mysql://x", "must begin with sqlite: or postgresql:"),
        ("DESCENT_BLOB_URL", "ftp://x", "blob_url must be file:///folder or s3://bucket"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as refused:
        main(["serve", "--no-worker"])
    assert sentence in str(refused.value)


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("DESCENT_PORT", port)
        with pytest.raises(SystemExit) as refused:
            main(["serve", "--no-worker"])
    assert f"cannot listen on 127.0.0.1 port {port}" in str(refused.value)


def tear(path: Path) -> None:
    """Overwrite a page in the middle of a database, as a bad disk may."""
    engine = create_database(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("damage", [tear, lambda path: path.write_bytes(b"no database" * 1000)])
@pytest.mark.parametrize("arguments", [["serve", "--no-worker"], ["migrate"], ["keys", "list"]])
def test_a_damaged_database_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    damage: Callable[[Path], object],
) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    damage(tmp_path / "descent.sqlite3")
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert "damaged: stop the service and restore a backup" in str(refused.value)


def test_a_worker_refuses_a_file_that_is_no_database_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "descent.sqlite3").write_bytes(b"no database" * 1000)
    done = command(tmp_path, "worker")
    assert done.returncode == 1
    assert done.stderr.startswith("descent: The database file is damaged: ")
    assert done.stderr.count("\n") == 1


def test_a_second_service_on_the_same_data_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    with only_service(Settings(data_dir=tmp_path)), pytest.raises(SystemExit) as refused:
        main(["serve", "--no-worker"])
    assert f"process {os.getpid()} already serves the data folder {tmp_path}" in str(refused.value)
    with only_service(Settings(data_dir=tmp_path)):
        assert (tmp_path / "service.lock").read_text() == str(os.getpid())


def test_services_with_another_database_may_share_a_data_folder(tmp_path: Path) -> None:
    shared = Settings(data_dir=tmp_path, database_url="postgresql://db.internal/descent")
    with only_service(shared), only_service(shared):
        assert list(tmp_path.iterdir()) == []


def test_only_quick_deaths_of_a_worker_delay_its_next_start() -> None:
    waits = [wait_before(quick) for quick in range(10)]
    assert waits == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_postgresql_schema_that_is_not_the_newest_is_refused(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DESCENT_DATABASE_URL", postgres_url)
    with pytest.raises(SystemExit) as refused:
        main(["serve", "--no-worker"])
    assert "descent migrate" in str(refused.value)


def test_a_key_that_a_command_made_opens_a_public_service(tmp_path: Path) -> None:
    secret = command(tmp_path, "keys", "create", "laptop").stdout.strip()
    assert secret.startswith("dsc_")
    with running_service(tmp_path, "--no-worker", DESCENT_HOST="0.0.0.0") as url:  # noqa: S104
        assert httpx.get(f"{url}/api/v1/keys").status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        (key,) = httpx.get(f"{url}/api/v1/keys", headers=headers).json()["data"]
        assert key["name"] == "laptop"
        command(tmp_path, "keys", "delete", key["id"])
        deadline = time.monotonic() + 1
        while httpx.get(f"{url}/api/v1/keys", headers=headers).status_code == 200:
            assert time.monotonic() < deadline
    assert secret not in (tmp_path / "service.log").read_text()


def test_migrate_says_what_it_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DESCENT_DATA_DIR", str(tmp_path))
    main(["migrate"])
    assert f"from nothing to {newest_schema_version()}" in capsys.readouterr().out
    main(["migrate"])
    assert "already the newest" in capsys.readouterr().out


def test_a_worker_is_started_again_and_does_not_outlive_a_killed_service(tmp_path: Path) -> None:
    process = start_service(tmp_path, "serve")
    with httpx.Client(base_url=url_of(process, tmp_path)) as client:
        first = worker_pid(client)
        parent = warm_parent(process.pid)
        os.kill(first, signal.SIGKILL)
        assert worker_pid(client, other_than=first) != first
        assert warm_parent(process.pid) == parent
    process.kill()
    process.wait()
    assert process.stdout is not None
    assert process.stdout.read() == "", "the worker holds the pipe until it has ended"
    process.stdout.close()
    until(lambda: not Path(f"/proc/{parent}").exists())


def warm_parent(service: int) -> int:
    """Return the parent process from which the attempts of a service fork."""
    (pid,) = (
        pid
        for pid in children(service)
        if b"service.worker.launch" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    return pid


def worker_pid(client: httpx.Client, other_than: int | None = None) -> int:
    """Wait until a worker has registered."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        threading.Event().wait(0.1)  # leave the processor to the worker
        for worker in client.get("/api/v1/system").json()["workers"]:
            if worker["pid"] != other_than:
                pid: int = worker["pid"]
                return pid
    pytest.fail("no worker said that it is there")


def test_a_service_that_is_told_to_stop_saves_what_it_trains(tmp_path: Path) -> None:
    # At its end it must stop within ten seconds, with status 0.
    with (
        running_service(tmp_path) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        dataset = client.post(
            "/api/v1/datasets?name=iris&wait=60",
            content=(ROOT / IRIS).read_bytes(),
            headers={"content-type": "text/csv"},
        ).json()["id"]
        slow = {
            "dataset": dataset,
            "target": "column_5",
            # Steps of a tenth of a second or more: a kill that is too early would lose the state.
            "model": {"type": "mlp", "hidden": [4000, 4000]},
            "batch_size": "full",
            "epochs": 10_000,
            "early_stopping": None,
        }
        run_id = client.post("/api/v1/runs", json=slow).json()["id"]
        while not client.get(f"/api/v1/runs/{run_id}/metrics?limit=1").json()["data"]:
            threading.Event().wait(0.05)
    engine = create_database(f"sqlite:///{tmp_path / 'descent.sqlite3'}")
    with reading(engine) as session:
        run = lifecycle.get(session, run_id)
        assert (run.state, run.state_reason, run.crash_streak) == ("queued", "handed_back", 0)
        saved = session.get_one(Checkpoint, run.resume_checkpoint_id)
        assert saved.metric_seq == run.metric_seq
    engine.dispose()


FROZEN = """
import gc
from service.serve import main
from service.settings import Settings
main(Settings(), with_worker=False)
print(gc.get_freeze_count())
"""


def test_what_is_loaded_at_the_start_is_never_looked_through_for_garbage(tmp_path: Path) -> None:
    """A full collection would take a tenth of a second in the middle of a request."""
    environment = os.environ | {"DESCENT_PORT": "0", "DESCENT_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-P", "-c", FROZEN],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert httpx.get(f"{url_of(process, tmp_path)}/readyz").status_code == 200
        process.terminate()
        frozen, _ = process.communicate(timeout=STOP_S)
    assert int(frozen) > 100_000
