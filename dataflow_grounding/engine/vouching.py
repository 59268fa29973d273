"""Which replies of a step's store a check of the endpoint has vouched for; kept in the store
itself.
"""

from collections.abc import Iterator
from typing import Any

from dataflow_grounding.engine.keyed_log import CHECK, MARK, KeyedLog, Span, read_lines


class Vouching:
    """The replies to one kind of question (`of`: endpoint, model and format) that are open, and
    those set aside.

    Open is what came since the last check that passed. Where a check fails it is set aside: the
    next run asks for it again, as if it had never come. A run that was killed leaves its last
    replies open, so that whoever goes on checks first. What came before anybody checked is trusted.
    With `trusting`, replies that were set aside count all the same, as suspect ones.
    """

    def __init__(self, store: KeyedLog, of: str, trusting: bool = False) -> None:
        self._store, self._of = store, of
        vouched, self._entries = store.vouched, store.vouched.entries
        mine = self._mine = self._entries.setdefault(of, {"open": [], "void": []})
        earlier = [span for span in mine["open"] if span[1] is not None]
        self.relied_on = (
            bool(trusting and mine["void"])
            or any(self._replies(earlier))
            or of in vouched.open_elsewhere
        )
        """Whether the store holds replies of earlier runs that nobody has vouched for."""
        if trusting:
            vouched.trusted.add(of)
            vouched.void[of] = mine["void"]  # which grows where a check fails
        if (store.first_new, None) not in mine["open"]:
            mine["open"] = [*(mine["open"] if self.relied_on else []), (store.first_new, None)]

    def here(self) -> int:
        """The place up to which a check that begins now will vouch."""
        return self._store.end

    def good(self, place: int) -> None:
        """A check that began at `place` has passed."""
        self._mine["open"] = [(place, None)]
        self.write("good")

    def bad(self) -> int:
        """A check has failed: all that is open, and to come, is set aside. Returns how many replies
        so far.
        """
        count = sum(1 for _ in self._replies(self._mine["open"]))
        self._mine["void"] += self._mine["open"]
        self._mine["open"] = []
        self.write("bad")
        return count

    def doubt(self) -> None:
        """Signs speak against all replies, and no check can tell. Not kept: the next run sees the
        same signs.
        """
        self._store.vouched.void[self._of] = [(0, None)]

    def finished(self) -> None:
        """The run is done, and its replies are as good as they will be."""
        self._mine["open"] = []
        self.write("finished")

    def write(self, verdict: str) -> None:
        """Keep what is open and what is set aside: also where replies are about to come, or a check
        told nothing.
        """
        self._store.put(MARK, {"task": CHECK, "verdict": verdict, "checks": self._entries})

    def _replies(self, spans: list[Span]) -> Iterator[dict[str, Any]]:
        for first, last in spans:
            for line in read_lines(self._store.path, first, last):
                if line.get("of") == self._of and line.get("task") != CHECK:
                    yield line
