"""The loss curve in the terminal."""

import io
import math

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from descent.progress import BLANK, Curve, Event, axis, draw, watch


def rows(*values: float, first: int = 1, split: str = "train") -> Event:
    found = [
        {"seq": first + n, "epoch": first + n, "split": split, "name": "loss", "value": value}
        for n, value in enumerate(values)
    ]
    return Event(1, "metrics", {"rows": found})


def test_a_falling_curve_begins_at_the_top_and_ends_at_the_bottom() -> None:
    picture = draw([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 10, 4)
    assert picture[0][0] != chr(BLANK)
    assert picture[-1][-1] != chr(BLANK)
    assert picture[0][-1] == chr(BLANK)


@given(st.lists(st.floats(), max_size=50))
def test_any_values_make_a_picture_of_the_right_size(values: list[float]) -> None:
    picture = draw([value for value in values if abs(value) < 1e38], 10, 4)
    assert [len(line) for line in picture] == [10] * 4


def test_the_axis_names_powers_of_ten_where_they_are_drawn() -> None:
    assert axis(1000, 31) == "1         10        100       1000"
    assert axis(1, 10) == "1"


def test_a_rewind_drops_the_rows_that_are_replaced() -> None:
    curve = Curve()
    curve.take(rows(3.0, 2.0, 1.0))
    curve.take(Event(2, "rewind", {"attempt": 2, "after_seq": 1}))
    curve.take(rows(2.5, first=2))
    assert curve.values("train") == [3.0, 2.5]


def test_losses_that_are_not_finite_do_not_stop_the_picture() -> None:
    curve = Curve()
    curve.take(Event(1, "metrics", {"rows": [{"split": "train", "name": "loss", "value": "NaN"}]}))
    assert math.isnan(curve.values("train")[0])


def test_without_a_terminal_there_are_plain_lines() -> None:
    output = io.StringIO()
    events = [rows(*(100.0 / n for n in range(1, 31))), Event(2, "end", {})]
    watch(events, Console(file=output), "The loss:")
    lines = output.getvalue().splitlines()
    assert lines[0] == "The loss:"
    assert [line.split()[1] for line in lines[1:-1]] == ["1", "2", "5", "10", "20"]
    assert lines[-1].strip() == "epoch 30 · train loss 3.3333"
    assert "\x1b" not in output.getvalue()


def test_both_splits_are_drawn_on_one_scale_in_their_colours() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60, height=30)
    both = [rows(3.0, 2.0, 1.0), rows(9.0, 8.0, 7.0, split="validation"), Event(3, "end", {})]
    watch(both, console, "The loss:")
    picture = output.getvalue()
    assert "\x1b[36m" in picture  # train, in cyan
    assert "\x1b[33m" in picture  # validation, in yellow
    assert " 9 ┤" in picture
    assert " 1 ┤" in picture


def test_in_a_terminal_the_curve_is_drawn() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60, height=30)
    curve = watch([rows(3.0, 2.0), rows(1.0, first=3), Event(3, "end", {})], console, "The loss:")
    assert curve.values("train") == [3.0, 2.0, 1.0]
    assert any(0x2800 < ord(character) < 0x2900 for character in output.getvalue())
