"""What checks have told of an endpoint, model and format.

A run has its own `Known`. Records in memory share one for the whole process, so that each call
doesn't check the same endpoint again.
"""

import hashlib
import json
import math
import os
import random
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.engine.workers import Turns
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.kinds import AT_THE_END, PictureKind

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Outcome, Probing

# Seconds for which a check holds for further calls in this process. A script calls every few
# seconds, and a check with each of its calls would double what they cost.
FRESH = 600.0


class Known:
    """What checks have told of an endpoint, model and format."""

    def __init__(self, asked: BoxFormat) -> None:
        self._asked = asked
        self.probing: Probing | None = None  # from the first check on
        self.turns = Turns()

        # Requests. They come in stretches, each with one check at a random place.
        self.sent = 0
        self.unchecked = 0  # sent since the last check
        self.next_check = 0  # how many are sent when the next check is due; 0 before the first one
        self._stretch_end = 0  # of the stretch that `next_check` is in

        # Answers
        self.answers = 0
        self.vouched = 0  # the `answers` when the last good check began, which vouches for these
        self.returned = 0  # the `answers` when the last call ended that returned its answers

        # Checks
        self.checked_at = -math.inf  # when the last one ended, by the monotonic clock
        self.kinds: set[PictureKind] = set()  # that were checked
        self.pictures_checked = 0  # sent for checks, without those that confirm a miss
        # endpoints that found no rectangle when one last told something; see `Outcome.blind`
        self.blind: Sequence[str] = ()
        # what a call that went on has warned of last, and when: see `remember_warning`
        self._warning: str | None = None
        self._warned_at = -math.inf

    @property
    def is_fresh(self) -> bool:
        """Whether a check was made less than FRESH ago, and so still holds."""
        return time.monotonic() - self.checked_at < FRESH

    async def probes(self) -> "Probing":
        # In a thread: libraries that draw pictures are imported, too, which takes long.
        await load_aside("dataflow_grounding.trust.probing")
        from dataflow_grounding.trust.probing import Probing

        if self.probing is None:
            self.probing = Probing(self._asked)
        return self.probing

    def plan_next_check(self, every: int) -> None:
        """Plan the check after one that is made now: one in each stretch of `every` requests."""
        self.unchecked = 0
        if self.sent < self.next_check:
            return  # it is made for another reason, and the planned one stays
        # The next stretch begins where the last one ended. If more than one stretch was sent since
        # then, it is the stretch that `sent` is in. For `sent` 250 and `every` 100: from 200 on.
        begin = max(self._stretch_end, self.sent - self.sent % every)
        # The next check isn't due among the first few requests: the check that is made now covers
        # these.
        first = min(AT_THE_END, every // 2) + 1
        # It counts from `begin`, not from `sent`, so that checks are `every` requests apart on
        # average. Where more than one stretch was sent, the next may be due at once.
        self.next_check = begin + random.SystemRandom().randint(first, every)
        self._stretch_end = begin + every

    def restart_counts(self) -> None:
        """Count from 0 again what came since the last check, once that check holds no more."""
        # Requests of earlier calls don't make a check due at the end of this one.
        self.unchecked = 0

    def forget_kinds(self) -> None:
        """Forget which kinds of pictures were checked, before a run's first check."""
        self.kinds.clear()
        self.pictures_checked = 0

    def note(self, outcome: "Outcome") -> None:
        """Note that a check was made, and what it showed."""
        self.checked_at = time.monotonic()
        # A silent check without blind endpoints doesn't tell whether they see pictures: what an
        # earlier one told stays.
        tells_of_seeing = bool(outcome.blind) or outcome.kind != "silent"
        if tells_of_seeing:
            self.blind = outcome.blind

    def remember_warning(self, message: str | None) -> None:
        """Remember what a call that goes on has warned of; None forgets what one warned of."""
        self._warning = message
        self._warned_at = time.monotonic()

    @property
    def lately_warned_of(self) -> str | None:
        """What a call warned of less than FRESH ago; None where a later check went well."""
        return self._warning if time.monotonic() - self._warned_at < FRESH else None

    def forget_format(self) -> None:
        """Forget what is known of the format, because boxes come in another one."""
        self.checked_at = -math.inf
        self.probing = None


_known: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints that were asked in this process."""


def _forget_checks_under_way() -> None:
    for known in list(_known.values()):
        known.turns = Turns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_checks_under_way)


def known_in_process(serving: Serving, name: str, asked: BoxFormat) -> Known:
    """Return what this process knows under a `name` of `name_of`: the same object on each call."""
    if asked.maps:  # its name stays the same when frames are added, but it is another format
        name += f" {hash(asked.maps)}"
    # A user's class may state only its model's name, not its endpoint. Two objects of such a class
    # may ask different servers, so each has a `Known` of its own.
    states_only_model = (
        type(serving).identity is Serving.identity and serving.endpoint == Serving.endpoint
    )
    if states_only_model:
        name = f"{name} {id(serving)}"
        if name not in _known:
            # Once the object is gone, another may get its id: so what is known is removed with it.
            weakref.finalize(serving, _known.pop, name, None)
    return _known.setdefault(name, Known(asked))


def name_of(identity: Mapping[str, Any], asked: BoxFormat, form: str) -> str:
    """Return the name of an endpoint, model, format and form of asking; "" is the usual form."""
    parts = {**identity, "box_format": asked.name}
    if form:
        parts["asking"] = form
    text = json.dumps(parts, sort_keys=True, default=repr)
    return f"{asked.name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
