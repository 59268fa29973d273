"""Which records got boxes that no check has vouched for yet."""

from collections.abc import Collection

from dataflow_grounding.engine.plan import Ask

MOST = 5000  # records that are remembered, so that memory is bounded where no check ever comes


class Unvouched:
    """The records that asked for boxes since the last good check, the latest MOST of them.

    They are marked in the output, should these boxes turn out to be suspect. A record is known by
    its `Ask`, the means by which it sends requests.
    """

    def __init__(self) -> None:
        # For each record, whether any of its requests was sent in this run.
        self._asked: dict[Ask, bool] = {}

    def add(self, ask: Ask, *, was_sent: bool) -> None:
        """Remember a record that got boxes.

        `was_sent` says whether they were sent for in this run, rather than read from the store.
        """
        self._asked[ask] = was_sent or self._asked.get(ask, False)
        if len(self._asked) > MOST:
            del self._asked[next(iter(self._asked))]

    def all(self) -> list[Ask]:
        """Return all records, in the order in which they first asked."""
        return list(self._asked)

    def sent(self) -> list[Ask]:
        """Return the records that got boxes from the endpoint in this run."""
        return [ask for ask, was_sent in self._asked.items() if was_sent]

    def vouch(self, asked: Collection[Ask]) -> None:
        """Forget these records, as a good check vouches for their boxes."""
        for ask in asked:
            self._asked.pop(ask, None)
