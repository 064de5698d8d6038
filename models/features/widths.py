"""How many numbers a column becomes, as far as its profile tells. Knows no arrays."""

from collections.abc import Iterable, Mapping
from typing import Any

from descent.spec import TEXTUAL

#: Categories of a column that get an encoded number of their own, the most frequent ones. The rest
#: share one: each encoded number costs a column of the first layer's weights.
MAX_CATEGORIES = 255
DAY = 86_400.0  # seconds
#: Seconds of each period whose phase a datetime is encoded with. The year is a mean year: its
#: phase differs from the calendar by a day at most.
PERIODS = {"hour": DAY, "weekday": 7 * DAY, "day_of_year": 365.2425 * DAY}


def estimate_width(profiles: Iterable[Mapping[str, Any]]) -> int:
    """Estimate from their profiles how many numbers these columns will become together."""
    return sum(map(_estimate_column, profiles))


def count_numbers(profiles: Iterable[Mapping[str, Any]]) -> int:
    """Return how many of the columns with these profiles are numbers or times; see `Features`."""
    return sum(profile["type"] not in TEXTUAL | {"boolean"} for profile in profiles)


def _estimate_column(profile: Mapping[str, Any]) -> int:
    missing = bool(profile.get("missing"))
    if profile["type"] in TEXTUAL:
        distinct = int(profile.get("distinct") or 1)
        return min(distinct, MAX_CATEGORIES) + (missing or distinct > MAX_CATEGORIES)
    if profile["type"] == "datetime":
        return 1 + 2 * len(PERIODS) + missing
    return 1 + missing
