"""Checks that the memory of the service does not grow with the models that pass through its cache.

    .venv/bin/python benchmarks/predict_memory.py [loads]

A hundred nets of many sizes predict in turn, forty rows each so that onnxruntime computes the
widest of them, through a cache that keeps twenty: each request loads one and drops another. The
benchmark compares the resident memory of the process after a fifth of the loads and at the end.
"""

import http.client
import os
import platform
import sys
import tempfile
from pathlib import Path

import stored
from predict_one_row import as_json, rows

from service.storage.blobs import LocalBlobs
from tests.service import trained
from tests.serving import start_service, url_of

LOADS = 10_000
ROWS = 40
MODELS = 100  # that predict in turn
KEPT = 20  # of them in the cache
PARTS = 5  # of the loads, after each of which the memory is read; the first is the warm-up
TARGET = 5.0  # percent


def widths(number: int) -> tuple[int, ...]:
    """Return the sizes of a net: from five hundred parameters to a quarter of a million."""
    hidden = 16 + 5 * number
    return (8, hidden, hidden, 1)


def resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def ask(connection: http.client.HTTPConnection, key: str, loads: int) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    body = as_json(rows(ROWS))
    for load in range(loads):
        connection.request("POST", f"/api/v1/models/net_{load % MODELS}/predict", body, headers)
        answer = connection.getresponse()
        if answer.read() and answer.status != 200:
            raise SystemExit(f"a request failed: {answer.status}")


def measure(pid: int, connection: http.client.HTTPConnection, key: str, loads: int) -> bool:
    print("| loads | resident memory |\n|---|---|")
    found = []
    for part in range(1, PARTS + 1):
        ask(connection, key, loads // PARTS)
        found.append(resident_mib(pid))
        print(f"| {loads // PARTS * part} | {found[-1]:.1f} MiB |", flush=True)
    growth = 100 * (found[-1] / found[0] - 1)
    is_met = growth <= TARGET
    print(f"\ngrowth {growth:+.1f} %; target ≤ {TARGET:g} %: {'met' if is_met else 'missed'}")
    return is_met


def main() -> None:
    loads = int(sys.argv[1]) if len(sys.argv) > 1 else LOADS
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {MODELS} models, {KEPT} of them kept\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with stored.database(folder) as engine:
            blobs = LocalBlobs(folder / "blobs")
            for number in range(MODELS):
                saved = stored.checkpoint_of(number, widths(number))
                run = trained.store(engine, blobs, folder, saved)
                trained.publish(engine, run, f"net_{number}")
            key = stored.new_key(engine)
        process = start_service(folder, "--no-worker", DESCENT_PREDICT_CACHE_MODELS=str(KEPT))
        try:
            host = url_of(process, folder).removeprefix("http://")
            is_met = measure(process.pid, http.client.HTTPConnection(host), key, loads)
        finally:
            process.terminate()
            process.wait()
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
