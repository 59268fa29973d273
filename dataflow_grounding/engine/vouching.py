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
    - speaking for themselves: checks told nothing, and nothing was odd. If a check of the next run
      tells nothing, either, that run takes finished rows of these as they are.
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
        self._mine.is_unanswered = False
        self.write("good")

    def bad(self) -> int:
        """Note a failed check: open replies, also later ones, are set aside; return how many."""
        count = self._count(self._mine.vouched_to, None)
        self._mine.set_aside.append(Span(self._mine.vouched_to, None))
        self._mine.none_open = True
        self.write("bad")
        return count

    def doubt(self) -> None:
        """Set all replies aside for this run: signs speak against them, and no check can tell."""
        # in this run's memory alone: the next run sees the same signs
        self._store.vouched.set_aside_by_group[self._reply_group] = [Span(0, None)]
        if self._mine.speaking_for_themselves:
            # They don't any longer. Else the next run would take finished rows without a look at
            # their replies, and would not see these signs.
            self._mine.speaking_for_themselves.clear()
            self.write("doubtful")

    def finished(self) -> None:
        """Note that a run is done, and the next one is to take open replies without a check."""
        self._mine.none_open = True
        self.write("finished")

    def unclear(self, *, unanswered: bool) -> None:
        """Note that a check has told nothing, because it was `unanswered` or for another reason."""
        self._mine.none_open = False
        self._mine.is_unanswered = unanswered
        self.write("unclear")

    def let_speak(self, *, all_read: bool = False) -> None:
        """Where checks told nothing, let replies of this run, or of all, speak for themselves."""
        if not self._mine.is_unanswered:
            return
        first = 0 if all_read else self._store.first_new
        # spans that begin at `first` or later are covered by the new one, which takes their place
        spans = [span for span in self._mine.speaking_for_themselves if span.first < first]
        spans.append(Span(first, self._store.end))
        self._mine.speaking_for_themselves = spans
        self.write("unanswered")

    def write(self, verdict: str) -> None:
        """Append a mark, such as `Vouched` shows; its `verdict` is for people who read it."""
        checks: dict[str, dict[str, Any]] = {}
        for reply_group, standing in self._standings.items():
            # None: no reply is open
            good = None if standing.none_open else standing.vouched_to
            checks[reply_group] = {"good": good, "void": standing.set_aside}
            if standing.speaking_for_themselves and not standing.none_open:
                checks[reply_group]["alone"] = standing.speaking_for_themselves
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
