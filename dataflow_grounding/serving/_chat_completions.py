"""How OpenAI-compatible endpoints differ in what they accept and in what they answer.

What an endpoint accepts (`Habits`) is found out on its first request, refusal by refusal. Replies,
streamed ones too, and token counts under the names in use, are read by `completion_in`, `reply_in`
and `usage_in`.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving.finish_reasons import BLOCKED, BROKEN_OFF, is_one_of
from dataflow_grounding.serving.http_errors import is_about_content
from dataflow_grounding.serving.serving import (
    Reply,
    Usage,
    is_token_count,
    name_in_reply,
    tier_named,
)

_FORMATS = ("json_schema", "json_object", "none")  # values of response_format, in order of trying
_NO_ERROR = (0, "0", None)  # codes that some gateways send with each answer
_CHUNK_ERRORS = {"error", "errors", "detail", "message", "code"}  # keys of a chunk that is one


@dataclass(frozen=True)
class Habits:
    """What an endpoint accepts in a request; the defaults are what is tried first."""

    response_format: str = "json_schema"  # one of _FORMATS; "none" sends none
    tokens_key: str = "max_tokens"  # the key of the most tokens of a reply
    sends_system_message: bool = True  # else the user's message begins with its text
    sends_temperature: bool = True
    # `"stream": false`, because some servers stream unless they are told not to
    # (BerriAI/litellm#25766, unslothai/unsloth#6570)
    sends_stream: bool = True
    # Two keys for a further answer to the same question: a seed of its own, and one that asks
    # LiteLLM for no kept reply.
    sends_seed: bool = True
    sends_no_cache: bool = True

    def after_refusal(self, refusal: str) -> "Habits | None":
        """Return what to try next; None when nothing is left, or a content filter has refused."""
        if is_about_content(refusal):
            return None
        words = refusal.lower()
        if self.tokens_key == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, tokens_key="max_completion_tokens")
        if self.sends_temperature and "temperature" in words:
            return replace(self, sends_temperature=False)
        if self.sends_stream and re.search(r"\bstream", words):
            return replace(self, sends_stream=False)
        # "System role not supported", "roles must alternate user/assistant"
        is_about_roles = "role" in words and ("system" in words or "alternate" in words)
        if self.sends_system_message and is_about_roles:
            return replace(self, sends_system_message=False)
        # any other refusal is taken to be about response_format
        if self.response_format == _FORMATS[-1]:
            return None
        next_format = _FORMATS[_FORMATS.index(self.response_format) + 1]
        return replace(self, response_format=next_format)

    def __str__(self) -> str:
        """`response_format json_schema, max_tokens, a system message, …`"""
        response_format = f"response_format {self.response_format}"
        if self.response_format == "none":
            response_format = "no response_format"
        system = "a system message" if self.sends_system_message else "no system message"
        temperature = "temperature" if self.sends_temperature else "no temperature"
        stream = "" if self.sends_stream else ", no stream"
        return f"{response_format}, {self.tokens_key}, {system}, {temperature}{stream}"


def first_habits(endpoint: str) -> "Habits":
    if _is_under("openai.com", endpoint) or _is_under("openai.azure.com", endpoint):
        # At OpenAI's own service, a schema would keep the picture out of the prompt cache.
        return Habits(response_format="json_object")
    return Habits()


def first_limits(endpoint: str) -> ImageLimits:
    """Return the limits of NVIDIA's hosted NIMs (docs.api.nvidia.com/nim); no others are known."""
    # at integrate.api.nvidia.com, ai.api.nvidia.com, …nvcf.nvidia.com and others
    if _is_under("nvidia.com", endpoint):
        # data URLs up to 180 KB, PNG and JPEG
        return ImageLimits(
            media_types=("image/jpeg", "image/png"),
            max_side=1024,
            max_bytes=134_000,  # as a data URL, in base64, a third more
        )
    return ImageLimits()


def _is_under(domain: str, endpoint: str) -> bool:
    """Whole parts count: evilnvidia.com is not under nvidia.com."""
    host = (urlsplit(endpoint).hostname or "").rstrip(".")
    return host == domain or host.endswith(f".{domain}")


