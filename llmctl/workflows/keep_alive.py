"""When the keep-alive of a loaded model ends, without a wall clock whose jumps would end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

# The year of one that never ends lies some 290 years ahead; ollama prints "Forever" beyond 20.
FOREVER_SECONDS = 20 * 365 * 86400
MOST_KNOWN = 64


@dataclass
class KeepAlives:
    """By what /api/ps says of them. The wall clock is read once for each."""

    clock: Callable[[], float]
    _ends: dict[str, float | None] = field(default_factory=dict)

    def left_seconds(self, expires_at: str | None) -> float | None:
        """Seconds until it ends, negative when it has; None for ever, or where nothing tells."""
        key = expires_at or ""
        if key not in self._ends:
            if len(self._ends) >= MOST_KNOWN:
                self._ends.clear()
            left = seconds_from_now(key)
            self._ends[key] = None if left is None else self.clock() + left
        end = self._ends[key]
        return None if end is None else end - self.clock()


def seconds_from_now(expires_at: str) -> float | None:
    # Go writes nanoseconds, which Python 3.10 does not read.
    offset = expires_at[19:].lstrip("0123456789.")
    try:
        end = datetime.fromisoformat(expires_at[:19] + ("+00:00" if offset in {"", "Z"} else offset))
    except ValueError:
        return None
    left = (end - datetime.now(timezone.utc)).total_seconds()
    return None if left > FOREVER_SECONDS else left
