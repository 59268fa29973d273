"""Counts of a loopback server: replies, requests in flight, and how often a request's beginning came again."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Tally:
    """What was received and sent; written by the server's thread, read by anyone.

    `repeated(key)` takes the beginning of each request that is served (system message and images) and says whether it
    was last seen at most `window` served requests earlier, as a provider's prompt cache would.
    """

    def __init__(self, window: int = 64) -> None:
        self.window = window
        self.received = 0
        self.paid = 0
        self.abandoned = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.bytes_received = 0
        self.by_status: Counter[int] = Counter()
        self.by_task: Counter[str] = Counter()
        self._last_seen: dict[int, int] = {}
        self._beginnings = 0
        self._new = 0
        self._near = 0

    def arrived(self, size: int) -> None:
        """One request is here whole, `size` bytes of body."""
        self.received += 1
        self.bytes_received += size
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def repeated(self, key: int) -> bool:
        """Note the beginning of a served request; whether it counts as a hit."""
        before = self._last_seen.get(key)
        self._last_seen[key] = self._beginnings
        near = before is not None and self._beginnings - before <= self.window
        self._beginnings += 1
        self._new += before is None
        self._near += near
        return near

    def left(self, status: int | None) -> None:
        """One exchange is over; `status` is None where the client did not get the whole reply."""
        self.in_flight -= 1
        if status is None:
            self.abandoned += 1
            return
        self.by_status[status] += 1
        self.paid += 200 <= status < 300

    def not_sent(self, status: int) -> None:
        """Take back a reply that was counted and then did not leave whole."""
        self.by_status[status] -= 1
        self.paid -= 200 <= status < 300
        self.abandoned += 1

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON; the shares are null where no request could count."""
        again = self._beginnings - self._new
        return {
            "received": self.received,
            "paid": self.paid,
            "abandoned": self.abandoned,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items()) if count},
            "by_task": dict(sorted(self.by_task.items())),
            "max_in_flight": self.max_in_flight,
            "bytes_received": self.bytes_received,
            "beginnings": {
                "window": self.window,
                "requests": self._beginnings,
                "distinct": self._new,
                "repeated_within_window": self._near,
                "share_of_all": self._near / self._beginnings if self._beginnings else None,
                "share_of_later": self._near / again if again else None,
            },
        }
