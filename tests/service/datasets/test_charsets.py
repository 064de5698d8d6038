"""Encodings: marks, names, UTF-16 without a mark, and Windows-1252 by its words."""

from pathlib import Path

import pytest

from service.datasets.charsets import (
    ENCODINGS,
    as_utf8,
    charset_of,
    decoded,
    encoding_named,
)
from service.datasets.rejected import Rejected
from tests.service.datasets.tables import Parse, column

TEXT = "stadt,preis\nKöln,1 €\nZürich,2 €\nNîmes,3 €\n"
#: encoding of the bytes → the name of the encoding that is found
MARKED = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}


@pytest.mark.parametrize("codec", MARKED)
def test_a_byte_order_mark_tells_the_encoding(codec: str) -> None:
    text, encoding = decoded(TEXT.encode(codec))
    assert (text, encoding.name, encoding.warnings) == (TEXT, MARKED[codec], [])


def test_a_byte_order_mark_is_right_where_the_client_names_another_encoding() -> None:
    assert decoded(TEXT.encode("utf-16"), "latin-1")[0] == TEXT


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_without_a_mark_nuls_tell_the_width_of_letters(codec: str) -> None:
    text, encoding = decoded(TEXT.encode(codec))
    assert (text, encoding.name) == (TEXT, codec)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("windows-1252", TEXT),
        ("iso-8859-15", TEXT),
        ("latin-1", "stadt\nKöln\n"),
        ("windows-1251", "имя\nЮля\n"),
        ("koi8-r", "имя\nЮля\n"),
        ("iso-8859-2", "miasto\nŁódź\n"),
        ("shift-jis", "都市\n東京\n"),
        ("gb18030", "城市\n北京\n"),
        ("macintosh", "stadt\nKöln\n"),
    ],
)
def test_a_named_encoding_is_honoured(name: str, text: str) -> None:
    found, encoding = decoded(text.encode(ENCODINGS[name]), name)
    assert (found, encoding.name, encoding.warnings) == (text, name, [])


def test_western_words_are_read_as_windows_1252_with_a_warning() -> None:
    text, encoding = decoded(TEXT.encode("cp1252"))
    assert (text, encoding.name) == (TEXT, "windows-1252")
    assert [warning["code"] for warning in encoding.warnings] == ["encoding_guessed"]
    assert "encoding=" in encoding.warnings[0]["detail"]


@pytest.mark.parametrize(
    "data",
    [
        "имя\nЮля\n".encode("cp1251"),  # another script
        b"a\n1\n" + b"\xff\n",  # a stray byte
        "stadt\nKöln\nZürich\n".encode() + b"\xe2\x82",  # UTF-8 that is cut off
        "stadt\nKöln\nZürich\nM\xfcnchen".encode() + b"\xfc\n",  # UTF-8 with a damaged place
    ],
)
def test_other_bytes_are_refused_with_the_option_that_helps(data: bytes) -> None:
    with pytest.raises(Rejected, match="encoding=") as refused:
        decoded(data)
    assert refused.value.code == "not_utf8"


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"a\n\x81\n", "windows-1252"), (b"a\0\n", "utf-16-le"), (b"\xff\xfea\0\n", None)],
)
def test_bytes_that_do_not_fit_the_named_encoding_are_refused(data: bytes, name: str) -> None:
    with pytest.raises(Rejected) as refused:
        decoded(data, name)
    assert refused.value.code == "wrong_encoding"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("UTF8", "utf-8"),
        ("us-ascii", "utf-8"),
        ("cp1252", "windows-1252"),
        ("Windows_1252", "windows-1252"),
        ("ISO-8859-1", "latin-1"),
        ("latin1", "latin-1"),
        ("Shift_JIS", "shift-jis"),
        ("GBK", "gb18030"),
        ("hex", None),
        ("idna", None),
        ("unicode_escape", None),
        ("../utf_8", "utf-8"),
        ("", None),
    ],
)
def test_encodings_are_a_closed_list_with_the_usual_spellings(
    name: str, wanted: str | None
) -> None:
    assert encoding_named(name) == wanted


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/csv; charset=utf-16", "utf-16"),
        ('text/csv;header=present; Charset="windows-1252"', "windows-1252"),
        ("text/csv", ""),
    ],
)
def test_the_charset_of_a_content_type_is_read(content_type: str, charset: str) -> None:
    assert charset_of(content_type) == charset


def test_a_file_is_the_same_as_its_bytes_in_memory(tmp_path: Path) -> None:
    long = "größe;wert\n" + "".join(f"Köln {n};{n}\n" for n in range(120_000))  # several chunks
    for codec, named in [
        ("utf-16", None),
        ("cp1252", None),
        ("utf-16-be", "utf-16"),
        ("utf-8", ""),
    ]:
        path = tmp_path / "received"
        path.write_bytes(long.encode(codec))
        found, encoding = as_utf8(path, tmp_path / "decoded", named)
        assert found.read_bytes() == long.encode()
        assert encoding.name == decoded(long.encode(codec), named)[1].name


def test_a_fault_late_in_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "received"
    path.write_bytes("wort\n".encode("utf-16") + "Köln\n".encode("utf-16-le") * 300_000 + b"x")
    with pytest.raises(Rejected) as refused:
        as_utf8(path, tmp_path / "decoded", None)
    assert refused.value.code == "wrong_encoding"


def test_the_encoding_is_told_with_its_reason(parse: Parse) -> None:
    parsed = parse(TEXT.encode("utf-16"))
    assert parsed["reading"]["encoding"] == "utf-16-le"
    assert parsed["reading"]["why"]["encoding"] == "its byte order mark"
    assert column(parsed, "stadt")["distinct"] == 3
    guessed = parse(TEXT.encode("cp1252"))
    assert guessed["warnings"][0]["code"] == "encoding_guessed"
