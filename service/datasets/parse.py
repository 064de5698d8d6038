"""The process that parses an upload, and the reader of the rows of a prediction.

An upload becomes a typed Parquet file and its profile; for a prediction, a Parquet or Arrow file
becomes JSON values. Both know files and folders, and neither the database nor HTTP. The process
confines itself: it has no network, no environment, bounded memory and time, and can change files in
its own folder only, so the effects of a malicious file end with it.
"""

import gc
import itertools
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.data import release
from models.failpoints import reach
from models.reading import MISSING
from service.datasets.archives import Bounds, Opened, opened
from service.datasets.clean_text import detect, utf8_of_json
from service.datasets.columnar import (
    cast,
    check_columns,
    kind_of,
    open_arrow,
    open_parquet,
    read_rows,
    stage_arrow,
    stage_parquet,
    whole_numbers,
)
from service.datasets.dialect import Wanted
from service.datasets.documents import stage_body, stage_ndjson
from service.datasets.infer import Inference
from service.datasets.messages import (
    ARROW,
    JSON,
    NDJSON,
    PARQUET,
    ColumnOptions,
    Parsed,
    ParseJob,
    ParseRefusal,
    ReadOptions,
    TookLong,
)
from service.datasets.profile import most_top, summarize
from service.datasets.reasons import explain
from service.datasets.rejected import Rejected, cell_error, shown
from service.datasets.sandbox import TABLE, Task, confine, keep_buffers, keep_to, late, outcome
from service.datasets.staging import WIDE, Stage, stage_csv, staged_names
from service.datasets.typed import write_typed
from service.jobs.pipe import Channel, Heartbeat, Message, Obeyed
from service.storage.blobs import digest_of

MOST_PASSES = 4  # over a table whose first rows do not show its types
PREVIEW_ROWS = 20
TICK_S = 0.05  # seconds between two checks of the clock and of the supervisor's orders
HEARTBEAT_S = 1.0  # seconds between two heartbeats
#: content type → the first bytes of such files, and the name of the format
MAGIC = {
    PARQUET: (b"PAR1", "Parquet"),
    ARROW: (b"ARROW1", "an Arrow file"),
}


def parse(task: Task) -> dict[str, Any]:
    """Return rows, columns, warnings and name; the table is `table.parquet` in the folder.

    Raises Rejected.
    """
    path, folder = Path(task.path), Path(task.folder)
    if path.stat().st_size == 0 and task.media_type != "application/json":  # strict JSON reports it
        raise Rejected("empty_file", "The file is empty: send at least one row of data.")
    stage, name = _stage(task, path, folder)
    wanted = ReadOptions.model_validate(task.options).columns
    columns, warnings = tabulate(stage, wanted, folder / TABLE)
    return {
        "rows": stage.rows,
        "columns": columns,
        "reading": stage.reading | {"missing_values": _markers(task)},
        "warnings": warnings,
        "name": name,
    }


