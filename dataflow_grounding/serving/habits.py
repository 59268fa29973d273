"""How an OpenAI-compatible endpoint wants its requests: found out on the first one, then kept for the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from dataflow_grounding.images import ImageLimits
from dataflow_grounding.serving.http_errors import is_about_content

_FORMATS = ("json_schema", "json_object", "none")
_OPENAIS_OWN = (".openai.com", ".openai.azure.com")
_NO_IMAGES = (
    "not a multimodal model", "does not support image", "no endpoints found that support image",
    "image input is not supported", "image_url is only supported by certain models", "unknown variant `image_url`",
    "at most 0 image",
)  # fmt: skip


@dataclass(frozen=True)
class Habits:
    """What an endpoint takes; the defaults are what is tried first."""

    response_format: str = "json_schema"
    tokens_key: str = "max_tokens"
    system_message: bool = True
    temperature: bool = True

    def after_refusal(self, said: str) -> Habits | None:
        """What to try next when a request was refused with these words; None when nothing is left to try."""
        if is_about_content(said):
            return None  # it is what the request says, not how
        said = said.lower()
        if self.tokens_key == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, tokens_key="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        if self.system_message and "role" in said and ("system" in said or "alternate" in said):
            return replace(self, system_message=False)
        left = _FORMATS[_FORMATS.index(self.response_format) + 1 :]
        return replace(self, response_format=left[0]) if left else None

    def __str__(self) -> str:
        format_ = {"none": "no response_format"}.get(self.response_format, f"response_format {self.response_format}")
        system = "a system message" if self.system_message else "no system message"
        return f"{format_}, {self.tokens_key}, {system}, {'' if self.temperature else 'no '}temperature"


def first_habits(endpoint: str) -> Habits:
    """What to try first; on OpenAI's own service a schema would keep the picture out of the prompt cache."""
    host = f".{urlsplit(endpoint).hostname or ''}"
    return Habits(response_format="json_object") if host.endswith(_OPENAIS_OWN) else Habits()


def first_limits(endpoint: str) -> ImageLimits:
    """What pictures it takes. NVIDIA's hosted NIMs: data URLs up to 180 KB, PNG and JPEG (docs.api.nvidia.com/nim)."""
    if (urlsplit(endpoint).hostname or "").endswith(".api.nvidia.com"):
        return ImageLimits(media_types=("image/jpeg", "image/png"), max_side=1024, max_bytes=134_000)
    return ImageLimits()


def takes_no_images(said: str) -> bool:
    """Whether a refusal says that the model takes no images at all, in the words of docs/endpoints.md's servers."""
    said = said.lower()
    return any(words in said for words in _NO_IMAGES)
