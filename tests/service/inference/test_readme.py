"""The README's calls of other protocols and with other clients do what it says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.test_docs import block, curl


@pytest.fixture
def served(served_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served_url) as client:
        yield client


def test_the_calls_of_other_protocols_lead_to_predictions(
    served: httpx.Client, tmp_path: Path
) -> None:
    text = re.sub(r"^#.*\n", "", block("client calls"), flags=re.MULTILINE).replace("\\\n", "")
    tensors, table, columns = (
        curl(line, served, tmp_path).json() for line in text.splitlines() if line
    )
    (final,) = tensors["outputs"]
    assert final["data"] == table["predictions"] == [20.0, 15.0]  # of the latest version
    assert columns["predictions"] == [13.0, 9.875]  # of the champion
    assert [warning["code"] for warning in columns["warnings"]] == ["missing"]


def test_the_clients_of_others_run(served_url: str, capsys: Any) -> None:
    port = served_url.rpartition(":")[2]
    source = block("clients").replace("8000", port)
    names: dict[str, Any] = {}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102  our own document
    names["triton"].close()
    printed = capsys.readouterr().out
    assert "[13.     9.875]" in printed
    assert "5.5" in printed
