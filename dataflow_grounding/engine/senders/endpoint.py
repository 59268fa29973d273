"""One of a serving's endpoints, and how it does."""

import time

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.limiter import Share
from dataflow_grounding.engine.senders.sender import Sender
from dataflow_grounding.serving.serving import Serving

OUT_SECONDS = 30.0  # between two requests to one that is left out


class Endpoint:
    """One endpoint, and how it does."""

    def __init__(
        self, number: int, serving: Serving, weight: float, share: Share, sender: Sender
    ) -> None:
        self.number = number
        self.serving = serving
        self.weight = weight
        self.share = share
        self.sender = sender
        self.taken = 0  # requests, for its turn
        self.has_answered = False
        self.misses = 0  # faults since the last answer
        self.why_out: errors.GroundingError | None = None  # why it is left out; None if it isn't
        self.next_try_at = 0.0  # of one that is left out, by the process's clock
        # A wrong key or address is found out by one request, not by all that may be in flight.
        share.allowed = 1

    @property
    def load(self) -> tuple[float, float]:
        """What its part has in flight, then what it had in all: the smallest is next."""
        return self.share.in_flight / self.weight, self.taken / self.weight

    def note_answer(self) -> None:
        self.has_answered = True
        self.misses = 0
        self.why_out = None
        if self.share.allowed < self.share.most:
            self.share.allow(self.share.most)

    def leave_out(self, why: errors.GroundingError) -> None:
        if self.why_out is None and not isinstance(why, errors.RateLimited):  # these are usual
            reason = str(why).rstrip(".")
            say(f"Warning: {reason}. It is passed over, and tried again now and then.")
        self.why_out = why
        self.next_try_at = time.monotonic() + OUT_SECONDS
