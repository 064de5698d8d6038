"""Finds the encoding of a text, and turns its bytes into UTF-8.

A byte order mark decides; then the encoding that the client names; then UTF-8, if all bytes fit;
then UTF-16 or UTF-32 by their NULs; then Windows-1252, with a warning, if the bytes look like words
of a western language. Everything else is refused. Encodings are a closed list of the standard
library's codecs.
"""

import codecs
import encodings.aliases
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from descent.codes import make_warning
from service.datasets.rejected import Rejected, cell_error, shown

CHUNK = 1024 * 1024  # bytes that are decoded at a time
UTF_8 = "utf-8"
#: The encodings that may be named → their codecs.
ENCODINGS: dict[str, str] = {
    UTF_8: UTF_8,
    "utf-16": "utf-16",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
    "utf-32": "utf-32",
    "utf-32-le": "utf-32-le",
    "utf-32-be": "utf-32-be",
    **{f"windows-{number}": f"cp{number}" for number in range(1250, 1259)},
    "latin-1": "latin-1",
    **{f"iso-8859-{number}": f"iso8859-{number}" for number in (*range(2, 12), *range(13, 17))},
    "macintosh": "mac-roman",
    "cp437": "cp437",
    "cp850": "cp850",
    "cp852": "cp852",
    "cp866": "cp866",
    "koi8-r": "koi8-r",
    "koi8-u": "koi8-u",
    "shift-jis": "cp932",
    "euc-jp": "euc-jp",
    "iso-2022-jp": "iso2022-jp",
    "gb18030": "gb18030",
    "big5": "big5hkscs",
    "euc-kr": "cp949",
}
#: Other spellings, as HTTP and Python know them. ASCII is a part of UTF-8, and many clients say
#: it of every text.
_SPELLINGS = {
    "ascii": UTF_8, "usascii": UTF_8, "utf8sig": UTF_8, "utf8bom": UTF_8, "ansi": "windows-1252",
    "gbk": "gb18030", "gb2312": "gb18030", "cp936": "gb18030", "cp932": "shift-jis",
    "windows31j": "shift-jis", "cp949": "euc-kr", "ksc56011987": "euc-kr", "utf16le": "utf-16-le",
    "ucs2": "utf-16", "utf16be": "utf-16-be", "unicode": "utf-16", "mac": "macintosh",
    "macroman": "macintosh", "xmacroman": "macintosh", "xsjis": "shift-jis", "sjis": "shift-jis",
}  # fmt: skip
#: The longest mark first, because that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, UTF_8),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK = "\ufeff"
GUESSED = 64 * 1024  # bytes of the lines by which Windows-1252 is recognised
HEAD = 4096  # bytes at the beginning in which NULs are counted
_SEQUENCE = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
_HIGH = re.compile(rb"[\x80-\xff]")
#: What stands alone in a western text of Windows-1252: currencies, units, quotes, dashes.
_SYMBOLS = frozenset(
    bytes.fromhex(
        "80828485898b91929394959697999ba0a1a2a3a5a7a9aaabadaeb0b1b2b3b4b5b7babbbcbdbebfd7"
    ).decode("cp1252")
)
_WORD = re.compile(r"[^\W\d_]+")
#: Of the letters in words with letters beyond ASCII, the share of these: above it, the text is
#: in another script.
_FOREIGN = 0.5


def encoding_named(name: str) -> str | None:
    """Return the encoding that a client names, as we spell it; None if it is not known."""
    return _NAMES.get(_plain(name))


def charset_of(content_type: str) -> str:
    """Return the `charset` of a content type, or an empty text."""
    found = re.search(r";\s*charset\s*=\s*[\"']?([^\s\"';]+)", content_type, re.IGNORECASE)
    return found[1] if found else ""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _spellings() -> dict[str, str]:
    names = dict(_SPELLINGS)
    for alias, codec in encodings.aliases.aliases.items():
        for name, ours in ENCODINGS.items():
            if _plain(codec) == _plain(ours):
                names.setdefault(_plain(alias), name)
    for name, codec in ENCODINGS.items():
        names[_plain(name)] = name
        names.setdefault(_plain(codec), name)
    return names


_NAMES = _spellings()


