"""Which replies of a step's store a check of the endpoint has vouched for.

That is kept in the store itself.
"""

from typing import Any

from dataflow_grounding.engine.keyed_log import CHECK, MARK, KeyedLog, Span, Standing, read_lines


class Vouching:
    """What checks say of the replies to one kind of question in a step's store.

    The kind is named by `reply_group`: the endpoint, model and format. `anywhere` is the same
    without the endpoint's address. Replies are in one of these states:

    - vouched for: a check has passed that was sent when the store held them. So do count replies
      from before any check.
    - open: they came later. The next run makes a check before it takes them.
    - set aside: a check has failed. Or they came from another address, and were open: no check at
      this one can vouch for them. The next run asks again, as if they had never come. Where
      `trusting`, they count all the same, as suspect ones.
    """

    def __init__(
        self, store: KeyedLog, reply_group: str, anywhere: str, trusting: bool = False
    ) -> None:
        self._store = store
        self._reply_group = reply_group
        vouched = store.vouched
        # no check at this address can vouch for open replies from others
        vouched.set_aside_open(anywhere, reply_group)
        self._standings = vouched.standings
        # Without a standing, no check was made so far. Then the replies of earlier runs count as
        # vouched for: a new Standing vouches up to `first_new`, where this run's replies begin.
        mine = vouched.standings.setdefault(reply_group, Standing(store.first_new))
        mine.group_anywhere = anywhere
        self._mine = mine
        self.relied_on = self._relies_on_earlier_replies(trusting)
        """Whether this run takes replies of earlier runs that no check has vouched for."""
        if trusting:
            vouched.trusted_groups.add(reply_group)
        # the same list: what `bad` adds to it counts in this run, too
        vouched.set_aside_by_group[reply_group] = mine.set_aside

    def _relies_on_earlier_replies(self, trusting: bool) -> bool:
        mine = self._mine
        if trusting and mine.set_aside:  # replies that a check has failed count as well
            return True
        if self._reply_group in self._store.vouched.open_in_others:
            return True
        # open ones in this store
        return not mine.none_open and self._count(mine.vouched_to, self._store.first_new) > 0

    def here(self) -> int:
        """Return the byte offset in the store up to which a check that begins now will vouch."""
        return self._store.end

    def good(self, offset: int) -> None:
        """Note that a check has passed that began when the store was `offset` bytes long."""
        self._mine.vouched_to = offset
        self._mine.none_open = False
        self.write("good")

    def bad(self) -> int:
        """Note a failed check: open replies, also later ones, are set aside; return how many."""
        count = self._count(self._mine.vouched_to, None)
        self._mine.set_aside.append(Span(self._mine.vouched_to, None))
        self._mine.none_open = True
        self.write("bad")
        return count

    def finished(self) -> None:
        """Note that a run is done, and the next one is to take open replies without a check."""
        self._mine.none_open = True
        self.write("finished")

    def unclear(self) -> None:
        """Note that a check has told nothing."""
        self._mine.none_open = False
        self.write("unclear")

    def write(self, verdict: str) -> None:
        """Append a mark, such as `Vouched` shows; its `verdict` is for people who read it."""
        checks: dict[str, dict[str, Any]] = {}
        for reply_group, standing in self._standings.items():
            # None: no reply is open
            good = None if standing.none_open else standing.vouched_to
            checks[reply_group] = {"good": good, "void": standing.set_aside}
        anywhere = {group: standing.group_anywhere for group, standing in self._standings.items()}
        mark = {"task": CHECK, "verdict": verdict, "checks": checks, "anywhere": anywhere}
        self._store.put(MARK, mark)

    def _count(self, first: int, last: int | None) -> int:
        """Count the group's replies that begin from one byte offset on, and before another."""
        count = 0
        for line in read_lines(self._store.path, first, last):
            if line.get("of") == self._reply_group and line.get("task") != CHECK:
                count += 1
        return count
