"""Compares the rate of predictions of one row with a FastAPI app that answers a constant.

    .venv/bin/python benchmarks/predict_one_row.py [seconds of each measurement]

The net is 8-64-64-1. The yardstick parses the same body as JSON and
answers a constant, under the same HTTP server with the same settings; it logs nothing, counts
nothing and checks no key, all of which the service does. Both are measured in turn, five times;
the result is the ratio of each pair, since the speed of a shared machine changes within seconds.
"""

import csv
import io
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import stored
import uvicorn
from fastapi import FastAPI, Request
from stored import COLUMNS

from service.http.server import listen
from tests.serving import running_service

LOAD = Path(__file__).with_name("http_load.py")
ALTERNATIONS = 5
SECONDS = 3.0
CONNECTIONS = (1, 16)
ROWS = 10_000
MODELS = 100  # that predict in turn
KEPT = 20  # of them in the cache
PATH = "/api/v1/models/bench/predict"
ARROW = "application/vnd.apache.arrow.file"


# ---- the servers ---------------------------------------------------------------------------------


def yardstick() -> None:
    """Serve the constant; print the port first."""
    app = FastAPI()

    @app.post(PATH)
    async def predict(request: Request) -> dict[str, Any]:
        await request.json()
        return {"model": "bench", "version": 1, "predictions": [{"value": 13.77}]}

    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running_yardstick() -> Iterator[int]:
    command = [sys.executable, __file__, "yardstick"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("the yardstick has no output")
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


# ---- requests ------------------------------------------------------------------------------------


def rows(count: int, seed: int = 0) -> list[dict[str, float]]:
    """Return rows well inside the range of the training rows."""
    source = random.Random(seed)  # noqa: S311  numbers to compute with
    return [{name: round(source.uniform(-1, 1), 4) for name in COLUMNS} for _ in range(count)]


def as_json(table: list[dict[str, Any]]) -> bytes:
    return json.dumps({"rows": table}).encode()


def as_csv(table: list[dict[str, float]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def as_arrow(table: list[dict[str, float]]) -> bytes:
    out = io.BytesIO()
    batch = pa.Table.from_pylist(table)
    with pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_table(batch)
    return out.getvalue()


def request(
    body: bytes, key: str | None, media: str = "application/json", path: str = PATH
) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: */*", "User-Agent: load"]
    head += [f"Content-Type: {media}", f"Content-Length: {len(body)}"]
    head += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*head, "", ""]).encode() + body


def load(port: int, connections: int, seconds: float, *requests: bytes) -> dict[str, Any]:
    """Measure in a separate process, so that the client's work does not slow this one down."""
    done = subprocess.run(
        [sys.executable, str(LOAD), "127.0.0.1", str(port), str(connections), str(seconds)],
        input=b"".join(b"%08x%s" % (len(each), each) for each in requests),
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    if set(found["statuses"]) != {"HTTP/1.1 200"}:
        raise SystemExit(f"some requests failed: {found['statuses']}")
    return found | {"rate": found["requests"] / found["seconds"]}


# ---- measuring -----------------------------------------------------------------------------------


def compare(
    title: str,
    ports: tuple[int, int],
    connections: int,
    seconds: float,
    ask: bytes,
    constant: bytes,
) -> bool:
    """Measure service and yardstick in turn; print their rates and the ratios of the pairs."""
    pairs = []
    for turn in range(ALTERNATIONS):
        ours = lambda: load(ports[0], connections, seconds, ask)  # noqa: E731
        theirs = lambda: load(ports[1], connections, seconds, constant)  # noqa: E731
        if turn % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        pairs.append((first, second))
    rate = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
    p99 = statistics.median(a["microseconds"]["p99"] / b["microseconds"]["p99"] for a, b in pairs)
    cells = [
        title,
        str(connections),
        *(f"{statistics.median(pair[i]['rate'] for pair in pairs):,.0f}/s" for i in (0, 1)),
        *(
            f"{statistics.median(pair[i]['microseconds']['p99'] for pair in pairs) / 1000:.2f} ms"
            for i in (0, 1)
        ),
        f"**{rate:.2f}**",
        f"{p99:.2f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    return rate >= 1.0 and p99 <= 2.0


def many_rows(port: int, key: str, seconds: float) -> None:
    table = rows(ROWS)
    print(f"\n| {ROWS} rows in a request, 1 connection | rows/s | median |\n|---|---|---|")
    bodies = {
        "JSON": (as_json(table), "application/json"),
        "CSV": (as_csv(table), "text/csv"),
        "Arrow": (as_arrow(table), ARROW),
    }
    for name, (body, media) in bodies.items():
        found = load(port, 1, seconds, request(body, key, media))
        print(
            f"| {name} | {found['rate'] * ROWS:,.0f} "
            f"| {found['microseconds']['p50'] / 1000:.0f} ms |",
            flush=True,
        )


def many_models(port: int, key: str, seconds: float) -> None:
    body = as_json(rows(1))
    asks = [request(body, key, path=f"/api/v1/models/bench_{n}/predict") for n in range(MODELS)]
    print(f"\n| one row, models kept: {KEPT} | 1 connection | 16 connections |\n|---|---|---|")
    for title, some in (
        (f"{KEPT} models in turn", asks[:KEPT]),
        (f"{MODELS} models in turn", asks),
    ):
        load(port, 1, seconds / 3, *some)
        rates = [f"{load(port, each, seconds, *some)['rate']:,.0f}/s" for each in CONNECTIONS]
        print(f"| {title} | {' | '.join(rates)} |", flush=True)


def measure(ports: tuple[int, int], key: str, seconds: float) -> bool:
    plain, odd = rows(1), rows(1)
    odd[0] |= {"column_1": 100.0, "unknown": 1.0}
    odd[0].pop("column_2")
    constant = request(as_json(plain), None)
    print(
        "| one row | connections | service | constant | p99 | p99 of constant | ratio | of p99 |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    met = []
    for connections in CONNECTIONS:
        ask = request(as_json(plain), key)
        met.append(compare("key checked", ports, connections, seconds, ask, constant))
    for connections in CONNECTIONS:
        ask, constant = request(as_json(odd), key), request(as_json(odd), None)
        compare("and three warnings", ports, connections, seconds, ask, constant)
    return all(met)


def main() -> None:
    if sys.argv[1:] == ["yardstick"]:
        yardstick()
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as name, running_yardstick() as constant:
        folder = Path(name)
        with stored.database(folder) as engine:
            stored.publish(engine, folder, ["bench", *(f"bench_{n}" for n in range(MODELS))])
            key = stored.new_key(engine)
        variables = {"DESCENT_PREDICT_CACHE_MODELS": str(KEPT)}
        with running_service(folder, "--no-worker", **variables) as url:
            port = int(url.rpartition(":")[2])
            is_met = measure((port, constant), key, seconds)
            many_rows(port, key, seconds)
            many_models(port, key, seconds)
    print(f"\ntarget: ratio ≥ 1.0, p99 ≤ 2: {'met' if is_met else 'missed'}")


if __name__ == "__main__":
    main()
