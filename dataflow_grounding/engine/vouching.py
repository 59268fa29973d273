"""Which replies of a step's store a check of the endpoint has vouched for.

That is kept in the store itself.
"""

from collections.abc import Iterator
from typing import Any

from dataflow_grounding.engine.keyed_log import CHECK, MARK, KeyedLog, Span, read_lines


class Vouching:
    """The replies to one kind of question that are open, and those set aside.

    Replies are open from their arrival until a check passes. If a check fails, open replies are set
    aside: the next run asks for them again, as if they had never come. A killed run leaves its last
    replies open, so that the next run checks first. Replies from before any check are trusted.
    Replies that another address left open are set aside: no check at this one can vouch for them.

    Args:
        store: The step's store.
        of: The kind of question: endpoint, model and format.
        anywhere: The same without the endpoint's address.
        trusting: Whether replies that were set aside count all the same, as suspect ones.
    """

    def __init__(self, store: KeyedLog, of: str, anywhere: str, trusting: bool = False) -> None:
        self._store = store
        self._of = of
        vouched = store.vouched
        vouched.set_aside_open(anywhere, of)
        self._anywhere = vouched.anywhere
        self._anywhere[of] = anywhere
        self._entries = vouched.entries
        mine = self._entries.setdefault(of, {"open": [], "void": []})
        self._mine = mine
        earlier = [span for span in mine["open"] if span[1] is not None]
        self.relied_on = (
            bool(trusting and mine["void"])
            or any(self._replies(earlier))
            or of in vouched.open_in_others
        )
        """Whether the store holds replies of earlier runs that nobody has vouched for, or with
        `trusting` such as a check has failed.
        """
        if trusting:
            vouched.trusted.add(of)
            vouched.void[of] = mine["void"]  # which grows where a check fails
        if (store.first_new, None) not in mine["open"]:
            still_open = mine["open"] if self.relied_on else []
            mine["open"] = [*still_open, (store.first_new, None)]

    def here(self) -> int:
        """Return the byte offset in the store up to which a check that begins now will vouch."""
        return self._store.end

    def good(self, offset: int) -> None:
        """Note that a check has passed that began when the store was `offset` bytes long.

        What came before is open no longer. Raises StorageFailed.
        """
        self._mine["open"] = [(offset, None)]
        self.write("good")

    def bad(self) -> int:
        """Note that a check has failed: all open replies, and those to come, are set aside.

        Returns how many there are in the store so far. Raises StorageFailed.
        """
        count = 0
        for _ in self._replies(self._mine["open"]):
            count += 1
        self._mine["void"] += self._mine["open"]
        self._mine["open"] = []
        self.write("bad")
        return count

    def doubt(self) -> None:
        """Set all replies aside for this run: signs speak against them, and no check can tell.

        That isn't kept in the store: the next run sees the same signs.
        """
        self._store.vouched.void[self._of] = [(0, None)]

    def finished(self) -> None:
        """Note that the run is done: its open replies count as vouched for from now on.

        They came since its last check that passed. It is called where no further one was due
        (`Probing.due_at_the_end`), as they are too few, and nothing was suspicious. Raises
        StorageFailed.
        """
        self._mine["open"] = []
        self.write("finished")

    def write(self, verdict: str) -> None:
        """Append to the store which replies are open and which are set aside, of all kinds.

        `verdict` is for people who read the store: begun, good, bad, unclear or finished. Raises
        StorageFailed.
        """
        mark = {"task": CHECK, "verdict": verdict}
        self._store.put(MARK, {**mark, "checks": self._entries, "anywhere": self._anywhere})

    def _replies(self, spans: list[Span]) -> Iterator[dict[str, Any]]:
        for first, last in spans:
            for line in read_lines(self._store.path, first, last):
                if line.get("of") == self._of and line.get("task") != CHECK:
                    yield line
