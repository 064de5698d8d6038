"""Measures how text tables are read, beside polars and DuckDB, and how files are received.

    .venv/bin/python benchmarks/ingest.py [megabytes]

Three files of at least 300 MB, plain and gzip: narrow, wide, and with long texts. Ours is what the
process of an upload does, with its limits: it writes the typed Parquet file and profiles each
column. polars runs `scan_csv().sink_parquet()`, DuckDB `read_csv(sample_size=-1)` to Parquet. For
a gzip file ours includes inflating and hashing it, as while it is received. Each run has a
process of its own, and the engines take turns.

The second part sends the narrow file to a service, beside a script that hashes and writes the same
bytes, and uploads a table of 3 000 columns x 40 rows and one of 40 x 3 000.
"""

import gzip
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from descent.demo import running_service

RUNS = 3
UPLOADS = 9  # of each small table
MEGABYTES = 320
CHUNK = 1024 * 1024
ROWS = 20_000  # that are generated at a time
WIDE = 1000  # columns of the wide file
LONG, SHORT = 3000, 40
TARGET_TIME, TARGET_MIB, TARGET_RECEIVE, TARGET_SHAPE = 1.5, 700, 2.0, 4.0


# ---- files --------------------------------------------------------------------------------------


def narrow(draw: np.random.Generator, first: int) -> pa.Table:
    days = np.datetime64("2015-01-01") + draw.integers(0, 3650, ROWS)
    moments = np.datetime64("2020-01-01T00:00:00") + draw.integers(0, 10**8, ROWS)
    return pa.table(
        {
            "id": np.arange(first, first + ROWS),
            "a": draw.normal(size=ROWS).round(6),
            "b": draw.normal(1000, 50, ROWS).round(2),
            "c": draw.exponential(size=ROWS).round(4),
            "d": draw.normal(size=ROWS),
            "n": draw.integers(0, 100, ROWS),
            "m": draw.integers(0, 10**6, ROWS),
            "k": draw.poisson(3, ROWS),
            "colour": np.array(["red", "green", "blue", "black"])[draw.integers(0, 4, ROWS)],
            "city": np.array([f"city {i}" for i in range(300)])[draw.integers(0, 300, ROWS)],
            "flag": np.array(["yes", "no"])[draw.integers(0, 2, ROWS)],
            "day": np.datetime_as_string(days),
            "moment": np.datetime_as_string(moments),
            "code": [f"item-{number:x}" for number in draw.integers(0, 2**40, ROWS)],
        }
    )


def wide(draw: np.random.Generator, first: int) -> pa.Table:
    rows = ROWS // 20
    return pa.table(
        {
            f"x{place}": draw.integers(first, first + 1000, rows)
            if place % 4 == 0
            else draw.normal(size=rows).round(4)
            for place in range(WIDE)
        }
    )


def texts(draw: np.random.Generator, first: int) -> pa.Table:
    words = np.array([f"word{number}" for number in range(5000)])
    return pa.table(
        {
            "id": np.arange(first, first + ROWS),
            "stars": draw.integers(1, 6, ROWS),
            "product": np.array([f"product {i}" for i in range(900)])[draw.integers(0, 900, ROWS)],
            "title": [" ".join(row) for row in words[draw.integers(0, 5000, (ROWS, 6))]],
            "review": [" ".join(row) for row in words[draw.integers(0, 5000, (ROWS, 40))]],
        }
    )


FILES: dict[str, Callable[[np.random.Generator, int], pa.Table]] = {
    "narrow": narrow,
    "wide": wide,
    "texts": texts,
}


def write(path: Path, name: str, size: int) -> None:
    draw = np.random.default_rng(15)
    with path.open("wb") as file:
        first = 0
        while file.tell() < size:
            made = FILES[name](draw, first)
            options = pacsv.WriteOptions(include_header=first == 0, quoting_style="needed")
            pacsv.write_csv(made, file, options)
            first += made.num_rows
    with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
        shutil.copyfileobj(plain, packed, CHUNK)


# ---- engines ------------------------------------------------------------------------------------

#: The program of each engine, which reads `path` and writes into `folder`. It loads only what it
#: needs, so that its peak of memory is its own.
PROGRAMS = {
    "ours": """
import asyncio
from pathlib import Path
from service.datasets import parse
from service.datasets.sandbox import Limits, Task, confine
from service.datasets.upload import Bounds, receive
from service.settings import Settings

parse.rehearse()
settings = Settings()

async def chunks():
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            yield chunk

def work():
    file = path
    if path.endswith(".gz"):
        headers = {"content-type": "text/csv", "content-encoding": "gzip"}
        bounds = Bounds(2**36, 2**30, 1000, 0)
        file = asyncio.run(receive(chunks(), headers, Path(folder, "received"), bounds)).path
    confine(Limits(settings.parse_memory_bytes, settings.parse_timeout_s))
    parse.parse(Task(str(file), folder, "text/csv", {}, settings.max_columns))
""",
    "polars": """
import polars

def work():
    polars.scan_csv(path).sink_parquet(folder + "/out.parquet")
""",
    "DuckDB": """
import duckdb

def work():
    table = f"(SELECT * FROM read_csv('{path}', sample_size = -1))"
    duckdb.execute("SET enable_progress_bar = false")
    duckdb.execute(f"COPY {table} TO '{folder}/out.parquet' (FORMAT parquet)")
""",
}
BEFORE = """
import json, sys, time
path, folder = sys.argv[1:]
"""
AFTER = """
wall, cpu = time.perf_counter(), time.process_time()
work()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
print(json.dumps([wall, cpu, int(peak) / 1024]))
"""


