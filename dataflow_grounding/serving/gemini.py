"""A VLM at the Gemini API (`generateContent`), through Google's own client.

The body of a request is made here, because the client would encode its pictures again for every
try.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    MissingExtra,
    ServerFault,
    SpecError,
)
from dataflow_grounding._util.loop_thread import kept_open, on_loop
from dataflow_grounding._util.secrets import excerpt, learn_fields, learn_proxies
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving._gateway_headers import WANTS_NO_CACHE, is_from_cache
from dataflow_grounding.serving._service_tier import (
    check_tier_is_said_once,
    error_at_tier,
    needs_at,
    timeout_at,
)
from dataflow_grounding.serving._thinking import thinking_fields, with_fields
from dataflow_grounding.serving._transport import checked_address
from dataflow_grounding.serving.client_errors import fault_of
from dataflow_grounding.serving.finish_reasons import BLOCKED, is_one_of
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.serving.serving import (
    Reply,
    Serving,
    Usage,
    check_settings,
    name_in_reply,
    tier_named,
    usable_key,
)
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.request import Turn

GEMINI_URL = "https://generativelanguage.googleapis.com"
MODEL = "gemini-3.1-flash-lite-preview"
RESOLUTIONS = ("MEDIA_RESOLUTION_HIGH", "MEDIA_RESOLUTION_MEDIUM", "MEDIA_RESOLUTION_LOW")
TIMEOUT = 120.0  # seconds for one request at the ordinary tier
TIER_HEADER = "x-gemini-service-tier"  # of a response: the tier that served it
# Versions of the API. The first, which takes schemas, is asked unless the address names another.
_VERSIONS = ("v1beta", "v1alpha", "v1")
# From Gemini's finish reasons of replies that weren't blocked to a Reply's.
_FINISHED = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "FINISH_REASON_UNSPECIFIED": "stop",
    "": "stop",
}


class GeminiServing(Serving):
    """Gemini, with JSON schema replies.

    Args:
        model: The model's name.
        max_workers: Most requests in flight.
        timeout: Seconds for each; None is 120, and 900 at flex.
        api_key: The key; else `GOOGLE_API_KEY`, `GEMINI_API_KEY`.
        base_url: Another endpoint that speaks Gemini; else `GOOGLE_GEMINI_BASE_URL`, else Google's.
        media_resolution: One of RESOLUTIONS, or empty for the model's default.
        temperature: What to sample at, from 0; None leaves it to the model.
        max_output_tokens: Most tokens of one reply, thoughts included.
        box_format: How the model writes boxes; `auto` looks the model up by name.
        extra: Further fields of each request, or other values for ours, as the API's
            `generateContent` has them: `{"generationConfig": {"thinkingConfig": {"thinkingBudget":
            0}}}`.
        service_tier: `flex` asks the slower tier at a part of the price; empty the ordinary one.

    Raises:
        SpecError: For a setting with which nothing could be sent.

    Example:
        >>> from dataflow_grounding import CaptionGenerator
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...     serving = GeminiServing(base_url=server.address, api_key="any key")
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    takes_turns = True

    def __init__(
        self,
        model: str = MODEL,
        max_workers: int = 16,
        timeout: float | None = None,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        media_resolution: str = "MEDIA_RESOLUTION_HIGH",
        temperature: float | None = 0.3,
        max_output_tokens: int = 8192,
        box_format: str = "auto",
        extra: JsonObject | None = None,
        service_tier: str = "",
    ) -> None:
        self.extra = dict(extra or {})
        _check_extra(self.extra, service_tier)
        _check_names(model, media_resolution)
        timeout = timeout_at(service_tier, timeout, TIMEOUT)
        check_settings(
            timeout, temperature, max_output_tokens=max_output_tokens, max_workers=max_workers
        )
        url = (base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or GEMINI_URL).rstrip("/")
        self._url, self._version = _split_version(url)
        self.endpoint = checked_address(self._url, "vlm.gemini")  # without secrets, to be shown
        self.model = model.removeprefix("models/")
        self.max_workers = max_workers
        self.timeout = timeout
        self.service_tier = service_tier
        self.media_resolution = media_resolution
        self.temperature = temperature
        self.max_output_tokens = max_output_tokens
        self.box_format = box_format
        learn_fields(self.extra)  # so that secrets in it are masked
        self._api_key = usable_key(
            api_key or os.environ.get("GOOGLE_API_KEY") or os.environ.get("GEMINI_API_KEY")
        )
        learn_proxies()

    def obstacles(self) -> list[str]:
        """Return what prevents it from sending: Google's client or the key is missing."""
        obstacles = []
        try:
            import google.genai  # noqa: F401
        except ImportError:
            obstacles.append(str(MissingExtra(f"{setting('vlm.backend')} gemini", "gemini")))
        if not self._api_key:
            name = setting("vlm.gemini.api_key")
            backend = setting("vlm.backend")
            no_key = (
                f"no API key: set {name}, GOOGLE_API_KEY or GEMINI_API_KEY, or {backend} to"
                " embedded, which needs neither key nor model"
            )
            if os.environ.get("DF_BASE_URL"):
                no_key += f" (DF_BASE_URL, DF_MODEL and DF_API_KEY are for {backend} openai)"
            obstacles.append(no_key)
        return obstacles

    def identity(self) -> JsonObject:
        """Return what a reply depends on: the model, its sampling, resolution and `extra`."""
        sampling = {"temperature": self.temperature, "max_tokens": self.max_output_tokens}
        identity = {**super().identity(), **sampling, "media_resolution": self.media_resolution}
        if self.extra:
            identity["extra"] = self.extra
        return identity

    def facts(self) -> JsonObject:
        return {"service_tier": self.service_tier} if self.service_tier else {}

    def needs(self) -> list[str]:
        return needs_at(self.service_tier, "vlm.gemini.timeout", self.timeout)

    @on_loop
    async def answer(self, request: Request[Any]) -> Reply:
        # raises EndpointRefused where the package below is missing
        client = kept_open(self, self._open)
        from google.genai import types

        contents = [await _content(message) for message in request.messages]
        # The body is ours: the client would encode the pictures again for every request.
        options = types.HttpOptions(
            extra_body=self._body(request, contents),
            headers=WANTS_NO_CACHE if request.wants_own_reply else None,
        )
        config = types.GenerateContentConfig(http_options=options)
        response = await self._send(client, request.task, config)
        return replace(
            _reply_of(response, self._where),
            id=name_in_reply(response.response_id),
            model=name_in_reply(response.model_version),
            kept=is_from_cache(_headers_of(response)),
        )

    @property
    def _where(self) -> str:
        """The endpoint as messages name it."""
        return f"{self.endpoint} ({self.model})"

    async def _send(self, client: Any, task: str, config: Any) -> Any:
        import aiohttp
        from google.genai import errors

        try:
            return await client.models.generate_content(
                model=self.model,
                contents=task,  # the client wants some; those of the body replace them
                config=config,
            )
        except errors.APIError as error:  # an answer with a status of an error
            raise self._error_of(error) from None
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            # The client lets the errors of its transport through.
            raise fault_of(error, self._where, self.timeout) from None
        except Exception as error:
            reason = excerpt(str(error) or type(error).__name__, 200)
            raise ServerFault(
                f"{self._where} answered something that is not a Gemini reply: {reason}"
            ) from None

    def _error_of(self, error: Any) -> GroundingError:
        headers = getattr(error.response, "headers", None) or {}
        body = json.dumps(error.details).encode()
        status = int(error.code or 0)
        fault = error_of(status, headers, body, where=self._where)
        # At flex, a 503 says that there is no room.
        return error_at_tier(self.service_tier, fault, is_full=status == 503)

    def _body(self, request: Request[Any], contents: list[JsonObject]) -> JsonObject:
        """What comes later replaces what comes before: the user's `extra` is last."""
        body = {
            "systemInstruction": {"parts": [{"text": request.system}]},
            "contents": contents,
            "generationConfig": self._generation_config(request),
        }
        if self.service_tier:
            body["serviceTier"] = self.service_tier
        of_thinking = self.thinking_fields(request.form.thinking) or {}
        return with_fields(with_fields(body, of_thinking), self.extra)

    def _generation_config(self, request: Request[Any]) -> JsonObject:
        settings: dict[str, object] = {
            "maxOutputTokens": self.max_output_tokens,
            "temperature": request.temperature(self.temperature),
            "mediaResolution": self.media_resolution or None,
            "seed": request.own_seed,
        }
        if not request.form.is_free:  # else the prompt's words alone say what form a reply has
            settings["responseMimeType"] = "application/json"
            settings["responseSchema"] = _schema_of(request.schema)
        return {name: value for name, value in settings.items() if value is not None}

    def thinking_fields(self, level: str) -> JsonObject | None:
        return thinking_fields("gemini", self.model, level)

    def _open(self) -> Any:
        obstacles = self.obstacles()
        if obstacles:
            raise EndpointRefused(obstacles[0])
        from google import genai

        options = genai.types.HttpOptions(
            base_url=self._url,
            api_version=self._version,
            timeout=max(1, round(self.timeout * 1000)),  # milliseconds; the client takes 0 for none
            # one attempt: the engine tries again
            retry_options=genai.types.HttpRetryOptions(attempts=1),
            # A redirect would take key and picture to another host.
            async_client_args={"allow_redirects": False},
        )
        return genai.Client(api_key=self._api_key, vertexai=False, http_options=options).aio


