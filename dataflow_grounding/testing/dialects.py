"""The two protocols of the loopback server: OpenAI chat completions and Gemini generateContent."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving.serving import Usage
from dataflow_grounding.testing.received import BadRequest, ReceivedRequest

# By HTTP status, the status in an error of Gemini's; any other is "UNKNOWN".
GEMINI_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# Gemini takes both alphabets of base64; Google's own client writes the one for addresses.
PLAIN_BASE64 = str.maketrans("-_", "+/")
# By our `finish_reason`, Gemini's; any other goes out as it is.
GEMINI_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says.

    Args:
        text: What the reply says; `refusal` is said in its place.
        finish_reason: Why it ended: `stop`, `length` or `content_filter`.
        usage: Tokens to bill; None counts one for every four characters and 1,000 for an image.
        tier: The service tier that is said to have served it; None is the one that was asked for,
            an empty text says none.

    Example:
        >>> from dataflow_grounding.testing import LoopbackServer
        >>> server = LoopbackServer(lambda request: Answer("half an ans", finish_reason="length"))
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage | None = None
    refusal: str | None = None
    tier: str | None = None


def _nonempty_list(value: Any, error: str) -> list[Any]:
    if not (value and isinstance(value, list)):
        raise BadRequest(error)
    return value


class OpenAI:
    """`POST /v1/chat/completions`, also at Azure's path."""

    name = "openai"

    def read(self, body: JsonObject, request: ReceivedRequest) -> list[str]:
        """Fill in the request from its body; return its pictures in base64, in order. Raises
        BadRequest, and KeyError, AttributeError or TypeError for JSON of other shapes.
        """
        model_of_path = request.model  # at Azure's path; "" at OpenAI's
        request.model = model_of_path or str(body.get("model") or "")
        request.settings = {
            key: value for key, value in body.items() if key not in ("messages", "model")
        }
        messages = _nonempty_list(
            body.get("messages"), "'messages' must be a list that is not empty."
        )
        if not request.model:
            raise BadRequest("you must provide a model parameter")
        parts = list(_parts_of(messages))
        # ("system", "You find things."), ("user", "Where is the cup?") and so on, in order
        texts = [(role, part["text"]) for role, part in parts if part["type"] == "text"]
        request.system = "".join(text for role, text in texts if role in ("system", "developer"))
        request.text = "\n".join(text for role, text in texts if role == "user")
        turns = [(role, text) for role, text in texts if role in ("user", "assistant")]
        request.turns = turns[:-1]  # the last one is the question
        urls = [part["image_url"]["url"] for _, part in parts if part["type"] == "image_url"]
        return [_base64_in(url) for url in urls]

    def reply(self, answer: Answer, model: str, index: int, usage: Usage) -> JsonObject:
        """Return a `chat.completion` object, the `index`-th of the server."""
        content = answer.text if answer.refusal is None else None
        message = {"role": "assistant", "content": content, "refusal": answer.refusal}
        tier = {"service_tier": answer.tier} if answer.tier else {}
        return {
            "id": f"chatcmpl-{index}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": answer.finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": usage.input_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.input_tokens + usage.output_tokens,
                "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            },
            **tier,
        }

    def headers(self, answer: Answer) -> dict[str, str]:
        """Return the headers that only this dialect's replies have: none."""
        return {}

    def error(
        self, status: int, message: str, code: str, param: str | None, wait: float | None
    ) -> JsonObject:
        """Return an object with an `error`. `wait` isn't in it: a header has it."""
        if status >= 500:
            type_name = "server_error"
        elif status == 429:
            type_name = "rate_limit_error"
        else:
            type_name = "invalid_request_error"
        error = {"message": message, "type": type_name, "param": param, "code": code or None}
        return {"error": error}

    def models(self, names: Sequence[str]) -> JsonObject:
        """Return a `list` of models with these names."""
        entries = []
        for name in names:
            entries.append({"id": name, "object": "model", "created": 0, "owned_by": "loopback"})
        return {"object": "list", "data": entries}


