"""Names of columns: free ones, and lists of them in messages."""

from collections.abc import Collection, Sequence

LISTED = 20  # names that a message spells out
SHOWN = 80  # characters of each


def free_name(name: str, taken: Collection[str]) -> str:
    """Return the name, or the first of `name_2`, `name_3`, … that is not taken."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:SHOWN]) for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
