"""Reading a chat completion, as the servers differ in it."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.serving.base import Reply, Usage


def reply_of(data: dict[str, Any], hold: float) -> Reply:
    """The reply in a `chat.completion` object. Raises KeyError, TypeError, … for anything else.

    A reasoning model's answer may stand where its thoughts should (a server that was told the wrong parser): then that is
    read. Where the thoughts used up all tokens, the reply is cut off.
    """
    choice = data["choices"][0]
    message = choice["message"]
    text = _text(message.get("content"))
    finish_reason = choice.get("finish_reason") or "stop"
    if not text.strip() and finish_reason == "stop":
        text = _text(message.get("reasoning_content") or message.get("reasoning"))
    refusal = message.get("refusal") or ("content filter" if finish_reason == "content_filter" else None)
    return Reply(text, str(finish_reason), usage_of(data.get("usage")), refusal and str(refusal), hold)


def _text(content: Any) -> str:
    """Some servers answer in parts; thinking parts are left out."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if part.get("type", "text") in ("text", "output_text"))
    return str(content or "")


def usage_of(data: Any) -> Usage:
    """Token counts by any of the names in use; what is missing or no number counts 0."""
    if not isinstance(data, dict):
        return Usage()
    details = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    counts = (
        _first(data.get("prompt_tokens"), data.get("input_tokens")),
        _first(cached, data.get("prompt_cache_hit_tokens"), data.get("cached_tokens")),
        _first(data.get("completion_tokens"), data.get("output_tokens")),
    )
    return Usage(counts[0], min(counts[1], counts[0]), counts[2])


def _first(*values: Any) -> int:
    """The first whole number of 0 or more, else 0."""
    return next((n for n in values if isinstance(n, int) and not isinstance(n, bool) and n >= 0), 0)
