"""How OpenAI-compatible endpoints differ in what they accept and in what they answer.

What an endpoint accepts (`Habits`) is found out on its first request, refusal by refusal. Replies,
streamed ones too, and token counts under the names in use, are read by `completion_in`, `reply_of`
and `usage_of`.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import Reply, Usage, is_token_count, tier_named

_FORMATS = ("json_schema", "json_object", "none")  # values of response_format, in order of trying


@dataclass(frozen=True)
class Habits:
    """What an endpoint accepts in a request; the defaults are what is tried first.

    Attributes:
        response_format: The form of `response_format`, one of _FORMATS; "none" sends none.
        tokens_key: The key of the most tokens of a reply.
        system_message: Whether a system message is sent; else its text goes to the user's.
        temperature: Whether a temperature is sent.
        stream: Whether `stream` is sent, as false: some servers stream unless they are told not to
            (BerriAI/litellm#25766, unslothai/unsloth#6570).
    """

    response_format: str = "json_schema"
    tokens_key: str = "max_tokens"
    system_message: bool = True
    temperature: bool = True
    stream: bool = True

    def after_refusal(self, refusal: str) -> "Habits | None":
        """Return what to try next after a refusal in these words; None when nothing is left.

        Words that name a part of the request change that part, unless it was changed before. Any
        other refusal is taken to be about `response_format`, but for a content filter's, which is
        about no form: after that there is nothing to try.
        """
        if is_about_content(refusal):
            return None
        words = refusal.lower()
        if self.tokens_key == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, tokens_key="max_completion_tokens")
        if self.temperature and "temperature" in words:
            return replace(self, temperature=False)
        if self.stream and re.search(r"\bstream", words):
            return replace(self, stream=False)
        if self.system_message and "role" in words and ("system" in words or "alternate" in words):
            return replace(self, system_message=False)
        if self.response_format == _FORMATS[-1]:
            return None
        next_format = _FORMATS[_FORMATS.index(self.response_format) + 1]
        return replace(self, response_format=next_format)

    def __str__(self) -> str:
        """Return it in words: `response_format json_schema, max_tokens, a system message, …`."""
        response_format = f"response_format {self.response_format}"
        if self.response_format == "none":
            response_format = "no response_format"
        system = "a system message" if self.system_message else "no system message"
        temperature = "temperature" if self.temperature else "no temperature"
        stream = "" if self.stream else ", no stream"
        return f"{response_format}, {self.tokens_key}, {system}, {temperature}{stream}"


def first_habits(endpoint: str) -> "Habits":
    """Return what to try first at an endpoint, which is given by its address."""
    if _is_under("openai.com", endpoint) or _is_under("openai.azure.com", endpoint):
        # At OpenAI's own service, a schema would keep the picture out of the prompt cache.
        return Habits(response_format="json_object")
    return Habits()


def first_limits(endpoint: str) -> ImageLimits:
    """Return the limits of pictures that an endpoint accepts, as far as its address tells.

    Only NVIDIA's hosted NIMs have any, at integrate.api.nvidia.com, ai.api.nvidia.com,
    …nvcf.nvidia.com and others: data URLs up to 180 KB, PNG and JPEG (docs.api.nvidia.com/nim).
    """
    if _is_under("nvidia.com", endpoint):
        return ImageLimits(
            media_types=("image/jpeg", "image/png"), max_side=1024, max_bytes=134_000
        )
    return ImageLimits()


def _is_under(domain: str, endpoint: str) -> bool:
    # Whole parts count: evilnvidia.com is not under nvidia.com.
    host = (urlsplit(endpoint).hostname or "").rstrip(".")
    return host == domain or host.endswith(f".{domain}")


def completion_in(body: bytes) -> Any:
    """Return the `chat.completion` object in an answer's body, whole or streamed.

    A stream's lines begin with `data:`; the pieces of the first choice's text are joined. The last
    value counts of all else that they state.

    Raises:
        ValueError, RecursionError: The body is no JSON, and no stream of it.
    """
    if not body.lstrip().startswith((b"data:", b"event:", b":")):
        return json.loads(body)
    whole: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    pieces: dict[str, list[str]] = {}
    for line in body.splitlines():
        value = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or value == b"[DONE]":
            continue
        chunk = json.loads(value)
        if not isinstance(chunk, dict):
            raise ValueError("a line of the stream is no object")
        whole |= {key: part for key, part in chunk.items() if part is not None}
        for part in chunk.get("choices") or []:
            if isinstance(part, dict) and not part.get("index"):
                _add_chunk(part, choice, pieces)
    if choice:
        message = {name: "".join(parts) for name, parts in pieces.items()}
        whole["choices"] = [{**choice, "message": {**choice.get("message", {}), **message}}]
    return whole


def _add_chunk(part: dict[str, Any], choice: dict[str, Any], pieces: dict[str, list[str]]) -> None:
    choice |= {key: value for key, value in part.items() if value is not None}
    delta = choice.pop("delta", None)
    if isinstance(delta, dict):
        for name, text in delta.items():
            if isinstance(text, str) and name != "role":
                pieces.setdefault(name, []).append(text)


def error_in(completion: Any) -> dict[str, Any] | None:
    """Return the error that an answer with status 200 holds, as an object; None without one.

    It is in the body's `error` or its first choice's (OpenRouter, gateways), or the choice's
    `finish_reason` is "error". A `code` of it is an HTTP status if it is a whole number.

    Example:
        >>> error_in({"choices": [{"error": {"code": 429, "message": "Rate limit exceeded"}}]})
        {'code': 429, 'message': 'Rate limit exceeded'}
    """
    if not isinstance(completion, dict):
        return None
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        choice = {}
    error = completion.get("error") or choice.get("error")
    if error:
        return error if isinstance(error, dict) else {"message": str(error)}
    if choice.get("finish_reason") != "error":
        return None
    reason = choice.get("native_finish_reason") or "error"
    return {"message": f"the endpoint broke off (finish_reason: {reason})"}


def reply_of(data: dict[str, Any], hold: float) -> Reply:
    """Return the reply in a `chat.completion` object.

    Without any other text, the arguments of its one tool call are the text: some gateways ask for
    JSON by a tool (BerriAI/litellm#6741). A reasoning model's answer may stand where its thoughts
    should, at a server that was set up with the wrong parser: without any other text, it is read
    there. It isn't where the reply was cut off or blocked: these are thoughts then.

    Args:
        data: The object, as JSON.
        hold: The Reply's `hold`, in seconds.

    Raises:
        KeyError, TypeError, IndexError, AttributeError: It is no such object.
    """
    choice = data["choices"][0]
    message = choice["message"]
    text = _text(message.get("content"))
    finish_reason = choice.get("finish_reason") or "stop"
    if not text.strip():
        text = _arguments_of_call(message)
    if text and finish_reason in ("tool_calls", "function_call"):
        finish_reason = "stop"
    if not text.strip() and finish_reason == "stop":
        text = _text(message.get("reasoning_content") or message.get("reasoning"))
    refusal = message.get("refusal")
    if not refusal and finish_reason == "content_filter":
        refusal = "content filter"
    return Reply(
        text,
        str(finish_reason),
        usage_of(data.get("usage")),
        str(refusal) if refusal else None,
        hold,
        tier_named(data.get("service_tier")),
    )


def _arguments_of_call(message: dict[str, Any]) -> str:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    if message.get("function_call"):
        calls.append(message["function_call"])
    if len(calls) != 1:
        return ""
    arguments = calls[0].get("arguments")
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _text(content: Any) -> str:
    # Some servers answer in parts, of which only the texts count, joined.
    if not isinstance(content, list):
        return str(content or "")
    texts = []
    for part in content:
        if part.get("type", "text") in ("text", "output_text"):
            texts.append(part.get("text", ""))
    return "".join(texts)


def usage_of(data: Any) -> Usage:
    """Return token counts, read under any of the names in use.

    What is missing, or can't be a count, is 0; so are all if `data` is no object. No more tokens
    are cached than were sent.
    """
    if not isinstance(data, dict):
        return Usage()
    details = data.get("prompt_tokens_details") or data.get("input_tokens_details")
    cached_in_details = details.get("cached_tokens") if isinstance(details, dict) else None
    sent = _first_count(data.get("prompt_tokens"), data.get("input_tokens"))
    cached = _first_count(
        cached_in_details, data.get("prompt_cache_hit_tokens"), data.get("cached_tokens")
    )
    written = _first_count(data.get("completion_tokens"), data.get("output_tokens"))
    return Usage(sent, min(cached, sent), written)


def _first_count(*values: Any) -> int:
    for value in values:
        if is_token_count(value):
            return int(value)
    return 0