@dataclass
class Encoding:
    """The encoding of a text, and the reason for it."""

    name: str
    why: str
    #: bytes of the mark at the beginning
    mark: int = 0
    warnings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def codec(self) -> str:
        return ENCODINGS[self.name]


def find_encoding(head: bytes, named: str | None) -> Encoding | None:
    """Return the encoding that the first bytes or the client tell; None if neither does."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return Encoding(name, "its byte order mark", len(mark))
    if named:
        # Without its mark, UTF-16 has the order of bytes that its NULs tell.
        found = _by_nuls(head) if named in {"utf-16", "utf-32"} else None
        little = f"{named}-le" if named in {"utf-16", "utf-32"} else named
        return found or Encoding(little, "the request names it")
    return _by_nuls(head)


def _by_nuls(head: bytes) -> Encoding | None:
    """Recognise UTF-16 and UTF-32 in a text that is mostly ASCII: its other bytes are NUL."""
    head = head[: HEAD - HEAD % 4]
    if len(head) < 4 or b"\0" not in head:
        return None
    nuls = [head[place::4].count(0) / len(head[place::4]) for place in range(4)]
    for name, wanted in (
        ("utf-32-le", (0, 1, 1, 1)),
        ("utf-32-be", (1, 1, 1, 0)),
        ("utf-16-le", (0, 1, 0, 1)),
        ("utf-16-be", (1, 0, 1, 0)),
    ):
        if all((nul > 0.5) if want else nul < 0.1 for nul, want in zip(nuls, wanted, strict=True)):
            return Encoding(name, "every other byte is NUL")
    return None


# ---- a text in memory ---------------------------------------------------------------------------


def decoded(content: bytes, named: str | None = None) -> tuple[str, Encoding]:
    """Return a text and its encoding. Raises Rejected with the line that cannot be decoded."""
    found = find_encoding(content[:HEAD], named)
    if found is None:
        try:
            return _without_nul(content.decode(UTF_8)), Encoding(UTF_8, "all its bytes fit")
        except UnicodeDecodeError:
            guess = _Guess()
            guess.add(content)
            found = guess.encoding()
            if found is None:
                raise _undecodable(content) from None
    pieces = list(_decoded(iter([content[found.mark :]]), found))
    return _without_nul("".join(pieces)), found


def _without_nul(text: str) -> str:
    at = text.find("\0")
    if at >= 0:
        raise nul_in(text.count("\n", 0, at) + 1, f"character {at}")
    return text.removeprefix(MARK)


def nul_in(line: int, place: str) -> Rejected:
    return cell_error(
        "nul_byte",
        f"Line {line} holds a NUL byte ({place} of the file): remove it, or say its encoding, such"
        " as encoding=utf-16.",
        line=line,
    )


def _undecodable(content: bytes) -> Rejected:
    try:
        content.decode(UTF_8)
    except UnicodeDecodeError as error:
        return not_utf8(error.start, content.count(b"\n", 0, error.start) + 1)
    raise AssertionError("the content is UTF-8")


def not_utf8(offset: int, line: int) -> Rejected:
    return cell_error(
        "not_utf8",
        f"The file is not UTF-8: byte {offset}, in line {line}, cannot be decoded. Save the file as"
        " UTF-8 and send it again, or say its encoding, such as encoding=windows-1252.",
        line=line,
    )


def _decoded(chunks: Iterator[bytes], encoding: Encoding) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    line = 1
    try:
        for chunk in chunks:
            text = decoder.decode(chunk)
            line += text.count("\n")
            yield text
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        code = error.object[error.start : error.end].hex(" ")
        if isinstance(error.object, bytes | bytearray):
            # Within the chunk, the lines above the fault are only an estimate for two-byte codes.
            line += bytes(error.object[: error.start]).count(b"\n")
        raise cell_error(
            "not_utf8" if encoding.name == UTF_8 else "wrong_encoding",
            f"The file is not {encoding.name} ({encoding.why}): the bytes {shown(code)} near line"
            f" {line} cannot be decoded. Say its encoding, such as encoding=windows-1252, or save"
            " it as UTF-8.",
            line=line,
        ) from error


# ---- a file -------------------------------------------------------------------------------------


def as_utf8(
    path: Path, target: Path, named: str | None, check: Callable[[bytes], None] | None = None
) -> tuple[Path, Encoding]:
    """Return a file in UTF-8 without NUL, and the encoding that the given file has.

    It is the file itself if that is UTF-8, otherwise `target`, which is written. `check` gets all
    bytes of the returned file. Raises Rejected.
    """
    with path.open("rb") as file:
        found = find_encoding(file.read(HEAD), named)
    if found is None or found.name == UTF_8:
        fault = _first_fault(path, check)
        if fault is None:
            return path, found or Encoding(UTF_8, "all its bytes fit")
        if found is not None or (found := _guessed(path)) is None:
            raise fault
    with path.open("rb") as file, target.open("wb") as out:
        file.seek(found.mark)
        is_first, lines, offset = True, 1, 0
        for text in _decoded(iter(lambda: file.read(CHUNK), b""), found):
            data = (text.removeprefix(MARK) if is_first else text).encode(UTF_8)
            if (nul := data.find(b"\0")) >= 0:
                raise nul_in(lines + data.count(b"\n", 0, nul), f"byte {offset + nul}")
            is_first = is_first and not text
            lines += data.count(b"\n")
            offset += len(data)
            out.write(data)
            if check:
                check(data)
    return target, found


def _first_fault(path: Path, check: Callable[[bytes], None] | None) -> Rejected | None:
    """Return the first place that is not UTF-8. Raises Rejected for a NUL byte."""
    decoder = codecs.getincrementaldecoder(UTF_8)()
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            if (nul := chunk.find(b"\0")) >= 0:
                raise nul_in(_line_of(path, offset + nul), f"byte {offset + nul}")
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                place = offset - held + error.start
                return not_utf8(place, _line_of(path, max(offset, place)))
            if not chunk:
                return None
            if check:
                check(chunk)
            offset += len(chunk)


def _line_of(path: Path, offset: int) -> int:
    """Return the number of the line with the byte at an offset."""
    lines = 1
    with path.open("rb") as file:
        while offset > 0 and (chunk := file.read(min(CHUNK, offset))):
            lines += chunk.count(b"\n")
            offset -= len(chunk)
    return lines


def _guessed(path: Path) -> Encoding | None:
    guess = _Guess()
    with path.open("rb") as file:
        while not guess.is_sure and (chunk := file.read(CHUNK)):
            guess.add(chunk + file.readline(CHUNK))
    return guess.encoding()


class _Guess:
    """Tells whether bytes that are not UTF-8 look like a western text in Windows-1252.

    It looks at the first lines with bytes beyond ASCII.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def is_sure(self) -> bool:
        return len(self._held) > GUESSED

    def add(self, chunk: bytes) -> None:
        """Take bytes that end at the end of a line."""
        at = 0
        while not self.is_sure and (found := _HIGH.search(chunk, at)):
            begin = chunk.rfind(b"\n", 0, found.start()) + 1
            end = chunk.find(b"\n", found.start())
            at = len(chunk) if end < 0 else end + 1
            self._held += chunk[begin:at][:GUESSED]

    def encoding(self) -> Encoding | None:
        """Return Windows-1252 with its warning, or None if the bytes do not look like it."""
        held = bytes(self._held)
        # Whole sequences of UTF-8 belong to a file in UTF-8 with a damaged place.
        if 2 * sum(map(len, _SEQUENCE.findall(held))) > len(_HIGH.findall(held)):
            return None
        try:
            text = held.decode("cp1252")
        except UnicodeDecodeError:
            return None
        if not all(
            character.isascii() or character.isalpha() or character in _SYMBOLS
            for character in set(text)
        ):
            return None
        words = [word for word in _WORD.findall(text) if not word.isascii()]
        foreign = sum(not letter.isascii() for word in words for letter in word)
        if foreign > _FOREIGN * sum(map(len, words)):
            return None
        name = "windows-1252"
        detail = (
            f"The file is not UTF-8: it is read as {name}, because its bytes look like it. If"
            " letters are wrong, say the encoding, such as encoding=iso-8859-2."
        )
        warning = make_warning("encoding_guessed", detail)
        return Encoding(name, "its bytes are not UTF-8 and look like it", warnings=[warning])
