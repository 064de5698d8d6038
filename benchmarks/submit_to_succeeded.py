"""Measures the time from the submission of a small run until its client sees `succeeded`.

    .venv/bin/python benchmarks/submit_to_succeeded.py [address of a service]
    .venv/bin/python benchmarks/submit_to_succeeded.py --against ANOTHER_CHECKOUT

The 13 scores, a linear model, 200 epochs; one run after the other, on a warm service. Without an
address it starts a service of its own. With the folder of another checkout it starts the service
of that code too, and the two train in turns of a few runs, so that other load on the machine
affects both.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from descent import Client
from descent.demo import DATA, running_service

RUNS = 20
BLOCK = 5  # runs of one service in a row
WARM_UP = 1  # blocks
TARGET_S = 0.3  # median
TARGET_RATIO = 0.65  # of the medians, beside the commit before the compiled engine
OWN = Path(__file__).resolve().parents[1]
CONFIG = {
    "model": {"type": "linear"},
    "epochs": 200,
    "batch_size": "full",
    "split": {"type": "none"},
    "early_stopping": None,
}
Timings = list[dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", help="measure this service")
    parser.add_argument("--against", type=Path, help="compare with the code in this folder")
    parser.add_argument("--rounds", type=int, default=1, help=f"of {RUNS} runs")
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    with ExitStack() as services:
        own = asked.address or services.enter_context(service_of(OWN))
        if asked.against is None:
            for _round in range(asked.rounds):
                report(*in_turns([own]))
            return
        other = services.enter_context(service_of(asked.against.resolve()))
        for _round in range(asked.rounds):
            compare(*in_turns([own, other]))


@contextmanager
def service_of(checkout: Path) -> Iterator[str]:
    """Run the service of a checkout with the packages of this interpreter; yield its address."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = str(checkout)
        try:
            with running_service(Path(folder), Path(folder) / "service.log") as url:
                yield url
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before


def in_turns(urls: list[str]) -> list[Timings]:
    """Return the timings of the runs of each service; the services take turns."""
    found: list[Timings] = [[] for _ in urls]
    with ExitStack() as opened:
        clients = [opened.enter_context(Client(url)) for url in urls]
        datasets = [client.upload(DATA / "scores.csv").id for client in clients]
        for _turn in range(WARM_UP + RUNS // BLOCK):
            for client, dataset, rows in zip(clients, datasets, found, strict=True):
                rows += [one(client, dataset) for _run in range(BLOCK)]
    return [rows[WARM_UP * BLOCK :] for rows in found]


def one(client: Client, dataset: str) -> dict[str, float]:
    """Return the total time that the client measures, and the parts that the service reports."""
    began = time.perf_counter()
    run = client.submit(dataset, "Final", **CONFIG).wait(60)
    whole = time.perf_counter() - began
    timings = run.info.timings
    return {
        "submit to succeeded": whole,
        "in the queue": timings.queued_s or 0.0,
        "starting": timings.start_s or 0.0,
        "training": timings.training_s or 0.0,
    }


def report(rows: Timings) -> None:
    print(f"| {RUNS} runs | median | slowest |\n|---|---|---|")
    for part in rows[0]:
        print(f"| {part} | {median(rows, part):.3f} s | {max(row[part] for row in rows):.3f} s |")
    found = median(rows, "submit to succeeded")
    print(f"\ntarget: median ≤ {TARGET_S} s: {'met' if found <= TARGET_S else 'missed'}\n")


def compare(own: Timings, other: Timings) -> None:
    print(f"| {RUNS} runs each, medians | this code | the other | ratio |\n|---|---|---|---|")
    for part in own[0]:
        ours, theirs = median(own, part), median(other, part)
        print(f"| {part} | {ours:.3f} s | {theirs:.3f} s | {ours / theirs:.2f} |")
    ratio = median(own, "submit to succeeded") / median(other, "submit to succeeded")
    is_met = "met" if ratio <= TARGET_RATIO else "missed"
    print(f"\ntarget: ratio ≤ {TARGET_RATIO}: {is_met}\n")


def median(rows: Timings, part: str) -> float:
    return statistics.median(row[part] for row in rows)


if __name__ == "__main__":
    main()
