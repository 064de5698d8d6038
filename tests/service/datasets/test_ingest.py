"""The parse of an upload: its turn in the queue, and its end when processes die."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from descent.schemas import DatasetPatch
from service.datasets import upload
from service.datasets.kind import PATIENCE_S, SMALL_PARSES, claim, prepare, write
from service.datasets.messages import Parsed, ParseRefusal, TookLong
from service.datasets.rejected import MOST_DEATHS
from service.datasets.upload import SMALL_COLUMNS, Received, Upload, remove_leftovers
from service.datasets.versions import Dataset, DatasetVersion, Parse, remove
from service.datasets.versions import ready_version as ready
from service.errors import Conflict, DeathCode, Fenced, Invalid, NotFound
from service.jobs import life, queue
from service.jobs.kind import InputUnavailable, Site, Tenure
from service.settings import Settings
from service.storage.blobs import LocalBlobs, digest_of
from service.storage.columns import new_id
from service.storage.database import clock, reading, writing
from service.storage.references import HeldBlob

LEASE_S = 60.0
LOSSES = 3
HELD = HeldBlob("0" * 64, 1, "pin")
PARSED = Parsed(path=Path("x"), sha256=None, rows=2, columns=[], warnings=[], name=None)

Add = Callable[..., Parse]


@pytest.fixture
def add(engine: Engine, blobs: LocalBlobs, tmp_path: Path) -> Add:
    """Return a function that stores an upload of a caller."""

    def take_in(caller: str = "a", data: bytes = b"x,y\n1,2\n3,4\n") -> Parse:
        path = tmp_path / new_id("upload")
        path.write_bytes(data)
        digest, size = digest_of(path)
        received = Received(path, digest, size, "text/csv")
        sent = Upload("table", received, {"header": "auto"}, caller)
        return upload.accept(engine, blobs, sent, lambda _session, _dataset: None)

    return take_in


@pytest.fixture
def site(settings: Settings, engine: Engine, blobs: LocalBlobs) -> Site:
    return Site(settings, engine, blobs)


def take(engine: Engine, **options: Any) -> Parse | None:
    with writing(engine) as session:
        return claim(session, "worker", LEASE_S, **options)


def taken(engine: Engine) -> Parse:
    found = take(engine)
    assert found is not None
    return found


def tell(engine: Engine, parse: Parse, message: Any, held: HeldBlob | None = None) -> None:
    with writing(engine) as session:
        write(session, Tenure(parse.id, parse.attempt), message, held)


def dataset_of(engine: Engine, parse: Parse) -> Dataset:
    with reading(engine) as session:
        return session.get_one(Dataset, parse.dataset_id)


def parse_of(engine: Engine, parse: Parse) -> Parse:
    with reading(engine) as session:
        return session.get_one(Parse, parse.id)


def wide(columns: int) -> bytes:
    return ",".join(f"c{index}" for index in range(columns)).encode() + b"\n1\n"


# ---- the order of the queue ---------------------------------------------------------------------


def test_callers_take_turns(engine: Engine, add: Add) -> None:
    made = [add("a"), add("a"), add("a"), add("b"), add("b"), add("c")]
    order = [taken(engine).id for _ in made]
    assert order == [made[i].id for i in (0, 3, 5, 1, 4, 2)]


def test_a_caller_who_was_served_longer_ago_comes_first(engine: Engine, add: Add) -> None:
    for caller in ("a", "b"):
        add(caller)
        tell(engine, taken(engine), PARSED, HELD)
    later, sooner = add("b"), add("a")
    assert [taken(engine).id, taken(engine).id] == [sooner.id, later.id]


@pytest.mark.parametrize(
    ("data", "is_small"),
    [
        (b"x,y\n1,2\n", True),
        (wide(SMALL_COLUMNS), True),
        (wide(SMALL_COLUMNS + 1), False),
        (b"x\n" + b"1\n" * 600_000, False),
    ],
)
def test_a_file_of_few_bytes_and_columns_is_small(add: Add, data: bytes, *, is_small: bool) -> None:
    assert add(data=data).is_small is is_small


@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_the_columns_of_json_are_its_keys(tmp_path: Path, media_type: str) -> None:
    path = tmp_path / "json"
    for count, is_small in ((SMALL_COLUMNS, True), (SMALL_COLUMNS + 1, False)):
        path.write_text("\n".join(f'{{"c{i}" : "a\\"b"}}' for i in range(count)))
        assert upload._is_small(path, path.stat().st_size, media_type) is is_small  # noqa: SLF001


def test_the_slot_of_small_files_leaves_large_ones_alone(engine: Engine, add: Add) -> None:
    add(data=wide(SMALL_COLUMNS + 1))
    small = add()
    found = [take(engine, only_small=True), take(engine, only_small=True)]
    assert [parse.id if parse else None for parse in found] == [small.id, None]


def test_a_small_file_that_takes_long_is_parsed_where_large_ones_are(
    engine: Engine, add: Add, site: Site, tmp_path: Path
) -> None:
    add()
    parse = taken(engine)
    assert SMALL_PARSES.prepare(site, parse, tmp_path).model_dump()["patience_s"] == PATIENCE_S
    assert prepare(site, parse, tmp_path).patience_s is None
    tell(engine, parse, TookLong())
    assert take(engine, only_small=True) is None
    again = taken(engine)
    assert (again.id, again.attempt, again.crash_streak) == (parse.id, 2, 0)


# ---- the end of a parse -------------------------------------------------------------------------


def test_a_parsed_file_is_the_first_version(engine: Engine, add: Add) -> None:
    add()
    parse = taken(engine)
    tell(engine, parse, replace_name(PARSED, "not of a CSV"), HELD)
    dataset = dataset_of(engine, parse)
    assert (dataset.state, dataset.version) == ("ready", 1)
    with reading(engine) as session:
        version = session.get_one(DatasetVersion, (dataset.id, 1))
    assert (version.rows, version.table_sha256) == (2, HELD.sha256)
    assert parse_of(engine, parse).state == "succeeded"


def replace_name(message: Parsed, name: str) -> Parsed:
    return message.model_copy(update={"name": name})


def test_a_refused_file_is_a_rejected_dataset(engine: Engine, add: Add) -> None:
    add()
    parse = taken(engine)
    tell(engine, parse, ParseRefusal(code="ragged_row", detail="It is.", errors=[], status=422))
    dataset = dataset_of(engine, parse)
    error = dataset.error or {}
    assert (dataset.state, error["code"], error["detail"]) == ("rejected", "ragged_row", "It is.")
    assert error["errors"][0]["code"] == "ragged_row"


def test_an_attempt_that_lost_its_lease_writes_nothing(engine: Engine, add: Add) -> None:
    add()
    parse = taken(engine)
    with writing(engine) as session:
        assert life.rescue(session, parse.id, 1, now=clock(session) + 2 * LEASE_S)
    assert taken(engine).attempt == 2
    with pytest.raises(Fenced):
        tell(engine, parse, PARSED, HELD)
    assert dataset_of(engine, parse).state == "ingesting"


@pytest.mark.parametrize("code", ["worker_lost", "out_of_memory", "stalled"])
def test_a_file_that_ends_its_process_again_is_rejected(
    engine: Engine, add: Add, code: DeathCode
) -> None:
    add()
    for number in range(1, MOST_DEATHS[code] + 1):
        with writing(engine) as session:
            later = clock(session) + 100.0 * number
            parse = queue.claim(session, Parse, "worker", lease_s=LEASE_S, now=later)
        assert parse is not None
        dataset = dataset_of(engine, parse)
        assert dataset.state == "ingesting"
        with writing(engine) as session:
            life.crashed(session, parse.id, parse.attempt, "SIGSEGV", code=code)
    with reading(engine) as session:
        dataset = session.get_one(Dataset, dataset.id)
    error = dataset.error or {}
    assert (dataset.state, error["code"], error["status"]) == (
        "rejected",
        "dataset_unparseable",
        422,
    )
    assert "SIGSEGV" in error["detail"]


def test_a_file_that_ends_its_workers_is_rejected(engine: Engine, add: Add) -> None:
    add()
    for _ in range(LOSSES):
        parse = taken(engine)
        assert dataset_of(engine, parse).state == "ingesting"
        with writing(engine) as session:
            life.rescue(session, parse.id, parse.attempt, now=clock(session) + 2 * LEASE_S)
    dataset = dataset_of(engine, parse)
    assert (dataset.state, (dataset.error or {})["code"]) == ("rejected", "dataset_unparseable")
    assert "its worker was lost" in (dataset.error or {})["detail"]


def test_a_dataset_whose_bytes_are_lost_is_rejected(
    engine: Engine, add: Add, site: Site, blobs: LocalBlobs, tmp_path: Path
) -> None:
    add()
    parse = taken(engine)
    blobs.delete(str(dataset_of(engine, parse).sha256))
    with pytest.raises(InputUnavailable) as lost:
        prepare(site, parse, tmp_path)
    assert lost.value.code == "bytes_lost"


def test_a_version_that_another_one_overtook_is_a_conflict(engine: Engine, add: Add) -> None:
    parse = add()
    tell(engine, taken(engine), PARSED, HELD)
    with writing(engine) as session:
        version = session.get_one(DatasetVersion, (parse.dataset_id, 1))
        version.columns = [{"name": "x", "type": "number"}]
    for _ in range(2):
        patch = DatasetPatch.model_validate({"columns": {"x": {"type": "text"}}})
        assert upload.reread(engine, parse.dataset_id, patch, "a") is not None
    first, second = taken(engine), taken(engine)
    tell(engine, first, PARSED, HELD)
    tell(engine, second, PARSED, HELD)
    assert dataset_of(engine, parse).version == 2
    failed = parse_of(engine, second)
    assert (failed.state, (failed.error or {})["code"]) == ("failed", "version_conflict")
    assert dataset_of(engine, parse).state == "ready"


def test_with_a_dataset_goes_its_parse(engine: Engine, add: Add) -> None:
    add()
    parse = taken(engine)
    with writing(engine) as session:
        remove(session, parse.dataset_id)
    with reading(engine) as session:
        assert session.scalars(select(Parse)).all() == []
        assert queue.states(session, {parse.id: parse.attempt}) == {}


def test_only_a_ready_version_is_given_out(engine: Engine, add: Add) -> None:
    dataset_id = add().dataset_id
    with writing(engine) as session, pytest.raises(Conflict, match="ingesting"):
        ready(session, dataset_id, None)
    tell(engine, taken(engine), PARSED, HELD)
    with writing(engine) as session:
        assert ready(session, dataset_id, None).version == ready(session, dataset_id, 1).version
        with pytest.raises(Invalid, match="no version 2") as refused:
            ready(session, dataset_id, 2)
        assert refused.value.errors[0]["pointer"] == "/dataset/version"
        with pytest.raises(NotFound):
            ready(session, "ds_nothing", None)


def test_only_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "received").write_bytes(b"x")
    remove_leftovers(tmp_path, older_than_s=3600)
    assert (tmp_path / "old").exists()
    remove_leftovers(tmp_path, older_than_s=-1)
    assert list(tmp_path.iterdir()) == []
