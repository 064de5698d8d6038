"""`descent datasets`: uploaded tables."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from descent.cli.arguments import AsJson, DatasetId, Limit, client, existing, settings
from descent.output import print_dataset, print_done, print_list, print_rows

COLUMNS = {
    "id": "id",
    "state": "state",
    "rows": "rows",
    "created": "created_at",
    "name": "name",
}

app = typer.Typer(no_args_is_help=True, help="Uploaded tables.")


@app.command("list")
def list_datasets(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List datasets."""
    with client() as service:
        found = list(islice(service.datasets(), limit))
    print_list(found, COLUMNS, as_json=as_json)


@app.command()
def upload(
    file: Path,
    name: Annotated[str | None, typer.Option(help="The dataset's name; else the file's.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="How to parse the file: header=absent, delimiter=;"),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Upload a CSV, TSV, NDJSON, JSON, Parquet or Arrow file (or .gz); wait until it is parsed."""
    with client(as_json=as_json) as service:
        wanted = {key: str(value) for key, value in settings(options or []).items()}
        dataset = service.upload(existing(file), name, **wanted)
    print_dataset(dataset, as_json=as_json)


@app.command()
def show(dataset_id: DatasetId, *, as_json: AsJson = False) -> None:
    """Show one dataset with its columns."""
    with client() as service:
        dataset = service.dataset(dataset_id)
    print_dataset(dataset, as_json=as_json)


@app.command()
def rows(dataset_id: DatasetId, *, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Print the first rows of a dataset."""
    with client() as service:
        found = list(islice(service.rows(dataset_id), limit))
    print_rows(found, as_json=as_json)


@app.command()
def retype(
    dataset_id: DatasetId,
    types: Annotated[list[str], typer.Argument(help="column=type …, such as zip=category.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Change the types of columns; makes a new version."""
    wanted = dict(word.rpartition("=")[::2] for word in types)
    if "" in wanted:
        raise typer.BadParameter("give column=type, such as zip=category")
    with client() as service:
        print_dataset(service.retype(dataset_id, wanted), as_json=as_json)


@app.command()
def reread(
    dataset_id: DatasetId,
    changes: Annotated[
        list[str],
        typer.Argument(help="columns.price.decimal=, reading.skip_lines=2 …"),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Read a dataset in another way; makes a new version."""
    wanted = settings(changes)
    if unknown := wanted.keys() - {"columns", "reading"}:
        raise typer.BadParameter(f"{min(unknown)} is not known: begin with columns. or reading.")
    with client() as service:
        print_dataset(service.reread(dataset_id, **wanted), as_json=as_json)


@app.command()
def download(
    dataset_id: DatasetId,
    file: Annotated[
        Path | None, typer.Argument(help="The target; else the dataset's name.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Download the uploaded file and print its path."""
    with client(as_json=as_json) as service:
        path = service.download(dataset_id, file)
    print_done(str(path), {"path": str(path)}, as_json=as_json)


@app.command()
def delete(dataset_id: DatasetId, *, as_json: AsJson = False) -> None:
    """Delete a dataset, unless an unfinished run needs it."""
    with client() as service:
        service.delete_dataset(dataset_id)
    print_done(f"{dataset_id} is deleted.", {"deleted": dataset_id}, as_json=as_json)
