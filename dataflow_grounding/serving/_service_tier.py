"""The service tier that requests ask for: the ordinary one, or `flex` at a part of its price.

A request at flex is an ordinary one with a field more. Flex is slower, and refuses requests while
it has no room. `AskedTier` decides when the ordinary tier is asked instead.
"""

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    RequestRefused,
    ServerOverloaded,
    SpecError,
    TierFull,
)
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import is_number
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import FLEX, Reply
from dataflow_grounding.tasks.request import Request

FLEX_TIMEOUT = 900.0
"""Seconds for one request at flex.

Source: developers.openai.com, flex processing (2026-11).
"""
# Words of a refusal that is about the tier: `service_tier`, `service tier`, `flex`.
_TIER_WORDS = re.compile(r"service[ _-]?tier|\bflex\b", re.IGNORECASE)


class AskedTier:
    """The tier that a serving asks for, and since when it has had no room there.

    Args:
        name: `flex`, or empty for the ordinary tier.
        ordinary_after: Seconds for which the tier may have no room; after these, requests that find
            none are sent to the ordinary tier. None waits for the tier.

    Raises:
        SpecError: The tier isn't known, or the seconds are no number from 0.
    """

    def __init__(self, name: str, ordinary_after: float | None) -> None:
        if name not in ("", FLEX):
            raise SpecError(f"{setting('vlm.service_tier')} should be {FLEX}, not {name!r:.40}")
        after = setting("vlm.ordinary_tier_after")
        if ordinary_after is not None and not name:
            raise SpecError(f"{after} needs {setting('vlm.service_tier', FLEX)}")
        if ordinary_after is not None and not (is_number(ordinary_after) and ordinary_after >= 0):
            raise SpecError(f"{after} should be a number of seconds, not {ordinary_after!r:.40}")
        self.name = name
        self.ordinary_after = ordinary_after
        # When the tier was first found without room, by the monotonic clock; None while it has.
        self._full_since: float | None = None
        self._is_user_told = False

    def timeout(self, stated: float | None, usual: float) -> float:
        """Return the seconds that one request may take.

        That is what the user `stated`, else FLEX_TIMEOUT at flex, else `usual`.
        """
        if stated is not None:
            return stated
        return FLEX_TIMEOUT if self.name else usual

    def needs(self, key: str, timeout: float) -> list[str]:
        """Return a line of advice if requests at flex have less time than they may take.

        `key` is the setting of the spec that gives them `timeout` seconds. Without need the list is
        empty.
        """
        if not self.name or timeout >= FLEX_TIMEOUT:
            return []
        return [
            f"{setting(key)} is {timeout:g} s, and an answer at {self.name} may take"
            f" {FLEX_TIMEOUT:g}: leave it out"
        ]

    async def answered(
        self, request: Request[Any], ask: Callable[[Request[Any], str], Awaitable[Reply]]
    ) -> Reply:
        """Send a request at the tier, and at the ordinary one where the tier had no room for long.

        Args:
            request: The request. Its `before_another` is called before it is sent again.
            ask: Sends a request at a tier, which is given by its name; "" is the ordinary one.

        Raises:
            TierFull: The tier has no room, and is waited for.
            GroundingError: All that `ask` raises.
        """
        if not self.name:
            return await ask(request, "")
        try:
            reply = await ask(request, self.name)
        except TierFull as error:
            if not self._is_given_up(error):
                raise
        else:
            self._full_since = None
            return reply
        request.before_another()  # the engine counts each further sending
        return await ask(request, "")

    def _is_given_up(self, error: TierFull) -> bool:
        # Note that the tier has no room; return whether that has lasted for `ordinary_after`, False
        # without it. The first time that the tier is given up is reported.
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        if self.ordinary_after is None or now - self._full_since < self.ordinary_after:
            return False
        if not self._is_user_told:
            self._is_user_told = True
            reason = str(error).rstrip(".")
            say(f"Warning: {reason}. The ordinary tier is asked, at its price, until there is room")
        return True


def error_at_tier(tier: str, error: GroundingError, is_full: bool) -> GroundingError:
    """Return the error of a request at a tier: TierFull, EndpointRefused, or the error itself.

    It is TierFull where the tier has no room, EndpointRefused where the endpoint doesn't know the
    tier.

    Args:
        tier: The tier that was asked for; "" for the ordinary one.
        error: What the endpoint's answer would mean at the ordinary tier.
        is_full: Whether the answer has the form by which a tier says that it has no room.
    """
    if not tier:
        return error
    if is_full and isinstance(error, ServerOverloaded):
        return TierFull(str(error), error.retry_after)
    is_refused = isinstance(error, RequestRefused) and not is_about_content(str(error))
    if is_refused and _TIER_WORDS.search(str(error)):
        reason = str(error).rstrip(".")
        name = setting("vlm.service_tier")
        return EndpointRefused(f"{reason}. Leave {name} out: it is not taken", certain=False)
    return error
