"""What gateways say in a reply's headers, and how a request asks them not to answer from a cache.

A gateway may answer an equal request with the reply that it has kept. That is right for a record's
question. Where the same is asked again for a further answer, such a reply would say nothing new.
"""

import re
from collections.abc import Mapping

WANTS_NO_CACHE = {
    "Cache-Control": "no-cache",
    "cf-aig-skip-cache": "true",
    "x-portkey-cache-force-refresh": "true",
    "X-OpenRouter-Cache": "false",
    "Helicone-Cache-Enabled": "false",
}
"""Headers of a request that wants no kept reply. A gateway that doesn't know one ignores it.

Cloudflare: developers.cloudflare.com/ai-gateway/features/caching; Portkey:
portkey.ai/docs/product/ai-gateway/cache-simple-and-semantic; OpenRouter:
openrouter.ai/docs/guides/features/response-caching; Helicone:
docs.helicone.ai/features/advanced-usage/caching.
"""

LITELLM_WANTS_NO_CACHE = b'"cache":{"no-cache":true},'
"""The same as a key of LiteLLM's body (docs.litellm.ai/docs/proxy/caching). Other servers would
refuse a key that they don't know.
"""
_LITELLM = "x-litellm-version"  # a header of each of its replies
_LITELLM_KEY = "x-litellm-cache-key"  # a header of those that it has kept
_LITELLM_FALLBACKS = "x-litellm-attempted-fallbacks"  # of each: how many models it tried in vain
_QUOTED = re.compile(r'"[^"]*"')
_HIT = re.compile(r"(?<![\w-])hit(?![\w-])", re.IGNORECASE)
# caches of a prompt's beginning, as model servers have them: the reply itself is a new one
_OF_PROMPTS = re.compile(r"prompt|prefix|kv|token", re.IGNORECASE)


def is_litellm(headers: Mapping[str, str]) -> bool:
    return _LITELLM in headers


def is_from_cache(headers: Mapping[str, str]) -> bool:
    """LiteLLM names its cache's key. Others have a header for their cache with `HIT` in it."""
    if _LITELLM_KEY in headers:
        return True
    # cf-aig-cache-status, x-portkey-cache-status, x-openrouter-cache-status, helicone-cache,
    # x-cache, RFC 9211's cache-status
    for name in headers:
        is_of_replies = "cache" in name.lower() and not _OF_PROMPTS.search(name)
        # `"hit.example"; fwd=miss` is no hit: in quotes is the name of a cache
        words = _QUOTED.sub("", headers[name])
        if is_of_replies and _HIT.search(words):
            return True
    return False


def is_by_fallback(headers: Mapping[str, str]) -> bool:
    """Return whether LiteLLM says that another model has answered in place of the one asked for."""
    tried = headers.get(_LITELLM_FALLBACKS, "")
    return tried.isascii() and tried.isdecimal() and int(tried) > 0
