"""Who got boxes that no check has vouched for yet."""

from collections.abc import Collection

from dataflow_grounding.engine.plan import Ask

MOST = 5000  # that are remembered where no check ever comes


class Unvouched:
    """The records that asked for boxes since the last good check.

    They are marked, should these boxes turn out to be suspect.
    """

    def __init__(self) -> None:
        self._asked: dict[Ask, bool] = {}  # and whether any of its requests was sent

    def add(self, ask: Ask, *, was_sent: bool) -> None:
        """A record got boxes; `was_sent`: in this run, not from the store."""
        self._asked[ask] = was_sent or self._asked.get(ask, False)
        if len(self._asked) > MOST:
            del self._asked[next(iter(self._asked))]

    def all(self) -> list[Ask]:
        """All of them, in order."""
        return list(self._asked)

    def sent(self) -> list[Ask]:
        """The records that got boxes from the endpoint in this run."""
        return [ask for ask, was_sent in self._asked.items() if was_sent]

    def vouch(self, asked: Collection[Ask]) -> None:
        """A check vouches for these."""
        for ask in asked:
            self._asked.pop(ask, None)
