"""The routes of API keys."""

from datetime import UTC, datetime

from fastapi import Request, Response

from descent import schemas
from service.access import keys
from service.access.keys import Key
from service.errors import Invalid, NotFound, field_error
from service.http.resources import NewestFirst, PageParams, ReadSession, WriteSession
from service.http.strict_route import router as strict_router
from service.http.strict_route import shown_once
from service.storage.columns import utc_now

KEYS = NewestFirst("keys", Key, Key.id)

router = strict_router("/keys", tags=["service"])


@router.post("", status_code=201)
@shown_once("secret")
def create_key(
    body: schemas.KeyCreate, session: WriteSession, response: Response
) -> schemas.KeyCreated:
    """Make an API key. This response is the only one that shows its secret.

    A replay under the same `Idempotency-Key` has `"secret": null`, because no secret is stored:
    if the first answer was lost, delete the key that the replay names and make another.
    """
    key, secret = keys.create(session, body.name, _checked_end(body.expires_at))
    response.headers["Location"] = f"/api/v1/keys/{key.id}"
    return schemas.KeyCreated(**_wire(key).model_dump(), secret=secret)


def _checked_end(expires_at: datetime | None) -> datetime | None:
    """Return the expiry of a key in UTC, because SQLite stores no zone."""
    if expires_at is None:
        return None
    try:
        end = expires_at.astimezone(UTC)
    except OverflowError:
        raise Invalid(
            f"expires_at must be a time that UTC can express, got {expires_at.isoformat()}.",
            errors=[field_error("/expires_at", "out_of_range", "The time is too far away.")],
        ) from None
    if end <= utc_now():
        raise Invalid(
            f"expires_at must lie in the future, got {expires_at.isoformat()}.",
            errors=[field_error("/expires_at", "in_the_past", "The time has passed.")],
        )
    return end


@router.get("", response_model=schemas.Page[schemas.Key])
def list_keys(request: Request, session: ReadSession, page: PageParams) -> Response:
    """List the API keys, without their secrets."""
    return KEYS.page(request, session, page, lambda keys: list(map(_wire, keys)))


@router.delete("/{key_id}", status_code=204)
def delete_key(key_id: str, session: WriteSession) -> None:
    """Revoke an API key: within a second no process accepts it any more."""
    key = session.get(Key, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id[:60]!r}.")
    session.delete(key)


def _wire(key: Key) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        expires_at=key.expires_at,
        created_at=key.created_at,
    )
