"""The server's commands: `python -P -m service serve | worker | migrate | keys | doctor | openapi`.

Each command loads only its own modules: the worker no web framework, the API no supervisor.
"""

import argparse
import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine, select

from descent import schemas
from models import failpoints
from service.access import keys
from service.access.keys import Key
from service.errors import ServiceError
from service.settings import Settings
from service.storage.columns import utc_now
from service.storage.database import (
    check_schema,
    create_database,
    migrate,
    newest_schema_version,
    reading,
    schema_version,
    writing,
)

PREFIX = "DESCENT_"
#: variables that are not settings: the client's, and the one with which tests cause failures
OTHERS = frozenset({"DESCENT_URL", failpoints.VARIABLE})


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings; raise a ValueError that names the wrong variable."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.startswith(PREFIX) and name not in known | OTHERS:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name} is not a setting.{hint} `--help` lists all settings.")
    try:
        return Settings()
    except ValidationError as error:
        raise ValueError("; ".join(_sentence(dict(item)) for item in error.errors())) from error


def _sentence(item: Mapping[str, object]) -> str:
    place = item["loc"]
    name = PREFIX + str(place[0]).upper() if isinstance(place, tuple) and place else "settings"
    message = str(item["msg"]).removeprefix("Value error, ")
    # A refused key must not be shown.
    got = "" if "KEY" in name or name == "settings" else f", got {item['input']!r}"
    return f"{name}: {message}{got}"


def settings_help() -> str:
    """Return one line for each setting: variable, default, meaning."""
    lines = ["settings, read from environment variables:"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f" [{field.default}]"
        lines.append(f"  {PREFIX}{name.upper():<20} {field.description}{default}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="descent",
        description="Runs the service and looks after it.",
        epilog=settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the API, and one worker beside it")
    serve.add_argument("--no-worker", action="store_true", help="run the API only")
    worker = commands.add_parser("worker", help="run a worker, which does the jobs in the queue")
    # Only `serve` uses these two: standard input wakes the worker, and the descriptor leads to the
    # warm parent that forks its attempts.
    worker.add_argument("--stdin-wake", action="store_true", help=argparse.SUPPRESS)
    worker.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    migrate = commands.add_parser("migrate", help="bring the database schema up to date")
    migrate.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("doctor")  # without help, because people use `descent doctor`
    commands.add_parser("openapi", help="print the description of the API")
    actions = commands.add_parser("keys", help="API keys").add_subparsers(
        dest="action", required=True
    )
    create = actions.add_parser("create", help="make a key and show its secret once")
    create.add_argument("name")
    create.add_argument("--days", type=float, help="days after which it expires")
    listing = actions.add_parser("list", help="show the keys without their secrets")
    delete = actions.add_parser("delete", help="revoke a key")
    delete.add_argument("id")
    for action in (create, listing, delete):
        action.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.command == "doctor":
        from service import doctor

        _say(doctor.report(lambda: read_settings(os.environ)))
        return
    try:
        settings = read_settings(os.environ)
        if given.command == "serve":
            from service import serve

            serve.main(settings, with_worker=not given.no_worker)
        elif given.command == "worker":
            from service import logs, work

            logs.configure(settings.log_level)
            work.main(settings, stdin_wake=given.stdin_wake, warm=given.warm)
        elif given.command == "migrate":
            _migrate(settings, as_json=given.json)
        elif given.command == "openapi":
            from service import app

            _say(app.contract())
        else:
            _keys(settings, given)
    except (ServiceError, ValueError, OSError) as error:
        sys.exit(f"descent: {error}")


def _migrate(settings: Settings, *, as_json: bool) -> None:
    engine = create_database(settings.resolved_database_url)
    before = schema_version(engine)
    copy = migrate(engine)
    engine.dispose()
    after = newest_schema_version()
    if as_json:
        kept_as = str(copy) if copy else None
        _say(json.dumps({"before": before, "after": after, "kept_as": kept_as}))
        return
    if before == after:
        _say(f"The schema is already the newest, {after}.")
        return
    kept = f" The old database was kept as {copy}." if copy else ""
    _say(f"The schema went from {before or 'nothing'} to {after}.{kept}")


def _keys(settings: Settings, given: argparse.Namespace) -> None:
    database = settings.data_dir.absolute() / "descent.sqlite3"
    is_own = settings.is_embedded and not settings.database_url
    if is_own and given.action != "create" and not database.exists():
        raise ValueError(f"there is no database {database}: set DESCENT_DATA_DIR to its folder")
    engine = create_database(settings.resolved_database_url)
    if settings.is_embedded:
        migrate(engine)
    check_schema(engine)
    try:
        if given.action == "create":
            _create_key(engine, given.name, given.days, as_json=given.json)
        elif given.action == "list":
            _list_keys(engine, as_json=given.json)
        else:
            _delete_key(engine, given.id, as_json=given.json)
    finally:
        engine.dispose()


def _create_key(engine: Engine, name: str, days: float | None, *, as_json: bool) -> None:
    expires_at = None if days is None else utc_now() + timedelta(days=days)
    with writing(engine) as session:
        key, secret = keys.create(session, name, expires_at)
    if as_json:
        _say(json.dumps({**_body(key), "secret": secret}))
        return
    _say(secret)
    sys.stderr.write(
        f"{key.id} {name!r}: this secret is shown only now, keep it safe. From now on every request"
        f" to the service with the database {engine.url.database} needs a key.\n"
    )


def _body(key: Key) -> dict[str, Any]:
    return schemas.Key.model_validate(key, from_attributes=True).model_dump(mode="json")


def _list_keys(engine: Engine, *, as_json: bool) -> None:
    with reading(engine) as session:
        found = session.scalars(select(Key).order_by(Key.id)).all()
        if as_json:
            _say(json.dumps([_body(key) for key in found]))
            return
        for key in found:
            until = f"until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "never expires"
            _say(f"{key.id}  {key.prefix}…  {until}  {key.name}")


def _delete_key(engine: Engine, key_id: str, *, as_json: bool) -> None:
    with writing(engine) as session:
        key = session.get(Key, key_id)
        if key is None:
            raise ValueError(f"there is no key {key_id!r}: `keys list` shows them")
        session.delete(key)
    _say(json.dumps({"deleted": key_id}) if as_json else f"{key_id} is revoked.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
