"""`descent models`: trained models, their versions and aliases."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from descent.cli.arguments import Alias, AsJson, Limit, ModelName, Version, client, existing
from descent.output import print_done, print_list, print_one

COLUMNS = {
    "name": "name",
    "newest": "latest_version",
    "aliases": "aliases",
    "created": "created_at",
}
VERSION_COLUMNS = {
    "version": "version",
    "proof": "proof",
    "aliases": "aliases",
    "bytes": "bytes",
    "created": "created_at",
    "run": "run_id",
}
POINTS_TO = {"version": "version", "canary": "canary", "shadow": "shadow.version"}
ALIAS_COLUMNS = {"alias": "alias"} | POINTS_TO | {"moved": "updated_at"}
MOVE_COLUMNS = {"revision": "revision", "how": "how"} | POINTS_TO | {"moved": "moved_at"}

app = typer.Typer(no_args_is_help=True, help="Trained models, their versions and aliases.")

AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")]


@app.command("list")
def list_models(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List models."""
    with client() as service:
        found = list(islice(service.models(), limit))
    print_list(found, COLUMNS, as_json=as_json)


@app.command()
def show(
    name: ModelName, version: Version = None, alias: Alias = None, *, as_json: AsJson = False
) -> None:
    """Show the newest version of a model, or another one."""
    with client() as service:
        print_one(service.model(name, version=version, alias=alias).info(), as_json=as_json)


@app.command()
def versions(name: ModelName, *, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the versions of a model."""
    with client() as service:
        found = list(islice(service.model(name).versions(), limit))
    print_list(found, VERSION_COLUMNS, as_json=as_json)


@app.command()
def parameters(
    name: ModelName,
    version: Version = None,
    target: Annotated[str | None, typer.Option(help="One of several targets.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the weights and the bias of a linear model, and those of least squares."""
    with client() as service:
        print_one(service.model(name, version=version).parameters(target), as_json=as_json)


@app.command()
def export(
    name: ModelName,
    file: Annotated[Path | None, typer.Argument(help="The target; else NAME-VERSION.zip.")] = None,
    version: Version = None,
    alias: Alias = None,
    *,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX file instead of a bundle.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download a version for use elsewhere, and print the path of the file."""
    with client(as_json=as_json) as service:
        model = service.model(name, version=version, alias=alias)
        path = model.export(file, kind="onnx" if onnx else "bundle")
    print_done(str(path), {"path": str(path)}, as_json=as_json)


@app.command("import")
def import_model(name: ModelName, file: Path, *, as_json: AsJson = False) -> None:
    """Import a bundle as the next version of a model."""
    with client(as_json=as_json) as service:
        print_one(service.import_model(existing(file), name), as_json=as_json)


@app.command()
def delete(name: ModelName, version: Version = None, *, as_json: AsJson = False) -> None:
    """Delete a model with its aliases, or only the version of --version."""
    with client() as service:
        service.model(name, version=version).delete()
    what = name if version is None else f"{name}, version {version},"
    print_done(f"{what} is deleted.", {"deleted": name, "version": version}, as_json=as_json)


# ---- aliases ----------------------------------------------------------------------------------


@app.command()
def aliases(name: ModelName, *, as_json: AsJson = False) -> None:
    """List the aliases of a model."""
    with client() as service:
        found = list(service.model(name).aliases())
    print_list(found, ALIAS_COLUMNS, as_json=as_json)


@app.command()
def alias(
    name: ModelName,
    alias_name: AliasName,
    version: Annotated[int, typer.Argument(help="The version to point to.")],
    *,
    canary: Annotated[
        int | None, typer.Option(help="Another version that answers a share of the requests.")
    ] = None,
    percent: Annotated[float, typer.Option(help="The canary's share, in percent.")] = 5.0,
    shadow: Annotated[
        int | None,
        typer.Option(help="A version that gets copies of the requests, only to compare."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version: `descent models alias scores champion 3 --canary 4`."""
    with client() as service:
        model = service.model(name)
        moved = model.set_alias(alias_name, version, canary=canary, percent=percent, shadow=shadow)
    print_one(moved, as_json=as_json)


@app.command()
def rollback(
    name: ModelName,
    alias_name: AliasName,
    *,
    as_json: AsJson = False,
) -> None:
    """Undo the latest move of an alias; each further call undoes one more."""
    with client() as service:
        print_one(service.model(name).rollback(alias_name), as_json=as_json)


@app.command()
def history(
    name: ModelName,
    alias_name: AliasName,
    *,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the moves of an alias."""
    with client() as service:
        found = list(islice(service.model(name).history(alias_name), limit))
    print_list(found, MOVE_COLUMNS, as_json=as_json)


@app.command()
def unalias(
    name: ModelName,
    alias_name: AliasName,
    *,
    as_json: AsJson = False,
) -> None:
    """Delete an alias; its versions stay."""
    with client() as service:
        service.model(name).delete_alias(alias_name)
    print_done(f"{alias_name} is deleted.", {"deleted": alias_name}, as_json=as_json)