def completion_in(body: bytes) -> Any:
    """Return a body's completion: the body is JSON, `data: {…}` lines of chunks, or one chunk."""
    stream = _Stream()
    is_event_stream = body.lstrip().startswith((b"data:", b"event:", b":"))
    if is_event_stream:
        for line in body.splitlines():
            if line.startswith(b"data:"):
                stream.add(line.removeprefix(b"data:").strip())
        return stream.completion()
    whole = json.loads(body)
    is_chunk = isinstance(whole, dict) and whole.get("object") == "chat.completion.chunk"
    if is_chunk:
        stream.add(body)
        return stream.completion()
    return whole


class _Stream:
    """The chunks of a streamed answer: pieces in the first choice's `delta` are joined.

    {"choices": [{"index": 0, "delta": {"content": "A c"}}]}
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function":
      {"arguments": "{\"capt"}}]}}]}
    """

    def __init__(self) -> None:
        self._whole: dict[str, object] = {}  # of each key of the chunks, the last value
        # of the choice with index 0: of each key but `delta`, the last value
        self._choice: dict[str, Any] = {}
        self._texts: dict[str, str] = {}  # its message's texts by their keys, such as `content`
        self._calls: dict[Any, str] = {}  # the arguments of its tool calls by their index
        self._is_done = False  # whether `[DONE]` has come

    def add(self, data: bytes) -> None:
        """Take in a line's data. Raises ValueError for what is no chunk."""
        if data == b"[DONE]":
            self._is_done = True
            return
        chunk = json.loads(data)
        if not isinstance(chunk, dict):
            raise ValueError("a line of the stream is no object")
        if "choices" not in chunk and _CHUNK_ERRORS & chunk.keys():
            # some send what is wrong under `error`, others as the chunk itself
            chunk = {"error": chunk.get("error") or chunk}
        self._whole |= {key: part for key, part in chunk.items() if part is not None}
        for choice in chunk.get("choices") or []:
            is_first = isinstance(choice, dict) and not choice.get("index")  # 0, or none
            if is_first:
                self._add_choice(choice)

    def _add_choice(self, choice: JsonObject) -> None:
        for key, value in choice.items():
            if key != "delta" and value is not None:
                self._choice[key] = value
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for name, text in delta.items():
            # each chunk may state the `role`, which is whole
            if isinstance(text, str) and name != "role":
                self._texts[name] = self._texts.get(name, "") + text
        for call in delta.get("tool_calls") or []:
            index = call.get("index")
            arguments = call["function"].get("arguments") or ""
            self._calls[index] = self._calls.get(index, "") + arguments

    def completion(self) -> JsonObject:
        """Return the completion of all chunks. Raises ValueError where the stream has no end."""
        has_ended = self._is_done or self._choice.get("finish_reason")
        states_error = self._whole.get("error")  # this says why it has no end
        if not (has_ended or states_error):
            raise ValueError("the stream breaks off")
        if not self._choice:
            return self._whole
        # A body that is one chunk may have the message whole.
        message = {**self._choice.get("message", {}), **self._texts}
        if self._calls:
            calls = self._calls.values()
            message["tool_calls"] = [{"function": {"arguments": each}} for each in calls]
        return {**self._whole, "choices": [{**self._choice, "message": message}]}


def error_in(completion: Any) -> JsonObject | None:
    """Return an error inside a 200: a stated one, or the reason of a server that broke off."""
    if not isinstance(completion, dict):
        return None
    choices = completion.get("choices")
    choice = None
    if isinstance(choices, list) and choices:
        choice = _first_choice(choices)
    if not isinstance(choice, dict):
        choice = {}  # the body may state an error all the same
    return _stated_error(completion, choice) or _broken_off_error(choice)


