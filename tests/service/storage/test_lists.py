"""Every list reads an index in its order, with a fixed number of queries for a page."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text, update

from service.access import keys
from service.app import create_app
from service.batch.lifecycle import BatchPrediction
from service.datasets.versions import Dataset
from service.jobs import life
from service.registry.tables import Alias, AliasMove, Model, ModelVersion, Proof
from service.runs import metrics
from service.runs.tables import Run
from service.settings import Settings
from service.storage.columns import new_id, utc_now
from service.storage.database import writing
from tests.engines import statements_of
from tests.service.rows import add_dataset, add_run, checkpoint_at, metric_rows
from tests.serving import serving

pytestmark = pytest.mark.both_databases

ROWS = 6
#: the lists with their usual filters, and the index that SQLite must read each from
LISTS = {
    "/datasets": "ix_datasets_newest",
    "/runs": "ix_runs_newest",
    "/runs?state=queued": "ix_runs_state",
    "/runs?dataset={dataset}": "ix_runs_dataset",
    "/runs?model=m": "ix_runs_model",
    "/runs?state=queued&dataset={dataset}": "ix_runs_(state|dataset)",
    "/runs/{run}/checkpoints": "ix_checkpoints_newest",
    "/runs/{run}/events": "autoindex_events",
    "/batch_predictions": "ix_batch_predictions_newest",
    "/batch_predictions?state=queued": "ix_batch_predictions_state",
    "/batch_predictions?dataset={dataset}": "ix_batch_predictions_dataset",
    "/batch_predictions?model=m": "ix_batch_predictions_model",
    "/models": "ix_models_newest",
    "/models/m/versions": "autoindex_model_versions",
    "/models/m/aliases": "ix_aliases_newest",
    "/models/m/aliases/a/history": "autoindex_alias_moves",
    "/keys": "autoindex_keys",
}
#: lists of several states, which are read one by one and then merged
MERGED = (
    "/runs?state=queued&state=running&state=failed",
    "/batch_predictions?state=queued&state=running",
)


#: plans that PostgreSQL may prefer to an index while a table is small
OTHER_WAYS = ("seqscan", "bitmapscan", "sort", "incremental_sort", "hashjoin", "mergejoin")
#: the queries of the threads that keep the keys and the models up to date
IN_THE_BACKGROUND = ("SELECT keys.sha256,", "SELECT model_changes.")


@pytest.fixture
def client(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    """Serve the API with the engine of the test, which records its statements."""
    with serving(create_app(settings, engine)) as url, httpx.Client(base_url=url) as client:
        yield client


def fill(engine: Engine, client: httpx.Client, rows: int) -> dict[str, str]:
    """Add rows to each list, and a key for the client; return the ids in the paths."""
    with writing(engine) as session:
        dataset, *_others = (add_dataset(session) for _ in range(rows))
        runs = [add_run(session, dataset) for _ in range(rows)]
        session.execute(update(Run).where(Run.id == runs[0].id).values(state="running", attempt=1))
        session.refresh(runs[0])
        for number in range(1, rows + 1):
            metrics.append(session, runs[0].id, 1, metric_rows(number, number), {})
            session.add(checkpoint_at(runs[0], number))
        add_models(session, rows)
        for _ in range(rows):
            _key, secret = keys.create(session, "k")
            values: dict[str, Any] = {"dataset_id": dataset, "dataset_version": 1}
            values |= {"model_name": "m", "model_version": 1, "on_problem": "warn"}
            empty: dict[str, Any] = {"added": [], "ignored": [], "counts": {}}
            job = BatchPrediction(id=new_id("batch"), name="b", **values, **empty)
            life.enqueue(session, job)
    client.headers["Authorization"] = f"Bearer {secret}"
    return {"dataset": dataset, "run": runs[0].id}


def add_models(session: Any, rows: int) -> None:
    for number in range(rows):
        session.add(Model(name="m" if number == 0 else f"m{number}", last_version=rows))
    session.flush()
    documents: dict[str, Any] = {name: {} for name in ("metrics", "config", "parameters")}
    documents["signature"] = {"inputs": [], "outputs": []}
    for number in range(1, rows + 1):
        session.add(
            ModelVersion(model_name="m", version=number, sha256="0" * 64, bytes=1, **documents)
        )
    session.flush()
    for number in range(1, rows + 1):
        life.enqueue(session, Proof(id=new_id("proof"), model_name="m", model_version=number))
        session.add(Alias(model_name="m", alias="a" if number == 1 else f"a{number}", version=1))
    session.flush()
    for number in range(2, rows + 1):
        move = AliasMove(model_name="m", alias="a", revision=number, how="put", version=1)
        session.add(move)


def statements(engine: Engine, client: httpx.Client, url: str) -> list[tuple[str, Any]]:
    """Return the queries that a GET makes."""
    with statements_of(engine) as found:
        answer = client.get(f"/api/v1{url}")
    assert answer.status_code == 200, answer.text
    queries = [
        (sql, values)
        for sql, values in found
        if "\nFROM " in sql and not sql.startswith(IN_THE_BACKGROUND)
    ]
    assert queries
    return queries


def plan(engine: Engine, sql: str, values: Any) -> list[str]:
    """Return the lines of the database's plan for a statement."""
    is_sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if not is_sqlite:
            for way in OTHER_WAYS:
                connection.execute(text(f"SET LOCAL enable_{way} = off"))
        explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
        rows = connection.exec_driver_sql(explain + sql, values).all()
    return [row[3] if is_sqlite else row[0] for row in rows]


