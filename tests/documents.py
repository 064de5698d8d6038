"""Runs the documents as a user who tries everything: block by block, in their order.

The language of a block decides: `sh` is run, `console` is run and compared with the lines after
each `$ `, `python` is run with the names of the page's earlier blocks. A `text` or `json` right
after a block that was run is its output; `…` there stands for anything. Other `json` is part of a
run's configuration.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from tests import curl
from tests.postgres import PROGRAMS

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
ADDRESS = "http://127.0.0.1:8000"
FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1\n", re.MULTILINE | re.DOTALL)
#: a command that runs until a signal stops it; `make serve` is `descent serve`, see the Makefile
SERVER = re.compile(r"(?:\w+=\S+ )*(?:make serve|descent serve|descent worker)\b")
HERE_TEXT = re.compile(r"<<'(\w+)'")
ID = re.compile(r"\b([a-z]+)_[0-9a-z]{26}\b")
SECRET = re.compile(r"\bdsc_\w{36}\b")
ETAG = re.compile(r"^etag: (\S+)", re.MULTILINE | re.IGNORECASE)
RUN = frozenset({"sh", "console", "python"})
COMMAND_S = 120  # seconds that a command may take; the first run waits until torch is loaded
STOP_S = 15  # seconds that a service may take to end


@dataclass(frozen=True)
class Block:
    """One block of code of a page."""

    page: str
    line: int
    language: str
    text: str
    #: the language of the block directly before it, if there is one
    follows: str

    @property
    def is_output(self) -> bool:
        return self.language in {"text", "json"} and self.follows in RUN

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """Return the blocks of code of a page."""
    text = (ROOT / page).read_text()
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        follows = found[-1].language if found and not text[end : match.start()].strip() else ""
        found.append(Block(page, line, match[2], match[3], follows))
        end = match.end()
    return found


def commands(text: str) -> list[str]:
    """Return the commands of a shell block, some of which have several lines."""
    found: list[str] = []
    pending = ""
    for line in text.splitlines():
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        pending += line + "\n"
        if is_whole(pending.rstrip("\n").splitlines()):
            found.append(pending.rstrip("\n"))
            pending = ""
    assert not pending, f"a quote is never closed: {pending}"
    return found


def is_whole(lines: list[str]) -> bool:
    """Whether these lines are a whole command: no backslash, quote or `<<` continues them."""
    if here := HERE_TEXT.search(lines[0]):
        return lines[-1] == here[1]
    try:
        shlex.split("\n".join(lines), comments=True)
    except ValueError:
        return False
    return not lines[-1].endswith("\\")


def dialogue(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a `console` block with its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        length = next(n for n in range(1, len(lines) + 1) if is_whole(lines[:n]))
        yield "\n".join(lines[:length]), "\n".join(lines[length:])


def pattern(text: str) -> re.Pattern[str]:
    """Return a pattern for a text in which `…` matches any text."""
    lines = [re.escape(line.rstrip()).replace("…", ".*?") for line in text.strip().splitlines()]
    return re.compile(r"\s*" + r"[ ]*\n".join(lines) + r"\s*", re.DOTALL)


def fits(expected: Any, found: Any) -> bool:
    """Whether an answer contains everything that a document shows of it."""
    match expected:
        case dict():
            return isinstance(found, dict) and all(
                key in found and fits(value, found[key]) for key, value in expected.items()
            )
        case [*first, "…"]:
            return isinstance(found, list) and all(map(fits, first, found[: len(first)]))
        case list():
            same = isinstance(found, list) and len(found) == len(expected)
            return same and all(map(fits, expected, found))
        case str():
            return isinstance(found, str) and pattern(expected).fullmatch(found) is not None
        case bool() | None:
            return expected is found
        case _:
            return bool(found == pytest.approx(expected, rel=0.01, abs=0.01))


class Reader:
    """Follows a page in a separate folder, with the same programs as a user."""

    def __init__(self, folder: Path, texts: dict[str, str], *, with_curl: bool = True) -> None:
        """Take `texts`: text of a page → the equivalent on this machine."""
        self._folder = folder / "work"
        self._tools = folder / "tools"
        self._state = folder / "exported"
        self._texts = dict(texts)
        self._known: dict[str, str] = {}
        self._etag = '"…"'
        self._names: dict[str, Any] = {}
        self._servers: list[subprocess.Popen[str]] = []
        shutil.copytree(ROOT / "descent" / "data", self._folder / "descent" / "data")
        self._tools.mkdir()
        self._make_tool("descent", "-m", "descent")
        if not (with_curl and curl.is_here()):
            self._make_tool("curl", str(Path(curl.__file__)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("client", "triton"):
            if hasattr(self._names.get(name), "close"):
                self._names[name].close()
        self._stop()

    def _stop(self) -> None:
        for server in reversed(self._servers):
            server.terminate()
        for server in reversed(self._servers):
            try:
                server.wait(STOP_S)
            finally:
                server.kill()
                server.wait()
                if server.stdout:
                    server.stdout.close()
        self._servers.clear()

    # ---- blocks ----------------------------------------------------------------------------------

    def read(self, found: list[Block]) -> None:
        """Run the blocks in order, and compare their output with the documented output."""
        output = ""
        for block in found:
            if block.language == "sh":
                output = [self.command(each) for each in commands(block.text)][-1]
            elif block.language == "console":
                for command, expected in dialogue(block.text):
                    said = self.command(command, merged=True)
                    self._compare(block, expected, said)
            elif block.language == "python":
                output = self.python(block)
            elif block.is_output and block.language == "json":
                found_json = json.loads(output)
                assert fits(json.loads(block.text), found_json), f"{block}: got {output}"
            elif block.is_output:
                self._compare(block, block.text, output)

    @staticmethod
    def _compare(block: Block, expected: str, found: str) -> None:
        wanted = pattern(expected)
        assert wanted.fullmatch(found), f"{block} says\n{expected}\nbut it is\n{found}"

    def python(self, block: Block) -> str:
        """Run a block of Python with the names of the earlier ones; return its output."""
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            patch.chdir(self._folder)
            source = compile(self._real(block.text), str(block), "exec")
            exec(source, self._names)  # noqa: S102  our own document
        self._learn(output.getvalue())
        return output.getvalue()

    # ---- commands --------------------------------------------------------------------------------

    def command(self, text: str, *, merged: bool = False) -> str:
        """Run a command of the shell; return its output, with `merged` stderr too."""
        text = self._real(text)
        if SERVER.match(text):
            self._start(text)
            return ""
        # Exported variables hold for the page's later commands; the address may change.
        # A starting service reads them at the same time, so they are replaced as a whole.
        keep = 'export -p > "$0.new"\nmv "$0.new" "$0"'
        script = f'test ! -f "$0" || . "$0"\n{text}\nunset DESCENT_URL\n{keep}'
        try:
            done = subprocess.run(
                ["/bin/sh", "-e", "-c", script, str(self._state)],
                cwd=self._folder,
                env=self._environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"{text} took longer than {COMMAND_S} s\n{self._log()}")
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        self._learn(done.stdout)
        return done.stdout

    def _start(self, text: str) -> None:
        """Start a command that runs until a signal stops it; wait until a service listens.

        A service replaces an earlier one, which has the same data folder.
        """
        if "descent serve" in text:
            self._stop()
        text = text.replace("make serve", "descent serve").removesuffix(" &")
        words = text.rpartition("descent ")
        script = f'test ! -f "$0" || . "$0"\n{words[0]} exec descent {words[2]}'
        with (self._folder / "service.log").open("a") as log:
            server = subprocess.Popen(
                ["/bin/sh", "-e", "-c", script, str(self._state)],
                cwd=self._folder,
                env=self._environment() | {"DESCENT_PORT": "0"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._servers.append(server)
        if "descent serve" in text:
            assert server.stdout
            line = server.stdout.readline()
            assert line, f"{text} did not start:\n{self._log()}"
            self._texts[ADDRESS] = json.loads(line)["url"]

    def _log(self) -> str:
        """Return the end of the logs of the services that the page started."""
        log = self._folder / "service.log"
        return log.read_text()[-4000:] if log.exists() else ""

    def _real(self, text: str) -> str:
        """Replace the placeholders in a text by the values of this reader."""
        for name, value in {**self._texts, **self._known}.items():
            text = text.replace(name, value)
        return text.replace('If-Match: "…"', f"If-Match: {self._etag}")

    def _learn(self, output: str) -> None:
        """Keep the ids, the secret and the ETag of the last output, to fill them in later."""
        for match in reversed(list(ID.finditer(output))):
            self._known[f"{match[1]}_…"] = match[0]
        for secret in SECRET.findall(output):
            self._known["dsc_…"] = secret
        for etag in ETAG.findall(output):
            self._etag = etag

    def _environment(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("DESCENT_")}
        places = (self._tools, Path(sys.executable).parent, PROGRAMS, os.environ["PATH"])
        return own | {
            "PATH": os.pathsep.join(map(str, places)),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "DESCENT_URL": self._texts.get(ADDRESS, ADDRESS),
        }

    def _make_tool(self, name: str, *arguments: str) -> None:
        words = shlex.join([sys.executable, *arguments])
        (self._tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (self._tools / name).chmod(0o755)
