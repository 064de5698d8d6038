"""Other protocols and other clients work as the page about clients describes."""

import json
from pathlib import Path
from typing import Any

from tests.documents import ADDRESS, Block, Reader, blocks, commands


def block(text: str) -> Block:
    (found,) = [block for block in blocks("docs/clients.md") if text in block.text]
    return found


def test_the_calls_of_other_protocols_lead_to_predictions(served_url: str, tmp_path: Path) -> None:
    with Reader(tmp_path, {ADDRESS: served_url}) as reader:
        calls = commands(block("/v2/models/scores/infer").text)
        tensors, table, columns = (json.loads(reader.command(call)) for call in calls)
    (final,) = tensors["outputs"]
    assert final["data"] == table["predictions"] == [20.0, 15.0]  # of the latest version
    assert columns["predictions"] == [13.0, 9.875]  # of the champion
    assert [warning["code"] for warning in columns["warnings"]] == ["missing"]


def test_the_clients_of_others_run(served_url: str, capsys: Any) -> None:
    port = served_url.rpartition(":")[2]
    source = block("from tritonclient").text.replace("8000", port)
    names: dict[str, Any] = {}
    exec(compile(source, "clients.md", "exec"), names)  # noqa: S102  our own document
    names["triton"].close()
    printed = capsys.readouterr().out
    assert "[13.     9.875]" in printed
    assert "5.5" in printed
