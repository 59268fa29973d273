"""The service tier that requests ask for: the ordinary one, or `flex` at a part of its price.

Flex is asked with the ordinary request. It is slower, and refuses what it has no room for.
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
from dataflow_grounding.serving.base import FLEX, Reply
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.tasks.request import Request

FLEX_TIMEOUT = 900.0
"""Seconds for one request at flex.

Source: developers.openai.com, flex processing (2026-11).
"""
LONGEST_NAME = 40
_TIER_WORDS = re.compile(r"service[ _-]?tier|\bflex\b", re.IGNORECASE)


class AskedTier:
    """The tier that a serving asks for, and since when it has had no room there.

    Args:
        name: `flex`, or empty for the ordinary tier.
        ordinary_after: Seconds for which the tier has had no room, after which requests that find
            none there are asked at the ordinary tier; None waits for the tier.

    Raises:
        SpecError: For another tier, or seconds that are none.
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
        self._full_since: float | None = None  # by the process's clock
        self._told = False

    def timeout(self, stated: float | None, usual: float) -> float:
        """Seconds for one request, where `usual` is those at the ordinary tier."""
        if stated is not None:
            return stated
        return FLEX_TIMEOUT if self.name else usual

    def needs(self, key: str, timeout: float) -> list[str]:
        """A line where the setting `key` gives requests at flex less time than they may take."""
        if not self.name or timeout >= FLEX_TIMEOUT:
            return []
        return [
            f"{setting(key)} is {timeout:g} s, and an answer at {self.name} may take"
            f" {FLEX_TIMEOUT:g}: leave it out"
        ]

    async def answered(
        self, request: Request[Any], ask: Callable[[Request[Any], str], Awaitable[Reply]]
    ) -> Reply:
        """The reply that `ask` has for a request at the tier, or else at the ordinary one.

        Raises TierFull where the tier has no room, and is waited for; else what `ask` raises.
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
        request.before_another()
        return await ask(request, "")

    def _is_given_up(self, error: TierFull) -> bool:
        """Whether the tier has had no room for so long that the ordinary one is asked."""
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        if self.ordinary_after is None or now - self._full_since < self.ordinary_after:
            return False
        if not self._told:
            self._told = True
            reason = str(error).rstrip(".")
            say(f"Warning: {reason}. The ordinary tier is asked, at its price, until there is room")
        return True


def told_at(tier: str, error: GroundingError, is_full: bool) -> GroundingError:
    """What an error means to a request at a tier: no room there, no such tier, or what it says.

    Args:
        tier: Which one was asked for; empty for the ordinary one.
        error: What the endpoint's answer says to any request.
        is_full: Whether it is the answer of a tier without room.
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


def tier_named(name: object) -> str:
    """The tier that a reply says has served it; empty where it says none."""
    return name.lower() if isinstance(name, str) and len(name) <= LONGEST_NAME else ""