def _split_version(url: str) -> tuple[str, str]:
    """`https://host/v1` → `https://host` and `v1`."""
    address, _, version = url.rpartition("/")
    return (address, version) if version in _VERSIONS else (url, _VERSIONS[0])


def _check_names(model: str, media_resolution: str) -> None:
    if not model:
        raise SpecError(f"no model is named: set {setting('vlm.gemini.model')}")
    if media_resolution and media_resolution not in RESOLUTIONS:
        raise SpecError(
            f"{setting('vlm.gemini.media_resolution')} {media_resolution!r} is not one of"
            f" {', '.join(RESOLUTIONS)}"
        )


def _check_extra(extra: JsonObject, tier: str) -> None:
    fields = setting("vlm.gemini.extra")
    for name in ("contents", "systemInstruction"):
        if name in extra:
            raise SpecError(f"{fields} can't hold {name!r}")
    config = extra.get("generationConfig", {})
    if not isinstance(config, Mapping):
        raise SpecError(f"{fields}: generationConfig should be a mapping, not {config!r:.40}")
    check_tier_is_said_once(tier, extra, "vlm.gemini.extra")


async def _content(message: Turn) -> JsonObject:
    """{"role": "user", "parts": [{"inlineData": {"mimeType": …, "data": …}}, {"text": …}]}"""
    parts: list[JsonObject] = []
    for image in message.images:
        if image.ready:
            data = image.encoded()
        else:  # to read and encode it takes long: the event loop goes on meanwhile
            data = await asyncio.to_thread(image.encoded)
        inline = {"mimeType": image.sent_media_type, "data": data.decode("ascii")}
        parts.append({"inlineData": inline})
    parts.append({"text": message.text})
    role = "user" if message.role == "user" else "model"  # the assistant's
    return {"role": role, "parts": parts}


