"""API keys: made once, kept as SHA-256, looked up with a cache that forgets within half a second.

A secret is `dsc_`, 30 random characters and a checksum, so that a typo needs no database and a
scanner can tell it from other text. It has 178 bits, so a fast hash is the right one.
"""

import hashlib
import hmac
import secrets
import string
import time
import zlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from service.database import reading
from service.errors import Unauthorized
from service.ids import new_id
from service.settings import Settings
from service.tables import Key, utc_now

PREFIX = "dsc_"
RANDOM = 30  # characters of base 62
CHECK = 6  # characters that a CRC-32 needs in base 62
SHOWN = 8  # characters of the secret that are kept to recognise it by
ALPHABET = string.digits + string.ascii_letters
FRESH = 0.5  # seconds that a look-up is believed; a deleted key stops working within 1 s
CACHED = 10_000  # look-ups that are kept; beyond it all are forgotten

OPEN = "open"  # the caller where no key is configured
SETTING = "setting"  # the caller who holds DESCENT_API_KEY
NO_KEY = (
    "No API key is configured, and the address {host} can be reached from other machines:"
    " set DESCENT_API_KEY, or make a key with `descent keys create NAME`"
    " (`python -m service keys create NAME`), then start again."
)


def new_secret() -> str:
    body = PREFIX + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Return whether this can be one of our secrets, without asking anybody."""
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
    """Add a key; return it and its secret, which nobody can show again."""
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
class _LookUp:
    caller: str | None
    expires_at: datetime | None
    until: float


class KeyRing:
    """Says who a caller is. One per process."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._setting = settings.api_key.get_secret_value() if settings.api_key else None
        #: only a service that nobody else can reach may be open, and only while it has no key
        self._may_be_open = settings.is_loopback and self._setting is None
        self._found: dict[str, _LookUp] = {}
        self._is_open: tuple[bool, float] = (False, 0.0)

    def known(self, secret: str | None) -> str | None:
        """Return the caller if that is known without asking the database."""
        if secret is None:
            is_open, until = self._is_open
            return OPEN if is_open and until > time.monotonic() else None
        if self._setting and hmac.compare_digest(secret.encode(), self._setting.encode()):
            return SETTING
        found = self._found.get(digest(secret))
        if found is None or found.until <= time.monotonic() or _is_over(found.expires_at):
            return None
        return found.caller

    def caller(self, secret: str | None) -> str:
        """Return the caller; raise Unauthorized. May ask the database."""
        if (known := self.known(secret)) is not None:
            return known
        if secret is None:
            if self._may_be_open and self._look_whether_open():
                return OPEN
            raise _unauthorized("This needs an API key")
        if not is_well_formed(secret):
            raise _unauthorized("This API key is not valid")
        found = self._look_up(secret)
        if found.caller is None:
            raise _unauthorized("This API key is not valid, or it was deleted")
        if _is_over(found.expires_at):
            raise _unauthorized(f"This API key expired at {found.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        return found.caller

    def _look_whether_open(self) -> bool:
        until = time.monotonic() + FRESH
        with reading(self._engine) as session:
            self._is_open = (count(session) == 0, until)
        return self._is_open[0]

    def _look_up(self, secret: str) -> _LookUp:
        until, sha256 = time.monotonic() + FRESH, digest(secret)
        with reading(self._engine) as session:
            key = session.scalars(select(Key).where(Key.sha256 == sha256)).one_or_none()
        if key is None:
            return _LookUp(None, None, until)
        if len(self._found) >= CACHED:
            self._found.clear()
        found = self._found[sha256] = _LookUp(key.id, key.expires_at, until)
        return found


def bearer(headers: list[str]) -> str | None:
    """Return the secret of the `Authorization` headers of a request; None if there is none."""
    if not headers:
        return None
    scheme, _, secret = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not secret.strip():
        raise _unauthorized("The Authorization header cannot be read")
    return secret.strip()


def check_reachable(engine: Engine, settings: Settings) -> None:
    """Raise ValueError where other machines could reach a service that has no key."""
    if settings.is_loopback or settings.api_key is not None:
        return
    with reading(engine) as session:
        if count(session) == 0:
            raise ValueError(NO_KEY.format(host=settings.host))


def _is_over(expires_at: datetime | None) -> bool:
    return expires_at is not None and expires_at <= utc_now()


def _unauthorized(reason: str) -> Unauthorized:
    return Unauthorized(
        f"{reason}: send `Authorization: Bearer <key>` with a key that is valid.",
        headers={"WWW-Authenticate": 'Bearer realm="descent"'},
    )