def sorts(lines: list[str]) -> list[int]:
    """Return the numbers of the steps that sort."""
    is_sort = re.compile(r"TEMP B-TREE|(^|->  )(Incremental )?Sort\b")
    return [number for number, line in enumerate(lines) if is_sort.search(line)]


def scans(lines: list[str]) -> list[str]:
    """Return the steps that read a whole table."""
    return [line for line in lines if "Seq Scan" in line or re.match(r"SCAN (?!anon_)\w+$", line)]


def pages(client: httpx.Client, url: str) -> Iterator[str]:
    """Yield the URLs of the first page and of the one that follows it."""
    first = f"{url}{'&' if '?' in url else '?'}limit=2"
    yield first
    cursor = client.get(f"/api/v1{first}").json()["next_cursor"]
    if cursor is not None:  # no run belongs to this model
        yield f"{first}&after={cursor}"


def test_no_list_sorts_or_scans_a_table(engine: Engine, client: httpx.Client) -> None:
    ids = fill(engine, client, ROWS)
    wrong: list[object] = []
    paged = 0
    for each, index in LISTS.items():
        for url in pages(client, each.format(**ids)):
            paged += "after" in url
            plans = [plan(engine, *query) for query in statements(engine, client, url)]
            if any(sorts(lines) or scans(lines) for lines in plans):
                wrong.append((url, plans))
            # PostgreSQL chooses between two indexes by its statistics, SQLite by the query.
            is_sqlite = engine.dialect.name == "sqlite"
            if is_sqlite and not re.search(rf"{index}\b|{index}_\d", str(plans)):
                wrong.append((url, index, plans))
    assert wrong == []
    assert paged >= len(LISTS) - 1


@pytest.mark.parametrize("url", MERGED)
def test_a_list_of_several_states_reads_each_from_an_index(
    engine: Engine, client: httpx.Client, url: str
) -> None:
    fill(engine, client, ROWS)
    for page in pages(client, url):
        listed, *others = statements(engine, client, page)
        lines = plan(engine, *listed)
        states = page.count("state=")
        assert len([line for line in lines if re.search(r"ix_\w+_state\b", line)]) == states
        assert scans(lines) == []
        # The plan sorts only the first rows of each state, a subquery with a limit.
        assert [lines[n - 1] for n in sorts(lines) if "SCAN anon" not in lines[n - 1]] == []
        assert [other for other in others if sorts(plan(engine, *other))] == []


@pytest.mark.parametrize("url", [*LISTS, *MERGED])
def test_a_longer_page_needs_no_more_queries(
    engine: Engine, client: httpx.Client, url: str
) -> None:
    ids = fill(engine, client, ROWS)
    path = url.format(**ids) + ("&" if "?" in url else "?")
    short, long = (len(statements(engine, client, f"{path}limit={n}")) for n in (2, ROWS))
    assert long == short


def test_several_states_are_one_list_without_gap_or_repeat(
    engine: Engine, client: httpx.Client
) -> None:
    states = ("queued", "running", "failed", "succeeded")
    with writing(engine) as session:
        dataset, now = add_dataset(session), utc_now()
        for number in range(12):
            run = add_run(session, dataset)
            run.state = states[number % 4]
            run.created_at = now - timedelta(seconds=number // 2)  # two at each moment
    seen: list[dict[str, Any]] = []
    url = "/api/v1/runs?state=queued&state=failed&state=running&state=queued&limit=2"
    while url:
        answer = client.get(url)
        seen += answer.json()["data"]
        url = answer.links["next"]["url"] if "next" in answer.links else ""
    everything = client.get("/api/v1/runs").json()["data"]
    assert [run["id"] for run in seen] == [
        run["id"] for run in everything if run["state"] != "succeeded"
    ]
    assert len(seen) == 9


def test_a_deleted_dataset_is_not_in_the_index_of_the_list(engine: Engine) -> None:
    found = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE name = 'ix_datasets_newest'",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_datasets_newest'",
    }
    with engine.connect() as connection:
        made: str = connection.execute(text(found[engine.dialect.name])).scalar_one()
    assert "'deleted'" in made
    assert Dataset.__tablename__ in made


def test_places_in_the_queue_are_told_apart_from_one_query(
    engine: Engine, client: httpx.Client
) -> None:
    with writing(engine) as session:
        dataset, now = add_dataset(session), utc_now()
        runs = [add_run(session, dataset) for _ in range(7)]
        for number, run in enumerate(runs):
            run.queued_at = now + timedelta(seconds=number // 2)
        runs[2].state = "running"
        order = sorted((run.queued_at, run.id) for run in runs if run.state == "queued")
    places = {id_: number for number, (_at, id_) in enumerate(order, start=1)}
    listed = client.get("/api/v1/runs?limit=3").json()["data"]
    assert {run["id"]: run["queue_position"] for run in listed} == {
        run["id"]: places.get(run["id"]) for run in listed
    }
    for run in runs:
        one = client.get(f"/api/v1/runs/{run.id}").json()
        assert one["queue_position"] == places.get(run.id)
