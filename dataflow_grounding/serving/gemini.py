"""A VLM behind the Gemini API (`generateContent`), through Google's own client."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.environment import check_one_source
from dataflow_grounding._util.errors import EndpointRefused, MissingExtra, ServerFault, SpecError
from dataflow_grounding._util.secrets import excerpt, learn_proxies
from dataflow_grounding.serving._transport import PerLoop, fault_of, shown_address
from dataflow_grounding.serving.base import Reply, Serving, Usage, check_settings, usable_key
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.tasks import Request

GEMINI_URL = "https://generativelanguage.googleapis.com"
MODEL = "gemini-3.1-flash-lite-preview"
RESOLUTIONS = ("MEDIA_RESOLUTION_HIGH", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_LOW")
# of the API; the first, which takes schemas, unless the address names another
_VERSIONS = ("v1beta", "v1alpha", "v1")
_WHOLE = {"STOP": "stop", "MAX_TOKENS": "length", "FINISH_REASON_UNSPECIFIED": "stop", "": "stop"}


class GeminiServing(Serving):
    """Gemini, with JSON schema replies.

    Args:
        model: The model's name.
        max_workers: Most requests in flight; `timeout`: seconds for each.
        api_key: The key; else `GOOGLE_API_KEY`, `GEMINI_API_KEY`.
        base_url: Another endpoint that speaks Gemini; else `GOOGLE_GEMINI_BASE_URL`, else Google's.
        media_resolution: One of RESOLUTIONS, or empty for the model's default.
        temperature: What to sample at, from 0; None leaves it to the model.
        max_output_tokens: Most tokens of one reply, thoughts included.
        box_format: How the model writes boxes; `auto` looks the model up by name.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = GeminiServing(base_url=server.address, api_key="any key")
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def __init__(
        self,
        model: str = MODEL,
        max_workers: int = 16,
        timeout: float = 120,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        media_resolution: str = "MEDIA_RESOLUTION_HIGH",
        temperature: float | None = 0.3,
        max_output_tokens: int = 8192,
        box_format: str = "auto",
    ) -> None:
        if not model:
            raise SpecError("no model is named: set vlm.gemini.model")
        if media_resolution and media_resolution not in RESOLUTIONS:
            raise SpecError(
                f"vlm.gemini.media_resolution {media_resolution!r} is not one of"
                f" {', '.join(RESOLUTIONS)}"
            )
        check_settings(
            timeout, temperature, max_output_tokens=max_output_tokens, max_workers=max_workers
        )
        url = (base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or GEMINI_URL).rstrip("/")
        address, _, version = url.rpartition("/")
        self._url, self._version = (
            (address, version) if version in _VERSIONS else (url, _VERSIONS[0])
        )
        self.endpoint = shown_address(self._url, "vlm.gemini")
        self.model = model.removeprefix("models/")
        self.max_workers, self.timeout, self.media_resolution = (
            max_workers,
            timeout,
            media_resolution,
        )
        self.temperature, self.max_output_tokens, self.box_format = (
            temperature,
            max_output_tokens,
            box_format,
        )
        self._api_key = usable_key(
            api_key or os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")
        )
        learn_proxies()
        check_one_source(self._url, self._api_key, {})
        self._client = PerLoop[Any](self._open)

    def obstacles(self) -> list[str]:
        found = []
        try:
            import google.genai  # noqa: F401
        except ImportError:
            found.append(str(MissingExtra("vlm.backend gemini", "gemini")))
        if not self._api_key:
            found.append("no API key: set vlm.gemini.api_key, GOOGLE_API_KEY or GEMINI_API_KEY")
            if os.environ.get("DF_BASE_URL"):
                found[-1] += " (DF_BASE_URL, DF_MODEL and DF_API_KEY are for vlm.backend openai)"
        return found

    def identity(self) -> dict[str, Any]:
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        return {**super().identity(), **sampling, "media_resolution": self.media_resolution}

    async def answer(self, request: Request[Any]) -> Reply:
        client = self._client.get()
        where = f"{self.endpoint} ({self.model})"
        import aiohttp
        from google.genai import errors, types

        urls = [
            i.data_url() if i.ready else await asyncio.to_thread(i.data_url) for i in request.images
        ]
        # The body is ours: the client would encode the pictures anew for every request.
        whole = types.GenerateContentConfig(
            http_options=types.HttpOptions(extra_body=self._body(request, urls))
        )
        try:
            response = await client.aio.models.generate_content(
                model=self.model, contents=request.task, config=whole
            )
        except errors.APIError as error:
            headers = getattr(error.response, "headers", None) or {}
            body = json.dumps(error.details).encode()
            raise error_of(int(error.code or 0), headers, body, where=where) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            # the client lets its transport's through
            raise fault_of(error, where, "vlm.gemini", self.timeout) from None
        except Exception as error:
            said = excerpt(str(error) or type(error).__name__, 200)
            raise ServerFault(
                f"{where} answered something that is not a Gemini reply: {said}"
            ) from None
        return _reply_of(response, where)

    def _body(self, request: Request[Any], urls: list[bytes]) -> dict[str, Any]:
        settings = {
            "maxOutputTokens": self.max_output_tokens,
            "temperature": request.temperature(self.temperature),
            "mediaResolution": self.media_resolution or None,
            "responseMimeType": "application/json",
            "responseSchema": _schema_of(request.schema),
        }
        files = (url.decode("ascii").removeprefix("data:").partition(";base64,") for url in urls)
        pictures = [{"inlineData": {"mimeType": kind, "data": data}} for kind, _, data in files]
        return {
            "systemInstruction": {"parts": [{"text": request.system}]},
            "contents": [{"role": "user", "parts": [*pictures, {"text": request.text}]}],
            "generationConfig": {
                name: value for name, value in settings.items() if value is not None
            },
        }

    def _open(self) -> Any:
        """A client with its own retries off: the engine's wait for the whole run."""
        for obstacle in self.obstacles():
            raise EndpointRefused(obstacle)
        from google import genai

        options = genai.types.HttpOptions(
            base_url=self._url,
            api_version=self._version,
            timeout=max(1, round(self.timeout * 1000)),
            retry_options=genai.types.HttpRetryOptions(attempts=1),
            # it would take key and picture to another host
            async_client_args={"allow_redirects": False},
        )
        return genai.Client(api_key=self._api_key, vertexai=False, http_options=options)

    async def aclose(self) -> None:
        if (client := self._client.take()) is not None:
            await client.aio.aclose()