def _schema_of(schema: JsonObject) -> JsonObject:
    """{"type": ["string", "null"]} → {"type": "STRING", "nullable": true}."""
    # Source: ai.google.dev, structured output.
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    [type_name] = [name for name in types if name != "null"]  # one, with or without null
    dialect: dict[str, object] = {"type": type_name.upper()}
    if "null" in types:
        dialect["nullable"] = True
    for name in ("description", "enum"):
        if name in schema:
            dialect[name] = schema[name]
    if "items" in schema:
        dialect["items"] = _schema_of(schema["items"])
    if "properties" in schema:
        properties = {name: _schema_of(part) for name, part in schema["properties"].items()}
        dialect["properties"] = properties
        dialect["propertyOrdering"] = list(properties)
        dialect["required"] = [
            name for name in schema.get("required", ()) if not properties[name].get("nullable")
        ]
    return dialect


def _reply_of(response: Any, where: str) -> Reply:
    usage = _usage_of(response.usage_metadata)
    tier = tier_named(_headers_of(response).get(TIER_HEADER))
    feedback = response.prompt_feedback
    is_prompt_blocked = feedback is not None and feedback.block_reason
    if is_prompt_blocked:
        refusal = _refusal(feedback.block_reason, feedback.block_reason_message)
        return Reply("", "blocked", usage, refusal, tier=tier)
    if not response.candidates:
        raise ServerFault(f"{where} answered without a candidate")
    candidate = response.candidates[0]
    text = _text_of(candidate)
    # an enum, or a text where the client doesn't know the reason
    finish = str(getattr(candidate.finish_reason, "value", candidate.finish_reason) or "")
    if finish in _FINISHED:
        return Reply(text, _FINISHED[finish], usage, tier=tier)
    if is_one_of(finish, BLOCKED):
        refusal = _refusal(finish, candidate.finish_message or _blocked_categories(candidate))
        return Reply(text, finish, usage, refusal, tier=tier)
    # Another reason, such as OTHER or MALFORMED_RESPONSE, doesn't concern the content. The text may
    # not be whole, so it is dropped, and the engine asks again (epam/ai-dial-adapter-vertexai#85,
    # archestra-ai/archestra#5487).
    return Reply("", finish, usage, tier=tier)


def _headers_of(response: Any) -> dict[str, str]:
    headers = getattr(response.sdk_http_response, "headers", None) or {}
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _usage_of(metadata: Any) -> Usage:
    sent = _count(metadata, "prompt_token_count")
    cached = _count(metadata, "cached_content_token_count")
    written = _count(metadata, "candidates_token_count")
    thought = _count(metadata, "thoughts_token_count")  # billed as output
    return Usage(sent, cached, written + thought)


def _count(metadata: Any, name: str) -> Any:
    return getattr(metadata, name, None) or 0


def _text_of(candidate: Any) -> str:
    content = candidate.content
    parts = (content.parts or []) if content else []
    return "".join(part.text for part in parts if part.text and not part.thought)


def _blocked_categories(candidate: Any) -> str:
    categories = []
    for rating in candidate.safety_ratings or []:
        if rating.blocked and rating.category:
            categories.append(rating.category.value)
    return ", ".join(categories)


def _refusal(reason: Any, message: str | None) -> str:
    name = str(getattr(reason, "value", reason))
    refusal = f"blocked by Gemini ({name})"
    return f"{refusal}: {message}" if message else refusal
