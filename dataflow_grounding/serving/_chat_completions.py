"""How OpenAI-compatible endpoints differ in what they take and in what they answer.

What one takes is found out on its first request.
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving._service_tier import tier_named
from dataflow_grounding.serving.base import Reply, Usage, is_token_count
from dataflow_grounding.serving.http_errors import is_about_content

_FORMATS = ("json_schema", "json_object", "none")
_NO_IMAGES = (
    "not a multimodal model",
    "does not support image",
    "no endpoints found that support image",
    "image input is not supported",
    "image_url is only supported by certain models",
    "unknown variant `image_url`",
    "at most 0 image",
)


@dataclass(frozen=True)
class Habits:
    """What an endpoint takes; the defaults are what is tried first."""

    response_format: str = "json_schema"
    tokens_key: str = "max_tokens"
    system_message: bool = True
    temperature: bool = True

    def after_refusal(self, refusal: str) -> "Habits | None":
        """What to try next after a refusal in these words; None when nothing is left to try."""
        if is_about_content(refusal):
            return None  # it is what the request says, not how
        words = refusal.lower()
        if self.tokens_key == "max_tokens" and "max_completion_tokens" in words:
            return replace(self, tokens_key="max_completion_tokens")
        if self.temperature and "temperature" in words:
            return replace(self, temperature=False)
        if self.system_message and "role" in words and ("system" in words or "alternate" in words):
            return replace(self, system_message=False)
        if self.response_format == _FORMATS[-1]:
            return None
        next_format = _FORMATS[_FORMATS.index(self.response_format) + 1]
        return replace(self, response_format=next_format)

    def __str__(self) -> str:
        response_format = f"response_format {self.response_format}"
        if self.response_format == "none":
            response_format = "no response_format"
        system = "a system message" if self.system_message else "no system message"
        temperature = "temperature" if self.temperature else "no temperature"
        return f"{response_format}, {self.tokens_key}, {system}, {temperature}"


def first_habits(endpoint: str) -> "Habits":
    """What to try first at an endpoint."""
    if _is_under("openai.com", endpoint) or _is_under("openai.azure.com", endpoint):
        # OpenAI's own service: a schema would keep the picture out of the prompt cache
        return Habits(response_format="json_object")
    return Habits()


def first_limits(endpoint: str) -> ImageLimits:
    """What pictures an endpoint takes.

    NVIDIA's hosted NIMs, at integrate.api.nvidia.com, ai.api.nvidia.com, …nvcf.nvidia.com and
    others: data URLs up to 180 KB, PNG and JPEG (docs.api.nvidia.com/nim).
    """
    if _is_under("nvidia.com", endpoint):
        return ImageLimits(
            media_types=("image/jpeg", "image/png"), max_side=1024, max_bytes=134_000
        )
    return ImageLimits()


def _is_under(domain: str, endpoint: str) -> bool:
    """Whether an address's host is the domain or ends in it.

    Whole parts count: evilnvidia.com is not under nvidia.com.
    """
    host = (urlsplit(endpoint).hostname or "").rstrip(".")
    return host == domain or host.endswith(f".{domain}")


def takes_no_images(refusal: str) -> bool:
    """Whether a refusal says that the model takes no images at all.

    The words are those of the servers in docs/endpoints.md.
    """
    lowered = refusal.lower()
    return any(words in lowered for words in _NO_IMAGES)


def reply_of(data: dict[str, Any], hold: float) -> Reply:
    """The reply in a `chat.completion` object; `hold` is the Reply's.

    Raises KeyError, TypeError, … for anything else.
    A reasoning model's answer may stand where its thoughts should (a server that was told the wrong
    parser): then that is read. Where the thoughts used up all tokens, the reply is cut off.
    """
    choice = data["choices"][0]
    message = choice["message"]
    text = _text(message.get("content"))
    finish_reason = choice.get("finish_reason") or "stop"
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


def _text(content: Any) -> str:
    """A message's text; some servers answer in parts, of which thinking parts are left out."""
    if not isinstance(content, list):
        return str(content or "")
    texts = []
    for part in content:
        if part.get("type", "text") in ("text", "output_text"):
            texts.append(part.get("text", ""))
    return "".join(texts)


def usage_of(data: Any) -> Usage:
    """Token counts by any of the names in use; what is missing, or can't be one, counts 0."""
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
    """The first value that can be a number of tokens; 0 for none."""
    for value in values:
        if is_token_count(value):
            return int(value)
    return 0