class Gemini:
    """`POST /v1beta/models/{model}:generateContent`."""

    name = "gemini"

    def read(self, body: JsonObject, request: ReceivedRequest) -> list[str]:
        """Fill in the request from its body, as `OpenAI.read` does."""
        contents = _nonempty_list(
            body.get("contents"), "* GenerateContentRequest.contents: contents is not specified"
        )
        request.settings = dict(body.get("generationConfig") or {})
        if "serviceTier" in body:
            request.settings["service_tier"] = body["serviceTier"]
        system = body.get("systemInstruction") or {}
        request.system = "".join(part.get("text", "") for part in system.get("parts", []))
        request.turns = [_turn_of(content) for content in contents[:-1]]  # the last is the question
        parts: list[JsonObject] = []  # of all that the user said, {"text": …} or a picture
        for content in contents:
            if _is_of_user(content):
                parts.extend(content.get("parts", []))
        if not all(part.keys() & {"inlineData", "text"} for part in parts):
            raise BadRequest("* GenerateContentRequest.contents: unknown part")
        request.text = "\n".join(part["text"] for part in parts if "inlineData" not in part)
        pictures = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
        return [picture.translate(PLAIN_BASE64) for picture in pictures]

    def reply(self, answer: Answer, model: str, index: int, usage: Usage) -> JsonObject:
        """Return a `GenerateContentResponse`; a refusal is a blocked prompt, without candidates."""
        counts = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens,
            "totalTokenCount": usage.input_tokens + usage.output_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
        }
        metadata = {
            "usageMetadata": counts,
            "modelVersion": model,
            "responseId": f"response-{index}",
        }
        if answer.refusal is not None:
            feedback = {"blockReason": "SAFETY", "blockReasonMessage": answer.refusal}
            return {"promptFeedback": feedback, **metadata}
        finish = GEMINI_FINISH.get(answer.finish_reason, answer.finish_reason)
        candidate: dict[str, object] = {"index": 0, "finishReason": finish}
        # Gemini sends no `content` then.
        is_cut_before_first_word = not answer.text and finish != "STOP"
        if not is_cut_before_first_word:
            candidate["content"] = {"role": "model", "parts": [{"text": answer.text}]}
        return {"candidates": [candidate], **metadata}

    def headers(self, answer: Answer) -> dict[str, str]:
        """Return the headers that only this dialect's replies have: the tier, if there is one."""
        return {"x-gemini-service-tier": answer.tier} if answer.tier else {}

    def error(
        self, status: int, message: str, code: str, param: str | None, wait: float | None
    ) -> JsonObject:
        """Return an object with a `google.rpc.Status`; the seconds to `wait` are in a RetryInfo."""
        details: list[JsonObject] = []
        if code:
            details.append(
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code.upper()}
            )
        if wait is not None:
            details.append(
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait:g}s"}
            )
        name = GEMINI_STATUS.get(status, "UNKNOWN")
        return {"error": {"code": status, "message": message, "status": name, "details": details}}

    def models(self, names: Sequence[str]) -> JsonObject:
        """Return a `ListModelsResponse` with these names."""
        return {"models": [{"name": f"models/{name}", "displayName": name} for name in names]}


def _is_of_user(content: JsonObject) -> bool:
    """One of Gemini's `contents` without a role is the user's."""
    return bool(content.get("role", "user") == "user")


def _turn_of(content: JsonObject) -> tuple[str, str]:
    role = "user" if _is_of_user(content) else "assistant"  # Gemini's word is "model"
    texts = [part["text"] for part in content.get("parts", []) if "text" in part]
    return role, "".join(texts)


Dialect = OpenAI | Gemini


def read_input(text: str) -> JsonObject:
    """Return the JSON object between a text's last `<input>` and `</input>`, {} without one. Raises
    BadRequest for anything else there.
    """
    _, begin_tag, rest = text.rpartition("<input>")
    if not begin_tag:
        return {}
    inside, end_tag, _ = rest.partition("</input>")
    try:
        value = json.loads(inside)
    except ValueError as error:
        raise BadRequest(f"the text between <input> and </input> is not JSON: {error}") from None
    if not end_tag or not isinstance(value, dict):
        raise BadRequest("<input> must hold one JSON object and end with </input>")
    return value


def _parts_of(messages: list[Any]) -> Iterator[tuple[str, JsonObject]]:
    """Each part, after its message's role; a content that is a text is one part."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for part in content or []:
            if part.get("type") not in ("text", "image_url"):
                raise BadRequest(f"Invalid content part type: {part.get('type')!r}.")
            yield message.get("role"), part


def _base64_in(url: str) -> str:
    head, separator, encoded = url.partition(";base64,")
    if not separator or not head.startswith("data:image/"):
        raise BadRequest("Invalid image_url: expected a data URL, data:image/...;base64,...")
    return encoded
