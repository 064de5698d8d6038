"""SQLite with the API and a worker in separate processes, and 32 clients that write at once."""

import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.serving import RunService

pytestmark = [pytest.mark.slow, pytest.mark.both_databases]

WRITERS = 32
WRITE_S = 4.0
TABLE = {"columns": {"x": [n / 8 for n in range(32)], "y": [n / 4 for n in range(32)]}}


def test_no_writer_is_told_that_the_database_is_locked(
    run_service: RunService, tmp_path: Path
) -> None:
    answers: Counter[int] = Counter()
    seconds: list[float] = []
    with run_service(tmp_path, DESCENT_LOG_LEVEL="error") as url:
        api = f"{url}/api/v1"
        dataset = httpx.post(f"{api}/datasets", json=TABLE, timeout=30).json()["id"]
        config = {"dataset": dataset, "target": "y", "epochs": 5, "model": {"type": "linear"}}
        until = time.monotonic() + WRITE_S

        def write(number: int) -> None:
            with httpx.Client(timeout=60) as client:
                while (began := time.monotonic()) < until:
                    made = client.post(f"{api}/runs", json=config)
                    seconds.append(time.monotonic() - began)
                    run = made.json().get("id")
                    named = client.patch(f"{api}/runs/{run}", json={"name": str(number)})
                    ended = client.post(f"{api}/runs/{run}/cancel")
                    answers.update((made.status_code, named.status_code, ended.status_code))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds.sort()
    p99 = seconds[int(len(seconds) * 0.99)]
    print(f"{sum(answers.values())} writes {dict(answers)}, p99 of a submit {p99:.3f} s")  # noqa: T201
    assert set(answers) <= {200, 202, 409}, answers  # 409: it had succeeded before the cancel
    assert answers[202] >= WRITERS
