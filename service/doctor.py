"""The server's part of `descent doctor`: settings, database, storage, disk, torch and GPU.

Looks only: no folder, no file and no schema is made.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.engine import make_url

from descent.schemas.common import Check, CheckState
from service.access.keys import check_reachable
from service.errors import ServiceError
from service.settings import Settings
from service.storage.database import (
    DatabaseDamaged,
    check_file,
    check_schema,
    create_database,
    is_wal_safe,
    newest_schema_version,
    reading,
    schema_version,
)
from service.storage.s3 import open_store
from service.worker.machine import found_devices

TORCH_S = 60.0  # seconds within which torch must have loaded
SPARE = 1024**3  # bytes of free space below which the disk is soon full
#: Says on one line what torch is and sees. A process of its own: ours never loads it.
TORCH = (
    "import json, torch; cuda = torch.cuda.is_available();"
    "names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())];"
    "print(json.dumps([torch.__version__, torch.version.cuda, names if cuda else []]))"
)
MADE_LATER = "is not there yet: `descent serve` makes it"


def report(read_settings: Callable[[], Settings]) -> str:
    """Return all checks as JSON, a list of `descent.schemas.common.Check`."""
    try:
        settings = read_settings()
    except ValueError as error:
        remedy = "`descent serve --help` lists every setting"
        checks = [Check(name="settings", state="failed", detail=str(error), remedy=remedy)]
    else:
        checks = [Check(name="settings", state="ok", detail=_chosen()), *look(settings)]
    return json.dumps([check.model_dump() for check in checks])


def _chosen() -> str:
    names = sorted(name for name in os.environ if name.startswith("DESCENT_"))
    return f"set: {', '.join(names)}" if names else "all at their defaults"


def look(settings: Settings) -> Iterator[Check]:
    yield from _data_folder(settings)
    yield from _database(settings)
    yield _storage(settings)
    yield from _torch()


def _data_folder(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir.absolute()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        detail = f"{place} is no folder that may be written to"
        remedy = "give it to the user who runs the service, or set DESCENT_DATA_DIR"
        yield Check(name="data folder", state="failed", detail=detail, remedy=remedy)
        return
    detail = str(folder) if place == folder else f"{folder} {MADE_LATER}"
    yield Check(name="data folder", state="ok" if place == folder else "note", detail=detail)
    free = shutil.disk_usage(place).free
    state: CheckState = "ok" if free >= SPARE + settings.ready_disk_bytes else "warning"
    state = "failed" if free < settings.ready_disk_bytes else state
    remedy = "free some, or set DESCENT_DATA_DIR to a larger disk"
    yield Check(
        name="disk",
        state=state,
        detail=f"{free / 1024**3:.1f} GiB are free",
        remedy=None if state == "ok" else remedy,
    )


# ---- the database -------------------------------------------------------------------------------


def _database(settings: Settings) -> Iterator[Check]:
    url = make_url(settings.resolved_database_url)
    is_file = url.get_backend_name() == "sqlite"
    if is_file and not (url.database and Path(url.database).exists()):
        yield Check(name="database", state="note", detail=f"{url.database} {MADE_LATER}")
        return
    shown = url.render_as_string(hide_password=True)
    try:
        engine = create_database(settings.resolved_database_url)
    except ValueError as error:
        yield Check(name="database", state="failed", detail=str(error), remedy=_URL)
        return
    try:
        check_file(engine)
        with reading(engine) as session:
            query = "SELECT sqlite_version()" if is_file else "SHOW server_version"
            version = session.execute(text(query)).scalar_one()
        kind = "SQLite" if is_file else "PostgreSQL"
        yield Check(name="database", state="ok", detail=f"{kind} {version}, {shown}")
        if is_file:
            yield from _sqlite()
        yield _schema(settings, schema_version(engine))
        check_schema(engine)
        check_reachable(engine, settings)
    except ValueError as error:
        remedy = "`descent keys create NAME` makes a key, or set DESCENT_API_KEY"
        yield Check(name="keys", state="failed", detail=str(error), remedy=remedy)
    except ServiceError as error:
        if error.code in {"schema_out_of_date", "schema_too_new"}:
            return  # the check of the schema says so
        detail = f"{shown}: {error.detail}"
        remedy = _RESTORE if isinstance(error, DatabaseDamaged) else _URL
        yield Check(name="database", state="failed", detail=detail, remedy=remedy)
    finally:
        engine.dispose()


_URL = "look at DESCENT_DATABASE_URL, and whether the database runs and lets this machine in"

_RESTORE = "docs/production.md says how to restore a backup"


def _sqlite() -> Iterator[Check]:
    if not is_wal_safe(sqlite3.sqlite_version_info):
        detail = f"SQLite {sqlite3.sqlite_version} may corrupt a database in WAL mode: not used"
        yield Check(name="journal", state="note", detail=detail)


def _schema(settings: Settings, found: str | None) -> Check:
    newest = newest_schema_version()
    if found == newest:
        return Check(name="schema", state="ok", detail=f"{found}, the newest")
    detail = f"{found or 'none'}; this release needs {newest}"
    if settings.is_embedded:
        remedy = "`descent serve` brings it up to date, and keeps a copy of the old one"
        return Check(name="schema", state="note", detail=detail, remedy=remedy)
    remedy = "descent migrate; if the schema is newer, install the newer release"
    return Check(name="schema", state="failed", detail=detail, remedy=remedy)


# ---- storage and devices ------------------------------------------------------------------------


def _storage(settings: Settings) -> Check:
    folder = settings.blob_dir
    if folder is not None and not folder.exists():
        return Check(name="storage", state="note", detail=f"{folder} {MADE_LATER}")
    try:
        open_store(settings).check()
    except (ServiceError, ValueError, OSError) as error:
        detail = error.detail if isinstance(error, ServiceError) else str(error)
        remedy = "look at DESCENT_BLOB_URL, and for a bucket at the AWS_… variables"
        return Check(name="storage", state="failed", detail=detail, remedy=remedy)
    return Check(name="storage", state="ok", detail=str(folder or settings.blob_url))


def _torch() -> Iterator[Check]:
    reinstall = "pip install --force-reinstall 'descent[server]'"
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and a constant
            [sys.executable, "-P", "-c", TORCH],
            capture_output=True,
            timeout=TORCH_S,
            check=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        detail = f"torch did not load within {TORCH_S:g} s"
        yield Check(name="torch", state="failed", detail=detail, remedy=reinstall)
        return
    except subprocess.CalledProcessError as error:
        detail = (error.stderr.strip().splitlines() or ["torch does not load"])[-1]
        yield Check(name="torch", state="failed", detail=detail, remedy=reinstall)
        return
    version, cuda, names = json.loads(done.stdout.splitlines()[-1])
    build = f"for CUDA {cuda}" if cuda else "for the CPU"
    yield Check(name="torch", state="ok", detail=f"{version}, {build}")
    yield gpu(cuda, names, [device for device in found_devices() if "model" in device])


def gpu(cuda: str | None, seen: list[str], present: list[dict[str, str]]) -> Check:
    """Compare the GPUs that torch sees with those that the kernel's driver knows."""
    cores = f"{os.cpu_count()} CPU cores"
    if seen:
        return Check(name="GPU", state="ok", detail=f"{', '.join(seen)}; {cores}")
    if not present:
        return Check(name="GPU", state="note", detail=f"none; {cores}")
    models = ", ".join(device["model"] for device in present)
    if cuda is None:
        remedy = "install a build of torch for CUDA: make install TORCH_INDEX=<its index>"
    else:
        remedy = (
            f"update NVIDIA's driver to one for CUDA {cuda}, or install an older build of torch"
        )
    return Check(
        name="GPU", state="warning", detail=f"{models}, but torch sees none", remedy=remedy
    )
