"""API keys. Only their SHA-256 is stored, and each process caches all of them for under a second.

A secret is `dsc_`, 30 random characters and a checksum: a typo is rejected without the database,
and scanners recognise a secret. It has 178 random bits, so a fast hash is enough.
"""

import hashlib
import hmac
import secrets
import string
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from service.errors import ServiceError, Unauthorized
from service.settings import Settings
from service.storage.columns import Id, SqlTable, new_id, utc_now
from service.storage.database import reading

PREFIX = "dsc_"
RANDOM = 30  # characters of base 62
CHECK = 6  # characters that a CRC-32 needs in base 62
SHOWN = 8  # characters of the secret that are kept so that people recognise it
ALPHABET = string.digits + string.ascii_letters
FRESH = 0.8  # seconds for which the cached table is valid: a deleted key stops working within 1 s
RENEWED = 0.3  # seconds after which a request renews the table without waiting for it

OPEN = "open"  # the caller if no key is configured
SETTING = "setting"  # the caller with the secret of DESCENT_API_KEY
NO_KEY = (
    "No API key is configured, and the address {host} can be reached from other machines:"
    " set DESCENT_API_KEY, or make a key with `descent keys create NAME`"
    " (`python -m service keys create NAME`), then start again."
)


class Key(SqlTable):
    """An API key; only the SHA-256 of its secret is kept."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    #: the first characters of the secret, by which people recognise it
    prefix: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def new_secret() -> str:
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Return whether this has the form of a secret, checksum included."""
    body = secret[:-CHECK]
    return (
        len(secret) == len(PREFIX) + RANDOM + CHECK
        and secret.isascii()
        and secret.startswith(PREFIX)
        and secret[-CHECK:] == _checksum(body)
    )


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECK):
        number, digit = divmod(number, 62)
        digits = ALPHABET[digit] + digits
    return digits


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create(session: Session, name: str, expires_at: datetime | None = None) -> tuple[Key, str]:
    """Add a key; return it and its secret, which is not stored."""
    secret = new_secret()
    key = Key(
        id=new_id("key"),
        name=name,
        sha256=digest(secret),
        prefix=secret[:SHOWN],
        expires_at=expires_at,
        created_at=utc_now(),
    )
    session.add(key)
    session.flush()
    return key, secret


def count(session: Session) -> int:
    return session.execute(select(func.count()).select_from(Key)).scalar_one()


@dataclass(frozen=True)
class _Known:
    """A cached row of the table of keys."""

    id: str
    expires_at: datetime | None


class KeyRing:
    """Identifies callers. One per process; `clock` returns seconds."""

    def __init__(
        self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._setting = settings.api_key.get_secret_value() if settings.api_key else None
        #: requests need no key only if other machines cannot reach the service and it has no key
        self._may_be_open = settings.is_loopback and self._setting is None
        #: SHA-256 → key, of all keys as they were read at `_read_at`
        self._table: dict[str, _Known] = {}
        self._read_at = -FRESH
        self._reading = threading.Lock()
        self._reader: threading.Thread | None = None

    def close(self) -> None:
        """Wait until a reading of the table that is in progress has ended."""
        if (reader := self._reader) is not None:
            reader.join()

    def known(self, secret: str | None) -> str | None:
        """Return the caller if the cache knows it; queries no database."""
        if secret is not None and self._setting and _is_same(secret, self._setting):
            return SETTING
        age = self._clock() - self._read_at
        if age >= FRESH:
            return None
        if age >= RENEWED:
            self._renew()
        if secret is None:
            return OPEN if self._may_be_open and not self._table else None
        found = self._table.get(digest(secret))
        return found.id if found is not None and not _is_over(found.expires_at) else None

    def caller(self, secret: str | None) -> str:
        """Return the caller; raise Unauthorized. May query the database."""
        if (known := self.known(secret)) is not None:
            return known
        if secret is None:
            if self._may_be_open and not self._fresh_table():
                return OPEN
            raise Unauthorized("This request needs an API key")
        if not is_well_formed(secret):
            raise Unauthorized("This API key is not valid")
        found = self._fresh_table().get(digest(secret)) or self._look_up(secret)
        if found is None:
            raise Unauthorized("This API key is not valid, or it was deleted")
        if _is_over(found.expires_at):
            raise Unauthorized(f"This API key expired at {found.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        return found.id

    def _fresh_table(self) -> dict[str, _Known]:
        with self._reading:
            if self._clock() - self._read_at >= FRESH:
                self._read()
            return self._table

    def _read(self) -> None:
        began = self._clock()
        with reading(self._engine) as session:
            rows = session.execute(select(Key.sha256, Key.id, Key.expires_at)).all()
        self._table = {sha256: _Known(id_, expires_at) for sha256, id_, expires_at in rows}
        self._read_at = began

    def _look_up(self, secret: str) -> _Known | None:
        """Look for a key that may be newer than the cached table."""
        table = self._table  # a newer table may lack a key that was deleted meanwhile
        with reading(self._engine) as session:
            key = session.scalars(select(Key).where(Key.sha256 == digest(secret))).one_or_none()
        if key is None:
            return None
        found = table[key.sha256] = _Known(key.id, key.expires_at)
        return found

    def _renew(self) -> None:
        if self._reading.acquire(blocking=False):
            self._reader = threading.Thread(target=self._read_and_release, name="keys")
            self._reader.start()

    def _read_and_release(self) -> None:
        try:
            # If reading fails, the table expires, and the next request gets the error.
            with suppress(ServiceError):
                self._read()
        finally:
            self._reading.release()


def check_reachable(engine: Engine, settings: Settings) -> None:
    """Raise ValueError if other machines can reach the service and it has no key."""
    if settings.is_loopback or settings.api_key is not None:
        return
    with reading(engine) as session:
        if count(session) == 0:
            raise ValueError(NO_KEY.format(host=settings.host))


def _is_same(secret: str, other: str) -> bool:
    return hmac.compare_digest(secret.encode(), other.encode())


def _is_over(expires_at: datetime | None) -> bool:
    return expires_at is not None and expires_at <= utc_now()
