"""Answers as a server streams them."""

from __future__ import annotations

import json
from typing import Any


def streamed(text: str) -> bytes:
    """A text as the events of a chat completion, a character each, with usage and an end."""
    pieces = [{"role": "assistant"}, *({"content": char} for char in text), {}]
    chunks: list[dict[str, Any]] = []
    for delta in pieces:
        reason = None if delta else "stop"
        chunks.append({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})
    lines = [": a comment", *(f"data: {json.dumps(chunk)}" for chunk in chunks), "data: [DONE]"]
    return "\r\n\r\n".join(lines).encode()
