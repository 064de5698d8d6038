"""The course's notebook runs in a minute, and gives its committed outputs."""

import re
import tempfile
import time
from pathlib import Path

import pytest

from tests import course

pytestmark = pytest.mark.slow

LONGEST_S = 60.0
LARGEST = 600_000  # bytes: each clone of the project contains the pictures
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def numbers(texts: list[str]) -> list[float]:
    return [float(number) for text in texts for number in NUMBER.findall(text)]


def words(texts: list[str]) -> list[str]:
    return [NUMBER.sub("0", text) for text in texts]


def test_the_course_runs_and_shows_what_is_committed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DESCENT_URL", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    began = time.monotonic()
    now = course.executed(tmp_path)
    assert time.monotonic() - began <= LONGEST_S
    committed = course.read()
    assert words(course.printed(now)) == words(course.printed(committed))
    # Another processor may round differently and change the class of a flower.
    found, known = numbers(course.printed(now)), numbers(course.printed(committed))
    assert found == pytest.approx(known, rel=0.05, abs=0.01)
    assert len(course.pictures(now)) == len(course.pictures(committed)) == 11
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith("descent-")]
    assert left == []  # the last cell has stopped the service


def test_the_course_is_small_and_says_nothing_of_who_ran_it() -> None:
    text = course.COURSE.read_text()
    assert len(text) < LARGEST
    assert [
        word
        for word in ("/home", "/root", tempfile.gettempdir(), "127.0.0.1", "Traceback")
        if word in text
    ] == []
    outputs = [o for cell in course.read().cells for o in cell.get("outputs", [])]
    assert {o.get("name", "stdout") for o in outputs} == {"stdout"}
    assert course.read().metadata.language_info == {"name": "python"}
