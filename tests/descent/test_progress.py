"""Progress displays of the client."""

import io
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console

from descent.errors import Unreachable
from descent.progress import (
    Event,
    Markup,
    TrainingProgress,
    in_notebook,
    in_terminal,
    screen,
    show_training,
)
from descent.transport import ApiCall, Transport, Watched, unwatched
from tests.descent.scripted import Answer, scripted

V4 = {"nbformat": 4, "nbformat_minor": 5}  # of a notebook's file
ROOT = Path(__file__).parents[2]


def events(*losses: float) -> list[Event]:
    rows = [
        {"seq": n, "epoch": n, "split": "train", "name": "loss", "value": loss}
        for n, loss in enumerate(losses, 1)
    ]
    return [
        Event(1, "state", {"state": "running"}),
        Event(2, "metrics", {"rows": rows}),
        Event(3, "end", {"state": "succeeded"}),
    ]


def test_in_a_terminal_there_is_a_bar_that_ends_full() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100)
    in_terminal(events(3.0, 2.0, 1.5), TrainingProgress("Training it", epochs=200), console)
    last = output.getvalue().rpartition("Training it")[2]
    assert "3/3" in last  # it stopped early: the bar is full nevertheless
    assert "loss 1.5" in last


def test_elsewhere_there_are_plain_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_training(iter(events(3.0, 2.0, 1.5)), "Training it", 3, "lines")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[0] == "Training it, up to 3 epochs:"
    assert output.err.splitlines()[-1] == "  epoch 3 · train loss 1.5"
    assert "\x1b" not in output.err


def test_whoever_wants_no_progress_sees_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert screen(wanted=False) == "none"
    show_training(iter(events(1.0)), "Training it", 1, "none")
    assert capsys.readouterr().err == ""


class Output:
    """An output of a notebook that records the displayed content."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, shown: object, /) -> None:
        assert isinstance(shown, Markup)
        self.shown.append(shown._repr_html_())


def test_in_a_notebook_there_are_a_bar_and_a_curve() -> None:
    output = Output()
    in_notebook(events(3.0, 2.0, 1.5), TrainingProgress("<b>it</b>", epochs=200), output)
    last = output.shown[-1]
    assert '<progress value="3" max="3">' in last
    assert "<polyline" in last
    assert "&lt;b&gt;it&lt;/b&gt;" in last
    assert "epoch 3 of 200 · loss 1.5" in last


def test_a_real_notebook_shows_the_run_as_it_learns(service_url: str) -> None:
    source = (
        "from descent import Client\n"
        f"client = Client({service_url!r})\n"
        f"scores = client.upload({str(ROOT / 'descent' / 'data' / 'scores.csv')!r})\n"
        "run = client.train(scores, 'Final', epochs=20)\n"
        "print(run.state)\n"
    )
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "id": "train"}
    book = nbformat.reads(
        json.dumps({"cells": [cell | {"execution_count": None}], "metadata": {}, **V4}),
        as_version=4,
    )
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = book.cells[0].outputs
    shown = [output.data["text/html"] for output in outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    assert "<svg" in shown[0]
    assert "epoch 20 of 20" in shown[0]
    assert [output.text for output in outputs if output.output_type == "stream"] == ["succeeded\n"]


def test_an_upload_tells_how_far_it_is_and_is_not_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    file.write_bytes(b"1" * 1_000_000)
    told: list[tuple[int, int | None]] = []
    content = Watched(file.open("rb"), lambda done, total: told.append((done, total)))
    assert [len(piece) <= 256 * 1024 for piece in content] == [True] * 4
    content.close()
    assert told[0][0] < 1_000_000
    assert told[-1] == (1_000_000, 1_000_000)


def test_a_download_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    target.write_bytes(b"old")
    cut = Answer(200, b"half of ", {"Content-Length": "100"})
    with scripted(cut, cut) as (url, _):
        transport = Transport(url, "", 0.0)
        with pytest.raises(Unreachable):
            transport.download(ApiCall("GET", "/x"), target, unwatched)
        transport.close()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_download_that_broke_is_begun_again(tmp_path: Path) -> None:
    cut = Answer(200, b"half of ", {"Content-Length": "100"})
    told: list[tuple[int, int | None]] = []
    with scripted(cut, Answer(200, b"all of it")) as (url, asked):
        transport = Transport(url, "", 10)
        transport.download(ApiCall("GET", "/x"), tmp_path / "f", lambda *to: told.append(to))
        transport.close()
    assert (tmp_path / "f").read_bytes() == b"all of it"
    assert len(asked) == 2
    assert told[-1] == (9, 9)