def measured(engine: str, path: Path) -> list[float]:
    """Return the seconds, the processor's seconds and the peak of memory (MiB) of one run."""
    program = BEFORE + PROGRAMS[engine] + AFTER
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-c", program, str(path), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


def medians(runs: list[list[float]]) -> list[float]:
    return [statistics.median(each) for each in zip(*runs, strict=True)]


def compare(folder: Path, size: int) -> bool:
    print("| file | engine | seconds | of the processor | peak memory |\n|---|---|---|---|---|")
    is_met = True
    for name in FILES:
        path = folder / f"{name}.csv"
        write(path, name, size)
        for file in (path, Path(f"{path}.gz")):
            runs: dict[str, list[list[float]]] = {engine: [] for engine in PROGRAMS}
            for _ in range(RUNS):
                for engine, found in runs.items():
                    found.append(measured(engine, file))
            for engine, found in runs.items():
                wall, cpu, peak = medians(found)
                print(
                    f"| {file.name}, {file.stat().st_size / 1e6:.0f} MB | {engine} | {wall:.2f}"
                    f" | {cpu:.2f} | {peak:.0f} MiB |",
                    flush=True,
                )
            mine, other = medians(runs["ours"]), medians(runs["DuckDB"])
            is_met &= all(mine[i] <= TARGET_TIME * other[i] for i in range(2))
            is_met &= mine[2] <= TARGET_MIB
        if name != "narrow":
            path.unlink()
        Path(f"{path}.gz").unlink()
    return is_met


# ---- a service ----------------------------------------------------------------------------------


def hash_and_write(path: Path, target: Path) -> float:
    began = time.perf_counter()
    digest = hashlib.sha256()
    with path.open("rb") as file, target.open("wb") as out:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    target.unlink()
    return time.perf_counter() - began


def pieces(path: Path, mark: bytes) -> Iterator[bytes]:
    """Yield the file with other bytes at its end, so that the store does not have it yet."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
    yield mark


def upload(client: httpx.Client, content: bytes | Iterator[bytes], wait: int) -> float:
    began = time.perf_counter()
    answer = client.post(
        f"/api/v1/datasets?wait={wait}", content=content, headers={"Content-Type": "text/csv"}
    )
    took = time.perf_counter() - began
    made = answer.raise_for_status().json()["id"]
    while client.get(f"/api/v1/datasets/{made}").json()["state"] == "ingesting":
        time.sleep(0.2)
    client.delete(f"/api/v1/datasets/{made}").raise_for_status()
    return took


def shaped(columns: int, rows: int, seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    names = ",".join(f"c{place}" for place in range(columns))
    lines = (",".join(map(str, row)) for row in draw.normal(size=(rows, columns)).round(3).tolist())
    return "\n".join([names, *lines]).encode()


def serve(folder: Path) -> bool:
    path = folder / "narrow.csv"
    with (
        running_service(folder, folder / "service.log") as url,
        httpx.Client(base_url=url, timeout=900) as client,
    ):
        received, plain, shapes = [], [], []
        for number in range(UPLOADS):  # before the large files, whose parses take both cores
            wide_s = upload(client, shaped(LONG, SHORT, number), 60)
            shapes.append([wide_s, upload(client, shaped(SHORT, LONG, number), 60)])
        for number in range(RUNS):
            plain.append(hash_and_write(path, folder / "copy"))
            mark = b"%d,1,1,1,1,1,1,1,red,city 1,yes,2020-01-01,2020-01-01T00:00:00,c\n" % number
            received.append(upload(client, pieces(path, mark), 0))
    size = path.stat().st_size / 1e6
    script, service = statistics.median(plain), statistics.median(received)
    wide_s, long_s = medians(shapes)
    print(f"\n{size:.0f} MB are received in {service:.2f} s; a script hashes and writes them in")
    print(f"{script:.2f} s: {service / script:.2f} times as long (at most {TARGET_RECEIVE:g}).")
    print(f"{LONG} columns x {SHORT} rows are ready after {wide_s:.2f} s, {SHORT} x {LONG} after")
    print(f"{long_s:.2f} s: {wide_s / long_s:.2f} times as long (at most {TARGET_SHAPE:g}).")
    return service <= TARGET_RECEIVE * script and wide_s <= TARGET_SHAPE * long_s


def main() -> None:
    size = int(float(sys.argv[1]) * 1e6) if len(sys.argv) > 1 else MEGABYTES * 10**6
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print(f"load {os.getloadavg()[0]:.1f}, medians of {RUNS}\n")
    with tempfile.TemporaryDirectory() as folder:
        is_met = compare(Path(folder), size)
        is_met &= serve(Path(folder))
    print(f"\nload {os.getloadavg()[0]:.1f}; the targets are {'met' if is_met else 'missed'}")
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