def tabulate(
    stage: Stage, options: Mapping[str, ColumnOptions], target: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Write the typed table of a stage; return the profile of each column, and all warnings.

    The table is written again with better readings as long as cells of a column do not fit, which
    the sample did not show. After MOST_PASSES these columns are texts.
    """
    if len(stage.names) <= WIDE:
        keep_buffers()
    inference = Inference(stage, options)
    columns = inference.columns()
    for number in itertools.count(1):
        table = write_typed(stage, columns, target)
        if table.held is None:
            release()  # a column is large, and what the writing has freed is still kept
        is_last = number > MOST_PASSES
        if not is_last and inference.revise(columns, makes_texts=number == MOST_PASSES):
            continue
        summaries = list(summarize(table, [column.type for column in columns]))
        for column, summary in zip(columns, summaries, strict=True):
            column.counts.distinct, column.counts.longest = summary.distinct, summary.longest
        frequent = [[str(value) for value, _count in each.top or []] for each in summaries]
        if is_last or not inference.refine(columns, frequent):
            break
    stage.rows = table.rows
    warnings = list(stage.warnings)
    explain(columns, warnings)
    most = most_top(len(columns))
    profiles = [
        column.profile() | summary.profile(column.type, most)
        for column, summary in zip(columns, summaries, strict=True)
    ]
    return profiles, warnings


def _markers(task: Task) -> list[str]:
    """Return the texts that mean missing in the whole table, besides an empty one."""
    given = task.options.get("missing_values")
    if given is None:
        given = [] if task.media_type in MAGIC else MISSING
    return [each for each in given if each]


def _stage(task: Task, path: Path, folder: Path) -> tuple[Stage, str | None]:
    """Return the table and the name of the dataset in the file, if it has one."""
    bounds = Bounds(task.max_bytes, task.max_ratio, task.workbook_bytes)
    found = opened(path, task.media_type, folder, task.options.get("sheet"), bounds)
    given = task.options.get("missing_values")
    missing = MISSING if given is None else tuple(dict.fromkeys(["", *given]))
    stage, name = _staged(task, found, folder, missing)
    stage.missing = missing
    stage.reading = found.reading | stage.reading
    stage.warnings = found.warnings + stage.warnings
    return stage, name


def _staged(
    task: Task, found: Opened, folder: Path, missing: tuple[str, ...]
) -> tuple[Stage, str | None]:
    path, media_type, most = found.path, found.media_type, task.max_columns
    encoding, markers = task.options.get("encoding"), frozenset(missing)
    if media_type in MAGIC:
        check_magic(path, media_type)
        stage_typed = stage_parquet if media_type == PARQUET else stage_arrow
        return stage_typed(path, folder, most, task.options.get("missing_values") or ()), None
    if media_type in {NDJSON, JSON}:
        path = utf8_of_json(path, folder, encoding)
        if media_type == NDJSON:
            return stage_ndjson(path, folder, markers, most), None
        return stage_body(path, folder, markers, most)
    wanted = Wanted(
        "\t" if found.reading else task.options.get("delimiter"),
        task.options.get("header") or "auto",
        task.options.get("skip_lines"),
        "utf-8" if found.reading else encoding,
        markers,
    )
    dialect = detect(path, folder, wanted, most)
    stage = stage_csv(dialect.path, folder, dialect, missing)
    if found.reading:  # cells of a workbook, of which we wrote the text
        ours = {"encoding", "delimiter"}
        stage.reading = {k: v for k, v in stage.reading.items() if k not in ours}
    return stage, None


def check_magic(path: Path, media_type: str) -> None:
    magic, form = MAGIC[media_type]
    with path.open("rb") as file:
        if file.read(len(magic)) != magic:
            raise Rejected(
                "wrong_format",
                f"The content type is that of {form}, but the file does not begin like one: send"
                " the right content type.",
            )


# ---- previews -----------------------------------------------------------------------------------


def preview(task: Task) -> dict[str, Any]:
    """Parse the beginning of a file; return its columns, warnings, reading and first rows.

    Raises Rejected.
    """
    found = parse(task)
    names = [column["name"] for column in found["columns"]]
    rows = read_rows(Path(task.folder) / TABLE, 0, PREVIEW_ROWS, names)
    kept = {name: found[name] for name in ("columns", "warnings")}
    return kept | {"reading": found.get("reading") or None, "rows": rows}


# ---- rows of a prediction -----------------------------------------------------------------------


def parse_rows(task: Task) -> dict[str, Any]:
    """Return the values of each column; of a column that the model ignores, which are present.

    The options are `known`, the names of the columns that the model reads, and `max_rows`.
    Raises Rejected.
    """
    path, known = Path(task.path), frozenset(task.options["known"])
    check_magic(path, task.media_type)
    open_file = open_parquet if task.media_type.endswith("parquet") else open_arrow
    with open_file(path) as (schema, batches):
        check_columns(schema, task.max_columns)
        # Names that came as JSON may have spaces around them; all other readers strip them.
        names = [name if name in known else name.strip() for name in schema.names]
        _check_names(names)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            if rows > task.options["max_rows"]:
                raise _too_many(task.options["max_rows"])
            for field, name, column in zip(schema, names, batch.columns, strict=True):
                columns[name] += _values(field, column) if name in known else _marks(column)
    return {"columns": columns}


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        detail = f"The file has more than one column {shown(twice[0])}."
        raise cell_error("duplicate_column", detail, column=twice[0])


def _too_many(most: int) -> Rejected:
    return Rejected(
        "too_large",
        f"A prediction request may have {most} rows (DESCENT_MAX_PREDICT_ROWS): split the rows over"
        " several requests.",
        status=413,
    )


def _values(field: "pa.Field[Any]", column: "pa.Array[Any]") -> list[Any]:
    kind = kind_of(field)
    if kind == "integer":
        return list(whole_numbers(column))
    values = cast(column, kind, field.name)
    if kind == "number":
        return [_number(value) for value in values.to_pylist()]
    if kind == "datetime":
        return [_moment(value) for value in values.cast(pa.string()).to_pylist()]
    found: list[Any] = values.to_pylist()
    return found


def _marks(column: "pa.Array[Any]") -> list[bool | None]:
    return [True if is_there else None for is_there in column.is_valid().to_pylist()]


def _number(value: float | None) -> float | str | None:
    """Return a value of JSON: null for NaN, and a text for an infinity."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _moment(text: str | None) -> str | None:
    """Return a time without the zeros at its end, as the parser of datasets writes it."""
    return text.rstrip("0").rstrip(".") if text and "." in text else text


# ---- the process of an attempt ------------------------------------------------------------------


class ParseAttempt:
    """One attempt, which ends with its only last message."""

    def __init__(self, end: socket.socket, job: ParseJob) -> None:
        self._job = job
        self._channel = Channel(end)
        self._sending = threading.Lock()

    def run(self) -> None:
        gc.disable()  # the process ends soon, and a collection looks at all of its many objects
        # A thread inherits the limits of its parent, so they are set before it starts.
        confine(self._job.limits)
        keep_to(self._job.scratch)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._end(self._parse())

    def _parse(self) -> Message:
        found = outcome(self._job.task, self._job.limits, parse)
        if "rejected" in found:
            return ParseRefusal(**found["rejected"])
        path = Path(self._job.task.folder) / TABLE
        digest, _size = digest_of(path)
        return Parsed(path=path, sha256=digest, **found["result"])

    def _watch(self) -> None:
        """Send heartbeats; end the process when the supervisor orders it or its time is up."""
        began, patience_s = time.monotonic(), self._job.patience_s
        while True:
            time.sleep(TICK_S)
            passed = time.monotonic() - began
            if self._channel.should_stop():
                self._end(Obeyed())
            if passed > self._job.limits.timeout_s:
                self._end(ParseRefusal(**late(self._job.limits).to_json()))
            if patience_s is not None and passed > patience_s:
                self._end(TookLong())
            if time.monotonic() - self._channel.sent_at > HEARTBEAT_S:
                with self._sending:
                    self._channel.send(Heartbeat())

    def _end(self, message: Message) -> None:
        with self._sending:
            self._channel.send(message)
            # Nothing here needs cleaning up, which could crash if a file has damaged the heap.
            os._exit(0)


def rehearse() -> None:
    """Type a small table of our own, so that the memory that this takes is in place for a job.

    It starts no thread: `confine` and `keep_to` bind only threads that begin after them.
    """
    names = staged_names(3)
    cells: list[list[str]] = [["1.5", "2", "-3.25", ""], ["7", "5", "7", "0"], ["a", "b", "a", ""]]
    held = pa.RecordBatch.from_arrays([pa.array(each) for each in cells], names=names)
    stage = Stage(Path(os.devnull), names, ["text"] * 3, batches=lambda: iter([held]))
    tabulate(stage, {}, Path(os.devnull))


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end."""
    reach("parser.begin")
    ParseAttempt(end, ParseJob.model_validate_json(job)).run()
