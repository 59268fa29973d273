"""What a served model takes and what it refuses with a 400, as real endpoints differ in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.testing import Fault, ReceivedRequest
from tests.support.faults import bad_request


@dataclass(frozen=True)
class Takes:
    """A rule by which an endpoint refuses what it doesn't take.

    A strict schema with an open object is refused, as OpenAI's service does.

    Args:
        response_formats: The types of `response_format` that it knows; others are refused.
        max_completion_tokens: Whether it refuses `max_tokens`.
        system_messages: Whether it accepts them.
        temperature: Whether it accepts any but 1.
        max_images: Most images of one request.
        service_tiers: The tiers that can be asked for; others are refused.
    """

    response_formats: tuple[str, ...] = ("json_schema", "json_object")
    max_completion_tokens: bool = False
    system_messages: bool = True
    temperature: bool = True
    max_images: int = 16
    service_tiers: tuple[str, ...] = ("default", "flex")

    def __call__(self, request: ReceivedRequest) -> Fault | None:
        """The 400 for the first thing of a request that this model doesn't take, else None."""
        settings = request.settings
        if request.system and not self.system_messages:
            return bad_request("System role not supported", "unsupported_value", "messages[0].role")
        if self.max_completion_tokens and "max_tokens" in settings:
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model."
                " Use 'max_completion_tokens' instead."
            )
            return bad_request(message, "unsupported_parameter", "max_tokens")
        if not self.temperature and settings.get("temperature", 1) != 1:
            message = (
                "Unsupported value: 'temperature' does not support this value with this model."
                " Only the default (1) value is supported."
            )
            return bad_request(message, "unsupported_value", "temperature")
        if len(request.encoded_images) > self.max_images:
            message = f"At most {self.max_images} image(s) may be provided in one prompt."
            return bad_request(message, "", "messages")
        tier = settings.get("service_tier", "default")
        if tier not in self.service_tiers:
            message = f"Invalid service_tier argument: '{tier}' is not available for this model."
            return bad_request(message, "invalid_value", "service_tier")
        return self._refuses_format(settings)

    def _refuses_format(self, settings: dict[str, Any]) -> Fault | None:
        """The 400 for a form of reply that this model doesn't take."""
        type_name = _type_of_format(settings)
        if type_name == "text":
            return None
        if type_name not in self.response_formats:
            message = f"This response_format type is unavailable now: '{type_name}'."
            return bad_request(message, "unsupported_value", "response_format")
        response_format = settings.get("response_format") or {}
        json_schema = response_format.get("json_schema") or {}
        is_strict_schema = type_name == "json_schema" and json_schema.get("strict")
        if not is_strict_schema:
            return None
        problem = next(open_objects(json_schema.get("schema")), None)  # the first of them
        if problem is None:
            return None
        name = json_schema.get("name")
        message = f"Invalid schema for response_format '{name}': In context={problem}."
        return bad_request(message, "invalid_json_schema", "response_format")


def _type_of_format(settings: Mapping[str, Any]) -> str:
    """The form that a request asks for: `text`, or a type of OpenAI's `response_format`."""
    if "responseMimeType" in settings:  # a setting of Gemini's
        has_schema = settings.keys() & {"responseSchema", "responseJsonSchema"}
        return "json_schema" if has_schema else "json_object"
    response_format = settings.get("response_format") or {}
    return str(response_format.get("type", "text"))


def open_objects(schema: Any, *context: str) -> Iterator[str]:
    """Yield in OpenAI's words what a schema has that a strict one may not have: an object that
    allows further properties, or a property that is not required. `context` is the path of keys to
    it.
    """
    if not isinstance(schema, dict):
        return
    properties = schema.get("properties")
    if isinstance(properties, dict):
        if schema.get("additionalProperties") is not False:
            yield f"{context}, 'additionalProperties' is required to be supplied and to be false"
        missing = sorted(properties.keys() - set(schema.get("required") or ()))
        if missing:
            yield (
                f"{context}, 'required' must include every key in properties. Missing"
                f" '{missing[0]}'"
            )
    for keys, inner_schema in _schemas_in(schema):
        yield from open_objects(inner_schema, *context, *keys)


def _schemas_in(schema: dict[str, Any]) -> Iterator[tuple[list[str], Any]]:
    """Yield the schemas that a schema holds, each after the keys to it."""
    # Only these members hold any: a name or a default value may look like one.
    yield ["items"], schema.get("items")
    for key in ("properties", "anyOf", "$defs"):
        parts = schema.get(key)
        if isinstance(parts, list):  # of "anyOf": the key to each schema is its index
            parts = dict(enumerate(parts))
        if isinstance(parts, dict):
            for name, part in parts.items():
                yield [key, str(name)], part
