"""The process of a batch prediction: reads the table in batches, predicts, writes the result.

It has no credentials and no connections; its outputs are files in its scratch folder. A chunk is a
pure function of its rows and of the model, and the result is a pure function of the table and of
all chunks. So the bytes of the result are the same, however many attempts have made them.
"""

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.failpoints import reach
from models.predict.bulk import Bulk
from models.predict.predictor import Predictor
from service.batch.messages import BatchJob, ChunkFile, ResultFile
from service.datasets.originals import read_texts
from service.datasets.profile import MOST_TOP, TypedTable, summarize
from service.jobs.pipe import Began, Channel, Heartbeat, Message, StopOrdered, last_message
from service.storage.blobs import digest_of

CHUNK_ROWS = (256, 100_000)  # the fewest and the most rows of a chunk
CHUNK_CELLS = 4_000_000  # of one chunk, input and result together
CHUNK_WORK = 10_000_000_000  # multiplications of one chunk: about a second
TEXT_ROWS = 65_536  # of a file of texts that are read at a time
ALIVE_S = 1.0  # seconds between two heartbeats
ARROW: dict[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
}


@dataclass
class BatchAttempt:
    """One attempt of a batch prediction."""

    channel: Channel
    job: BatchJob
    predictor: Predictor

    def pulse(self) -> None:
        """Send a heartbeat if one is due; raise StopOrdered if the supervisor orders a stop."""
        if self.channel.should_stop():
            raise StopOrdered
        if time.monotonic() - self.channel.sent_at > ALIVE_S:
            self.channel.send(Heartbeat())

    def run(self) -> None:
        """Predict the missing chunks, then write the result and its profile."""
        added = pa.schema(
            [(column["name"], ARROW.get(column["type"], pa.string())) for column in self.job.added]
        )
        path = self.job.scratch / "result.parquet"
        with pq.ParquetFile(self.job.table) as table:
            schema = pa.schema([*table.schema_arrow.remove_metadata(), *added])
            with pq.ParquetWriter(path, schema, **_writing(schema)) as writer:
                for batch, made in self._chunks(table, added):
                    columns = [*batch.columns, *made.columns]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        reach("predictor.profile")
        profiles = self._profile(path, len(schema) - len(added))
        digest, _size = digest_of(path)
        self.send(ResultFile(path=path, sha256=digest, columns=profiles))

    def _chunks(
        self, table: pq.ParquetFile, added: pa.Schema
    ) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Yield the rows of each chunk and their new columns."""
        texts = self._texts()
        types = dict(self.job.types)
        if texts:
            types |= dict.fromkeys(self.job.reread, "text")
        bulk = Bulk(self.predictor, types, self.job.on_problem, self.job.level)
        done = self.job.done
        rows = _chunk_rows(bulk, len(table.schema_arrow) + len(added))
        batches = table.iter_batches(rows, use_threads=False)
        for number, batch in enumerate(batches, start=1):
            self.pulse()
            read = texts.put_into(batch) if texts else batch
            if number <= len(done):
                with pa.ipc.open_file(str(done[number - 1])) as reader:
                    yield batch, reader.get_batch(0)
                continue
            answers = bulk.predict(read, self.pulse)
            made = pa.RecordBatch.from_arrays(
                [_fitting(a, field.type) for a, field in zip(answers.columns, added, strict=True)],
                schema=added,
            )
            reach("predictor.predicted")
            counts = {"errors": answers.errors, "warnings": answers.warnings}
            self._report(number, made, counts)
            yield batch, made

    def _texts(self) -> "TextCells | None":
        """Return the cells that the model reads by other marks than the dataset's."""
        if self.job.original is None:
            return None
        path = read_texts(self.job.original, self.job.scratch / "texts", self.pulse)
        return TextCells(path, self.job.reread) if path else None

    def _report(self, number: int, made: pa.RecordBatch, counts: dict[str, Any]) -> None:
        path = self.job.scratch / f"chunk-{number}.arrow"
        with pa.ipc.new_file(str(path), made.schema) as writer:
            writer.write_batch(made)
        digest, _size = digest_of(path)
        self.send(
            ChunkFile(path=path, sha256=digest, number=number, rows=made.num_rows, counts=counts)
        )

    def _profile(self, path: Path, first: int) -> list[dict[str, Any]]:
        """Return the profiles of the new columns, like those of an upload."""
        added = self.job.added
        found = summarize(TypedTable(path), [column["type"] for column in added], first)
        profiles = []
        for column, summary in zip(added, found, strict=True):
            self.pulse()
            profiles.append(_described(column) | summary.profile(column["type"], MOST_TOP))
        return profiles

    def send(self, message: Message) -> None:
        reach(f"predictor.{message.type}")
        self.channel.send(message)


class TextCells:
    """Some columns of a Parquet file as text, read in order."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        file = pq.ParquetFile(path)
        self._batches = file.iter_batches(TEXT_ROWS, columns=list(columns), use_threads=False)
        self._rest: pa.Table = file.schema_arrow.empty_table().select(list(columns))

    def put_into(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with the text of its rows, which are the next ones, in these columns."""
        parts = [self._rest]
        while sum(map(len, parts)) < batch.num_rows:
            parts.append(pa.Table.from_batches([next(self._batches)]))
        whole = pa.concat_tables(parts)
        self._rest = whole.slice(batch.num_rows)
        (texts,) = whole.slice(0, batch.num_rows).combine_chunks().to_batches()
        for name in texts.schema.names:
            batch = batch.set_column(batch.schema.get_field_index(name), name, texts.column(name))
        return batch


def _chunk_rows(bulk: Bulk, columns: int) -> int:
    least, most = CHUNK_ROWS
    wide = CHUNK_CELLS // max(columns, bulk.features.width)
    return max(least, min(most, wide, CHUNK_WORK // bulk.multiplications))


def _fitting(values: "pa.Array[Any]", wanted: pa.DataType) -> "pa.Array[Any]":
    return values if values.type == wanted else values.cast(wanted)


def _writing(schema: pa.Schema) -> dict[str, Any]:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": texts}


def _described(column: dict[str, Any]) -> dict[str, Any]:
    role = "ignored" if column["type"] in {"text", "id"} else "feature"
    return {"name": column["name"], "type": column["type"], "role": role, "why": column["why"]}


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end."""
    channel = Channel(end)
    pa.set_cpu_count(1)
    reach("predictor.begin")
    with last_message(channel, "prediction"):
        channel.send(Began())
        asked = BatchJob.model_validate_json(job)
        BatchAttempt(channel, asked, Predictor.load(asked.model)).run()
