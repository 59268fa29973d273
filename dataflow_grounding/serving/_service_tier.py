"""The service tier that requests ask for: the ordinary one, or `flex` at a part of its price.

A request at flex is an ordinary one with a field more. Flex is slower, and refuses requests while
it has no room.
"""

import re

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    RequestRefused,
    ServerOverloaded,
    SpecError,
    TierFull,
)
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import FLEX

FLEX_TIMEOUT = 900.0
"""Seconds for one request at flex (developers.openai.com, flex processing, 2026-11)."""
# Words of a refusal that is about the tier: `service_tier`, `service tier`, `flex`.
_TIER_WORDS = re.compile(r"service[ _-]?tier|\bflex\b", re.IGNORECASE)


def timeout_at(tier: str, stated: float | None, usual: float) -> float:
    """Return what the user stated, else what is usual at the tier. SpecError for an unknown one."""
    if tier not in ("", FLEX):
        raise SpecError(f"{setting('vlm.service_tier')} should be {FLEX}, not {tier!r:.40}")
    if stated is not None:
        return stated
    return FLEX_TIMEOUT if tier else usual


def check_tier_is_said_once(tier: str, fields: JsonObject, key: str) -> None:
    """Raise SpecError if the user's further fields of a request, of the setting `key`, have it."""
    if tier and fields.keys() & {"serviceTier", "service_tier"}:
        name = setting("vlm.service_tier")
        raise SpecError(f"{name} is set in {setting(key)}, too: leave it out there")


def needs_at(tier: str, key: str, timeout: float) -> list[str]:
    """Return advice if `timeout`, of the setting `key`, is less than a request at flex may take."""
    if not tier or timeout >= FLEX_TIMEOUT:
        return []
    return [
        f"{setting(key)} is {timeout:g} s, and an answer at {tier} may take {FLEX_TIMEOUT:g}:"
        " leave it out"
    ]


def error_at_tier(tier: str, error: GroundingError, is_full: bool) -> GroundingError:
    """TierFull where the tier has no room, EndpointRefused where it isn't known, else `error`."""
    if not tier:
        return error
    if is_full and isinstance(error, ServerOverloaded):  # else the endpoint is busy
        return TierFull(str(error), error.retry_after)
    may_be_about_tier = isinstance(error, RequestRefused) and not is_about_content(str(error))
    if may_be_about_tier and _TIER_WORDS.search(str(error)):
        reason = str(error).rstrip(".")
        name = setting("vlm.service_tier")
        return EndpointRefused(f"{reason}. Leave {name} out: it is not taken", certain=False)
    return error
