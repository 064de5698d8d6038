"""Measures the time of `from descent import Client` beyond the imports of httpx and pydantic.

    python benchmarks/import_descent.py

Each run is a fresh interpreter that measures both, so that a slow moment affects both.
"""

import json
import statistics
import subprocess
import sys

RUNS = 21
TARGET = 0.15  # seconds
HEAVY = ("torch", "numpy", "fastapi", "sqlalchemy", "pandas", "polars", "pyarrow", "matplotlib")
SOURCE = f"""
import json, sys, time
began = time.perf_counter()
import httpx, pydantic
needed = time.perf_counter()
import descent
bare = time.perf_counter()
worked = time.process_time()
from descent import Client
done = time.perf_counter()
worked = time.process_time() - worked
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
print(json.dumps([needed - began, bare - needed, done - needed, worked, loaded]))
"""


def main() -> None:
    command = [sys.executable, "-c", SOURCE]
    found = [json.loads(subprocess.check_output(command)) for _ in range(RUNS)]
    needed, bare, whole, worked = (statistics.median(row[i] for row in found) for i in range(4))
    loaded = {name for row in found for name in row[4]}
    print(f"median of {RUNS} fresh interpreters")
    print(f"  import httpx, pydantic       {needed * 1000:7.1f} ms")
    print(f"  import descent               {bare * 1000:7.1f} ms more")
    print(f"  from descent import Client   {whole * 1000:7.1f} ms more")
    print(f"    of which computing         {worked * 1000:7.1f} ms: the rest waits for the machine")
    print(f"  heavy packages loaded by it  {', '.join(sorted(loaded)) or 'none'}")
    is_met = whole <= TARGET and not loaded
    print(f"target, {TARGET * 1000:.0f} ms and none of them: {'met' if is_met else 'MISSED'}")
    sys.exit(not is_met)


if __name__ == "__main__":
    main()
