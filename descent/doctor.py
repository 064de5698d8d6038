"""`descent doctor`: checks this installation, a local service's settings, and a running service.

`service.doctor` checks the server's side in a separate process, so that this module works without
the server extra.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib import metadata

import httpx
from pydantic import TypeAdapter, ValidationError

from descent import schemas
from descent.errors import DescentError
from descent.schemas.common import Check, CheckState
from descent.server import missing_packages
from descent.transport import API, Transport

LOCAL_S = 120.0  # seconds for the checks of the server's side, which load torch
CLOCK_S = 60.0  # seconds that two clocks may differ by
NEEDED = ("httpx", "pydantic", "rich", "typer")
OPTIONAL = ("pandas", "polars", "pyarrow", "matplotlib")
CHECKS = TypeAdapter(list[Check])
#: the remedy for each part of a service that is not well
PARTS = {
    "database": "see its log; `descent migrate` brings an older schema up to date",
    "blobs": "see its log; look at DESCENT_BLOB_URL and at the free space",
    "disk": "free some space on the service's machine, or set DESCENT_DATA_DIR to a larger disk",
    "workers": "start one: `descent worker`, or `descent serve` without --no-worker",
}
#: the name of the check that fails if the service gives no answer
ANSWER = "answer"


def here(environment: Mapping[str, str]) -> Iterator[Check]:
    """Check the client's packages and, if the server extra is installed, the server's side."""
    yield _versions()
    missing = missing_packages()
    if missing:
        yield Check(
            name="server extra",
            state="note",
            detail=f"not installed ({', '.join(missing)}): this is the client only",
            remedy="to run a service here: pip install 'descent[server]'",
        )
    else:
        yield from _server_side(environment)


def _versions() -> Check:
    found = {name: _version(name) for name in ("descent", *NEEDED, *OPTIONAL)}
    known = ", ".join(f"{name} {version}" for name, version in found.items() if version)
    return Check(name="client", state="ok", detail=f"Python {platform.python_version()}, {known}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _server_side(environment: Mapping[str, str]) -> list[Check]:
    command = [sys.executable, "-P", "-m", "service", "doctor"]
    try:
        done = subprocess.run(  # noqa: S603  this interpreter, fixed arguments
            command,
            env=dict(environment),
            capture_output=True,
            timeout=LOCAL_S,
            check=False,
            text=True,
        )
        return CHECKS.validate_json(done.stdout)
    except subprocess.TimeoutExpired:
        detail = f"the checks took longer than {LOCAL_S:g} s"
    except ValidationError:
        detail = (done.stderr.strip().splitlines() or ["the checks said nothing"])[-1]
    remedy = "pip install --force-reinstall 'descent[server]'"
    return [Check(name="server extra", state="failed", detail=detail, remedy=remedy)]


# ---- a service ----------------------------------------------------------------------------------


def there(transport: Transport, now: datetime, *, is_chosen: bool) -> Iterator[Check]:
    """Check a service. That none runs at the default address is a note, not a failure."""
    began = time.monotonic()
    try:
        answer = transport.look("/healthz")
    except DescentError:
        yield Check(
            name=ANSWER,
            state="failed" if is_chosen else "note",
            detail=f"nothing answers at {transport.url}",
            remedy="`descent serve` starts a service here; DESCENT_URL names another one",
        )
        return
    took = time.monotonic() - began
    if not _is_descent(answer):
        detail = f"{transport.url} answers {answer.status_code}, but is no Descent"
        remedy = "look at DESCENT_URL, and at the proxy in front of the service"
        yield Check(name=ANSWER, state="failed", detail=detail, remedy=remedy)
        return
    yield Check(name=ANSWER, state="ok", detail=f"{transport.url} in {took * 1000:.0f} ms")
    yield from _clock(answer, now)
    yield from _parts(transport)
    yield from _system(transport)


def _is_descent(answer: httpx.Response) -> bool:
    try:
        return answer.is_success and schemas.Health.model_validate_json(answer.content) is not None
    except ValidationError:
        return False


def _clock(answer: httpx.Response, now: datetime) -> Iterator[Check]:
    try:
        off_s = (now - parsedate_to_datetime(answer.headers["Date"])).total_seconds()
    except (KeyError, ValueError, TypeError):
        return  # a proxy removed the header or wrote something that is not a time
    if abs(off_s) > CLOCK_S:
        detail = f"the service's clock differs from this one's by {off_s:.0f} s"
        remedy = "set both by NTP: keys expire by the service's clock"
        yield Check(name="clock", state="warning", detail=detail, remedy=remedy)


def _parts(transport: Transport) -> Iterator[Check]:
    answer = transport.look("/readyz")
    try:
        parts = schemas.Readiness.model_validate_json(answer.content).parts
    except ValidationError:
        detail = f"/readyz answers {answer.status_code}, which cannot be read"
        yield Check(name="ready", state="failed", detail=detail, remedy="look at its log")
        return
    for part in parts:
        state: CheckState = "ok" if part.state == "ok" else "failed" if part.required else "warning"
        if part.state == "warming":
            state = "note"
        is_well = state in {"ok", "note"}
        remedy = None if is_well else PARTS.get(part.name, "see the log of the service")
        yield Check(name=part.name, state=state, detail=part.detail or part.state, remedy=remedy)


def _system(transport: Transport) -> Iterator[Check]:
    answer = transport.look(f"{API}/system")
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        detail = "the service needs a key, and does not know this one"
        remedy = "set DESCENT_API_KEY; `descent keys create NAME` makes one on the server"
        yield Check(name="key", state="failed", detail=detail, remedy=remedy)
        return
    try:
        system = schemas.System.model_validate_json(answer.content)
    except ValidationError:
        detail = f"{API}/system answers {answer.status_code}, which cannot be read"
        yield Check(name="system", state="failed", detail=detail, remedy="look at its log")
        return
    yield _same_version(system.version)
    names = (str(device.get("model") or device.get("name")) for device in system.devices)
    queue = f"{system.queue.queued} runs queued"
    detail = f"{system.database}, {', '.join(names) or 'no device'}, {queue}"
    yield Check(name="system", state="ok", detail=detail)


def _same_version(version: str) -> Check:
    own = _version("descent")
    if version == own:
        return Check(name="version", state="ok", detail=f"{version}, as this client")
    detail = f"the service is {version}, this client {own}"
    remedy = "install the same version on both sides"
    return Check(name="version", state="warning", detail=detail, remedy=remedy)


def as_json(checks: Mapping[str, list[Check]]) -> str:
    found = {place: [check.model_dump() for check in group] for place, group in checks.items()}
    return json.dumps(found)
