"""What a `bench.json` holds, and reading one that somebody else has made."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.bench.ways import WAYS, Spans
from dataflow_grounding.boxes.formats import find_box_format

VERSION = 2
"""The version of the form."""
_LONGEST_REPLY = 200_000  # characters; an answer about one of these pictures has some thousand
_MOST_REPLIES = 20_000  # of a way, which asks some hundred questions
_MOST_FORMATS = 1000  # of a user's own
_MOST_FRAMES = 1000  # of a serving whose pictures go out in exact sizes

_Text = Annotated[str, StringConstraints(max_length=500)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Amount = Annotated[float, Field(ge=0, le=1e9)]
_Side = Annotated[int, Field(ge=1, le=10**6)]
_Pixels = Annotated[int, Field(ge=1, le=10**12)]
_Aspect = Annotated[float, Field(ge=1, le=1e6)]


class _Part(BaseModel):
    """A part of the file. What this version doesn't know is left alone."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Reply(_Part):
    """A reply, as it was stored."""

    key: _Text
    reply: Annotated[str, StringConstraints(max_length=_LONGEST_REPLY)]
    finish_reason: _Text
    usage: Annotated[list[_Count], Field(min_length=3, max_length=3)]
    refusal: _Text | None
    tier: _Text | None = None


class _Recorded(_Part):
    """Whose replies these are."""

    model: _Text
    endpoint: _Text


class _Recording(_Part):
    """The first line of a recording."""

    recorded: _Recorded
    box_format: _Text
    box_formats: Annotated[list[dict[str, Any]], Field(max_length=_MOST_FORMATS)] = []
    keyed_by_endpoint: bool = True
    is_vlm: bool = True


class _Limits(_Part):
    """The `ImageLimits` of the serving."""

    max_side: _Side
    max_short_side: _Side | None
    max_pixels: _Pixels | None
    min_pixels: Annotated[int, Field(ge=0, le=10**9)]
    multiple: Annotated[int, Field(ge=1, le=1000)]
    max_wide: _Aspect | None
    max_tall: _Aspect | None
    frames: Annotated[list[tuple[_Side, _Side]], Field(max_length=_MOST_FRAMES)] = []
    media_types: list[Literal["image/jpeg", "image/png", "image/webp"]]
    max_bytes: _Pixels


class _Run(_Part):
    """What a way's run took."""

    requests: _Count
    tests: _Count
    cost_usd: _Amount | None
    seconds: _Amount


class _Way(_Part):
    """What is kept of a way."""

    recording: _Recording
    image_limits: _Limits
    run: _Run
    replies: Annotated[list[_Reply], Field(max_length=_MOST_REPLIES)]


class _File(_Part):
    """The whole file."""

    version: _Text
    when: _Text
    set: _Text
    pictures: Annotated[int, Field(ge=1)] | None
    model: _Text
    endpoint: _Text
    ways: Annotated[dict[str, _Way], Field(min_length=1)]


def read_document(path: str) -> dict[str, Any]:
    """Return what a `bench.json` holds.

    Raises:
        InputError: It can't be read, or isn't what `dataflowgrounding bench` writes; the error
            names the file and the key.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors begin a file with a mark
            document = json.load(file)
    except OSError as error:
        why = error.strerror or error
        raise InputError(
            f"can't read {path}: {why}: `dataflowgrounding bench` writes a bench.json"
        ) from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is no JSON: was it cut off? Take a whole bench.json") from None
    if not isinstance(document, dict) or not isinstance(document.get("bench"), int):
        raise InputError(f"{path} is none that `dataflowgrounding bench` wrote")
    if document["bench"] != VERSION:
        version = excerpt(str(document.get("version")), 40)
        raise InputError(
            f"{path} has another form than this version's: score it with dataflow-grounding"
            f" {version}"
        )
    _check(document, path)
    return document


def _check(document: dict[str, Any], path: str) -> None:
    ways = document.get("ways")
    names = list(ways) if isinstance(ways, dict) else []
    for way in names:
        if way not in WAYS:
            raise InputError(f"{path}: {excerpt(way, 40)!r} is not one of {', '.join(WAYS)}")
    try:
        _File.model_validate(document)
    except ValidationError as error:
        problem = error.errors()[0]
        key = excerpt(".".join(map(str, problem["loc"])), 80)
        wrong = problem["msg"][:1].lower() + problem["msg"][1:]
        raise InputError(f"{path}: {key}: {wrong}") from None
    for way, of_way in document["ways"].items():
        where = f"{path}: ways.{way}"
        if not issubclass(WAYS[way], Spans):  # no box is read there, no matter what the format is
            _check_format(of_way["recording"], where)
        keys = [line["key"] for line in of_way["replies"]]
        if len(set(keys)) < len(keys):
            raise InputError(f"{where}.replies: a key is there twice")


def _check_format(recording: dict[str, Any], where: str) -> None:
    try:
        find_box_format(recording["box_format"], "", recording.get("box_formats", ()))
    except SpecError:
        raise InputError(f"{where}.recording.box_format is none that is known") from None
