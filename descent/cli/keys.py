"""`descent keys`: API keys, directly in the database or through the service."""

from typing import Annotated

import typer

from descent.cli.arguments import AsJson, client, in_days
from descent.output import print_done, print_list, say
from descent.server import become_server

COLUMNS = {
    "id": "id",
    "begins with": "prefix",
    "expires": "expires_at",
    "created": "created_at",
    "name": "name",
}

app = typer.Typer(
    no_args_is_help=True,
    help="API keys: directly in the database, or with --remote through the service.",
)

Remote = Annotated[
    bool, typer.Option("--remote", help="Use the service at DESCENT_URL, not the database.")
]


@app.command()
def create(
    name: str,
    days: Annotated[
        float | None, typer.Option(help="The key expires after this many days.")
    ] = None,
    *,
    remote: Remote = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and show its secret once. From now on every request needs a key."""
    if not remote:
        expiry = [] if days is None else ["--days", str(days)]
        become_server("keys", ["create", *_json(as_json), *expiry, "--", name])
    with client() as service:
        key = service.create_key(name, in_days(days))
    if as_json:
        say(key.model_dump_json())
    else:
        say(str(key.secret))
        typer.echo(f"{key.id} {name!r}: this secret is shown only now, keep it safe.", err=True)


@app.command("list")
def list_keys(*, remote: Remote = False, as_json: AsJson = False) -> None:
    """List the keys without their secrets."""
    if not remote:
        become_server("keys", ["list", *_json(as_json)])
    with client() as service:
        found = list(service.keys())
    print_list(found, COLUMNS, as_json=as_json)


@app.command()
def delete(key_id: str, *, remote: Remote = False, as_json: AsJson = False) -> None:
    """Revoke a key."""
    if not remote:
        become_server("keys", ["delete", *_json(as_json), "--", key_id])
    with client() as service:
        service.delete_key(key_id)
    print_done(f"{key_id} is revoked.", {"deleted": key_id}, as_json=as_json)


def _json(as_json: bool) -> list[str]:  # noqa: FBT001  turns the flag into arguments
    return ["--json"] if as_json else []