def _schema_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A reply's schema in Gemini's dialect (ai.google.dev, structured output), part of OpenAPI's,
    keys in order.
    """
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    [kind] = [kind for kind in kinds if kind != "null"]
    found: dict[str, Any] = {"type": kind.upper()} | ({"nullable": True} if "null" in kinds else {})
    found |= {name: schema[name] for name in ("description", "enum") if name in schema}
    if "items" in schema:
        found["items"] = _schema_of(schema["items"])
    if "properties" in schema:
        properties = {name: _schema_of(part) for name, part in schema["properties"].items()}
        found |= {"properties": properties, "propertyOrdering": list(properties)}
        found["required"] = [
            name for name in schema.get("required", ()) if not properties[name].get("nullable")
        ]
    return found


def _reply_of(response: Any, where: str) -> Reply:
    kinds = ("prompt", "cached_content", "candidates", "thoughts")  # the last are billed as output
    sent, cached, *written = (
        getattr(response.usage_metadata, f"{kind}_token_count", None) or 0 for kind in kinds
    )
    usage, feedback = Usage(sent, cached, sum(written)), response.prompt_feedback
    if feedback is not None and feedback.block_reason:
        return Reply(
            "", "blocked", usage, _refusal(feedback.block_reason, feedback.block_reason_message)
        )
    if not response.candidates:
        raise ServerFault(f"{where} answered without a candidate")
    candidate = response.candidates[0]
    text = _text_of(candidate)
    finish = str(getattr(candidate.finish_reason, "value", candidate.finish_reason) or "")
    if finish in _WHOLE:
        return Reply(text, _WHOLE[finish], usage)
    rated = [
        rating.category.value
        for rating in candidate.safety_ratings or []
        if rating.blocked and rating.category
    ]
    return Reply(
        text, finish, usage, _refusal(finish, candidate.finish_message or ", ".join(rated))
    )


def _text_of(candidate: Any) -> str:
    parts = (candidate.content.parts if candidate.content else None) or []
    return "".join(part.text for part in parts if part.text and not part.thought)


def _refusal(reason: Any, said: str | None) -> str:
    name = str(getattr(reason, "value", reason))
    return f"blocked by Gemini ({name})" + (f": {said}" if said else "")
