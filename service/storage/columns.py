"""The base class of all tables, the types of their columns, and new ids."""

import os
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase

Json = dict[str, Any]
Id = String(40)
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]  # 10 bits each
_SHIFTS = range(120, -1, -10)  # bits


class Utc(TypeDecorator[datetime]):
    """A time in UTC. SQLite stores no zone, so reading adds it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  SQLAlchemy's signature
        return value if value is None or value.tzinfo else value.replace(tzinfo=UTC)


class BlobDigest(TypeDecorator[str]):
    """The SHA-256 of a blob that the row needs. `references` finds these columns by their type."""

    impl = String(64)
    cache_ok = True


def utc_now() -> datetime:
    return datetime.now(UTC)


class SqlTable(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  SQLAlchemy reads it from the class
        dict[str, Any]: JSON,
        list[Any]: JSON,
        datetime: Utc,
        int: BigInteger().with_variant(Integer, "sqlite"),
        float: Float(53),
        str: Text,
    }


def new_id(prefix: str) -> str:
    """Return a fresh id such as `run_01k…`: a prefix and a ULID, which sorts by creation time.

    A ULID has 26 characters: 48 bits of milliseconds and 80 random bits.
    """
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    return f"{prefix}_{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}"
