"""How often the beginning of a request, its system message and images, came again: what a
provider's cache saves.
"""

from __future__ import annotations

from typing import Any

from dataflow_grounding.testing import Answers, ReceivedRequest
from dataflow_grounding.testing.answers import IMAGES

WINDOW = 64


class Beginnings:
    """Answers as `answers` does and counts: a beginning last seen at most `WINDOW` requests earlier
    is a hit.
    """

    reads = IMAGES

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._last_seen: dict[tuple[str, ...], int] = {}
        self._requests = self._distinct = self._hits = 0

    def __call__(self, request: ReceivedRequest) -> Any:
        key = (request.system, *request.image_digests)
        before = self._last_seen.get(key)
        self._last_seen[key] = self._requests
        self._distinct += before is None
        self._hits += before is not None and self._requests - before <= WINDOW
        self._requests += 1
        return self.answers(request)

    def counts(self) -> dict[str, Any]:
        """The counts as JSON; the shares are null where no request could count."""
        again = self._requests - self._distinct
        return {
            "requests": self._requests,
            "distinct": self._distinct,
            "hits": self._hits,
            "share_of_all": self._hits / self._requests if self._requests else None,
            "share_of_later": self._hits / again if again else None,
        }
