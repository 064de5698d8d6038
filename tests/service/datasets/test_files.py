"""Generated files over encodings, dialects, types, dates and markers have the values they should.

`tests.test_every_way` holds that predictions read the same files as uploads do.
"""

from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.files import MadeColumn, MadeFile, make_file

SEED, FILES, EACH = 15, 60, 30
PATH = "/api/v1/datasets"
#: the type of a column → the kinds that may have it
TYPES = {"integer": "number", "id": "category"}


def faults(client: httpx.Client, made: MadeFile) -> list[str]:
    """Return a sentence for each column that the service reads in another way."""
    headers = {"Content-Type": made.content_type}
    answer = client.post(PATH, content=made.content, headers=headers, params=made.params)
    if answer.status_code != 201:
        return [f"file {made.number} {made.made}: {answer.text}"]
    found = answer.json()
    rows = client.get(f"{PATH}/{found['id']}/rows", params={"limit": 200}).json()["data"]
    names = [column["name"] for column in found["columns"]]
    if names != [column.name for column in made.columns] or len(rows) != made.rows:
        return [f"file {made.number} {made.made}: {names}, {len(rows)} rows"]
    return [
        f"file {made.number} {made.made}, {column.kind!r}: {fault}"
        for column, profile in zip(made.columns, found["columns"], strict=True)
        for fault in _faults_of(column, profile, [row[column.name] for row in rows])
    ]


def _faults_of(column: MadeColumn, profile: dict[str, Any], values: list[Any]) -> list[str]:
    kind = column.kind.split()[0]
    if TYPES.get(profile["type"], profile["type"]) != kind:
        return [f"is {profile['type']}: {profile['why']}"]
    read = [_plain(kind, value) for value in values]
    for text, due, value in zip(column.texts, column.values, read, strict=True):
        if value != due:
            return [f"{text!r} is read as {value!r}, not {due!r}; {profile.get('reading')}"]
    return []


def _plain(kind: str, value: Any) -> Any:
    if value is not None and kind == "datetime":
        return datetime.fromisoformat(value).timestamp()
    return float(value) if value is not None and kind == "number" else value


@pytest.mark.parametrize("first", range(0, FILES, EACH))
def test_the_cells_of_a_file_have_the_values_that_were_written(
    api: httpx.Client, first: int
) -> None:
    found = [fault for n in range(first, first + EACH) for fault in faults(api, make_file(SEED, n))]
    assert found[:5] == []
