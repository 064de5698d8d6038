"""`descent doctor` finds each fault and says how to remove it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from descent import Client
from descent.doctor import there
from descent.output import FAILED, OK, UNREACHABLE
from descent.schemas.common import Check
from descent.server import PACKAGES
from descent.transport import Transport
from tests.descent.scripted import Answer, scripted
from tests.serving import RunService

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"
PROGRAM = "from descent.__main__ import main; main()"
#: code that simulates an installation without the server extra
LIGHT = f"import sys; sys.modules.update(dict.fromkeys({PACKAGES!r})); {PROGRAM}"


def doctor(
    variables: Mapping[str, str], *words: str, program: str = PROGRAM, code: int = OK
) -> dict[str, dict[str, dict[str, Any]]]:
    """Run the doctor as a separate process; return its checks by place and name."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DESCENT_")}
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "--json", *words],
        env=clean | dict(variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)
    return {place: {check["name"]: check for check in checks} for place, checks in found.items()}


def states(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["state"] for name, check in checks.items()}


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    found = doctor({"DESCENT_DATA_DIR": str(tmp_path / "data")})
    here = states(found["this machine"])
    assert here["client"] == here["settings"] == here["torch"] == "ok"
    assert here["data folder"] == here["database"] == here["storage"] == "note"
    assert "descent serve" in found["this machine"]["database"]["detail"]
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_runs_is_well_from_both_sides(
    run_service: RunService, tmp_path: Path
) -> None:
    with run_service(tmp_path) as url:
        with Client(url) as client:
            client.upload({"a": [1, 2]})
        found = doctor({"DESCENT_DATA_DIR": str(tmp_path), "DESCENT_URL": url})
    here, service = states(found["this machine"]), states(found[url])
    assert {here[name] for name in ("database", "schema", "storage", "data folder")} == {"ok"}
    assert {service[name] for name in ("answer", "database", "blobs", "version", "system")} == {
        "ok"
    }
    assert set(service.values()) <= {"ok", "note"}  # the worker may still be starting


def test_without_the_server_extra_it_looks_at_the_service_alone(service_url: str) -> None:
    found = doctor({"DESCENT_URL": service_url}, program=LIGHT)
    here = found["this machine"]
    assert states(here) == {"client": "ok", "server extra": "note"}
    assert "pip install 'descent[server]'" in here["server extra"]["remedy"]
    assert found[service_url]["answer"]["state"] == "ok"


def test_a_service_that_was_named_and_does_not_answer_is_exit_code_4() -> None:
    found = doctor({}, "--url", NOBODY, code=UNREACHABLE)
    assert "descent serve" in found[NOBODY]["answer"]["remedy"]
    assert list(found) == [NOBODY]


def test_settings_that_are_wrong_are_a_finding_too() -> None:
    found = doctor({"DESCENT_PRT": "1"}, code=FAILED)["this machine"]
    assert states(found) == {"client": "ok", "settings": "failed"}
    assert "DESCENT_PORT" in found["settings"]["detail"]


def remote(*answers: Answer, now: datetime | None = None) -> dict[str, Check]:
    with scripted(*answers) as (url, _):
        transport = Transport(url, "a wrong key", 0)
        checks = there(transport, now or datetime.now(UTC), is_chosen=True)
        found = {check.name: check for check in checks}
        transport.close()
    return found


READY = Answer(200, json.dumps({"status": "ready", "parts": []}).encode())
ALIVE = Answer(200, b'{"status": "ok"}')


def test_a_key_that_is_wrong_is_found() -> None:
    found = remote(ALIVE, READY, Answer(401, b"{}"))
    assert found["key"].state == "failed"
    assert "DESCENT_API_KEY" in str(found["key"].remedy)


def test_something_else_at_the_address_is_found() -> None:
    found = remote(Answer(200, b"<html>"))
    assert [check.state for check in found.values()] == ["failed"]
    assert "is no Descent" in found["answer"].detail


def test_parts_that_are_away_are_found() -> None:
    parts = [
        {"name": "database", "state": "failed", "required": True, "detail": "it is gone"},
        {"name": "workers", "state": "absent", "required": False, "detail": "none"},
    ]
    unready = Answer(503, json.dumps({"status": "not_ready", "parts": parts}).encode())
    found = remote(ALIVE, unready, Answer(503, b"{}"))
    assert found["database"].state == "failed"
    assert found["workers"].state == "warning"
    assert "descent worker" in str(found["workers"].remedy)


def test_another_version_and_another_time_are_found() -> None:
    system = {
        "version": "9.9",
        "database": "sqlite",
        "devices": [],
        "workers": [],
        "queue": {"queued": 0, "states": {}},
        "limits": {},
    }
    answers = (ALIVE, READY, Answer(200, json.dumps(system).encode()))
    found = remote(*answers, now=datetime(2001, 1, 1, tzinfo=UTC))
    assert found["version"].state == "warning"
    assert found["clock"].state == "warning"
