"""What all senders know: what is asked, on whose behalf, and what a sender is."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.serving.serving import Reply
from dataflow_grounding.tasks.request import Request


class Asker(Protocol):
    """On whose behalf a request is sent: one record in one step, or a check."""

    store: ReplyLog
    step: str
    priority: Any  # of requests that wait, the smallest goes first
    may_begin_again: bool
    reductions: int


class RecordAsker(Asker, Protocol):
    """One record in one step, which counts what becomes of its requests."""

    def note(self, code: str, text: str = "") -> None:
        """Count a remark under its code."""

    def note_sent(self) -> None:
        """Note that a request had to be sent."""


@dataclass
class PlainAsker:
    """Asks on nobody's behalf, before all others."""

    store: ReplyLog
    step: str
    priority: Any = (-2,)
    may_begin_again: bool = False
    reductions: int = 0


@dataclass(eq=False)
class Asked:
    """A request that is to be answered."""

    request: Request[Any]
    by: Asker
    key: str = ""  # of its reply in the store
    is_check: bool = False
    # the numbers of endpoints that have failed at it, so that another one is asked
    failed_at: set[int] = field(default_factory=set)

    def again(self, request: Request[Any]) -> "Asked":
        return Asked(request, self.by, self.key, self.is_check, self.failed_at)


class Sender(Protocol):
    """A part of the way to an endpoint."""

    async def send(self, asked: Asked) -> Reply:
        """Return the reply. Raises RecordError, or RunStopped."""