def _stated_error(completion: JsonObject, choice: JsonObject) -> JsonObject | None:
    """MiniMax states it in `base_resp`; others in the body or its choice, also as a text."""
    of_minimax = completion.get("base_resp")  # {"status_code": 1004, "status_msg": "…"}
    if isinstance(of_minimax, dict) and of_minimax.get("status_code"):
        return {"message": str(of_minimax)}
    for error in (completion.get("error"), choice.get("error"), completion.get("errors")):
        if isinstance(error, dict):
            if _is_error(error):
                return error
        elif error:
            return {"message": str(error)}
    return None


def _broken_off_error(choice: JsonObject) -> JsonObject | None:
    finish_reason = choice.get("finish_reason")
    # OpenRouter also states its provider's reason. Where a text came, OpenRouter takes it for
    # whole, and the provider's reason doesn't count.
    reason_of_provider = choice.get("native_finish_reason")
    is_broken_off = is_one_of(finish_reason, BROKEN_OFF)
    if reason_of_provider and not _has_text(choice.get("message")):
        is_broken_off = is_broken_off or is_one_of(reason_of_provider, BROKEN_OFF)
    if not is_broken_off:
        return None
    reason = f"finish_reason: {finish_reason}"
    if reason_of_provider:
        reason += f", native_finish_reason: {reason_of_provider}"
    return {"message": f"the endpoint broke off ({reason})"}


def _has_text(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    return bool(message.get("content") or message.get("tool_calls"))


def _is_error(said: JsonObject) -> bool:
    """Some gateways send a code with each answer: 200, or 0 without a message, is no error."""
    code = said.get("code")
    if code in (200, "200"):
        return False
    has_error_code = code not in _NO_ERROR
    says_more = any(value for key, value in said.items() if key != "code")
    return has_error_code or says_more


def _first_choice(choices: list[Any]) -> Any:
    """That with index 0, or without an index: another may come before it in the list."""
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index") in (0, None):
            return choice
    return choices[0]


def reply_in(data: JsonObject, hold: float) -> Reply:
    """Return a completion's reply. Raises KeyError, TypeError, IndexError or AttributeError."""
    choice = _first_choice(data["choices"])
    message = choice["message"]
    text = _text_and_arguments(message)
    finish_reason = choice.get("finish_reason") or "stop"
    if text and finish_reason in ("tool_calls", "function_call"):
        finish_reason = "stop"  # the call's arguments are the reply
    if not text.strip() and finish_reason == "stop":
        # A server that reads a reasoning model in the wrong way takes its answer for a thought.
        text = _text(message.get("reasoning_content") or message.get("reasoning"))
    created = data.get("created")
    refusal = message.get("refusal")
    if not refusal and is_one_of(finish_reason, BLOCKED):
        refusal = f"content filter ({finish_reason})"
    return Reply(
        text,
        str(finish_reason),
        usage_in(data.get("usage")),
        refusal=str(refusal) if refusal else None,
        hold=hold,
        tier=tier_named(data.get("service_tier")),
        id=name_in_reply(data.get("id")),
        created=created if isinstance(created, int) else 0,
        model=name_in_reply(data.get("model")),
    )


def _text_and_arguments(message: JsonObject) -> str:
    """Where a gateway asks for JSON by a tool, the call's arguments are the reply."""
    text = _text(message.get("content"))
    arguments = _arguments_of_call(message)  # BerriAI/litellm#6741
    if not text.strip():
        return arguments
    if not arguments.strip():
        return text
    # Which one counts isn't known.
    return f"{text}\n\nThe tool call, in other words, has:\n{arguments}"


def _arguments_of_call(message: JsonObject) -> str:
    """The arguments as JSON; empty where there isn't exactly one call."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    if message.get("function_call"):
        calls.append(message["function_call"])
    if len(calls) != 1:
        return ""
    arguments = calls[0].get("arguments")
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _text(content: Any) -> str:
    """Some servers answer in parts, of which only the texts count, joined."""
    if not isinstance(content, list):
        return str(content or "")
    texts = []
    for part in content:
        if part.get("type", "text") in ("text", "output_text"):
            texts.append(part.get("text", ""))
    return "".join(texts)


def usage_in(data: Any) -> Usage:
    """Return the counts under any of the names in use; 0 for what can't be a count."""
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
