"""The plain route: `POST /ground`, a picture and phrases in, the record out."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Picture, WrongRequest, read_json


def routes(engine: Engine) -> list[web.RouteDef]:
    async def ground(request: web.Request) -> web.Response:
        if request.content_type == "multipart/form-data":
            picture, phrases = await _of_form(request)
        else:
            picture, phrases = _of_json(engine, request)
        return web.json_response(await engine.ground(request, picture, phrases))

    return [web.post("/ground", ground)]


def _of_json(engine: Engine, request: web.Request) -> tuple[Picture, Any]:
    """{"image_path": "cups.jpg", "phrases": ["a cup"]}; the engine checks the phrases."""
    body = read_json(request)
    pictures = engine.pictures
    picture_by_key: dict[str, Callable[[object], Picture]] = {
        "image": pictures.of_base64,
        "image_path": pictures.of_path,
        "image_url": pictures.of_address,
    }
    keys_sent = [key for key in picture_by_key if isinstance(body.get(key), str)]
    if len(keys_sent) != 1:
        raise WrongRequest(f"the request should have one of {', '.join(picture_by_key)}, as a text")
    [key] = keys_sent
    return picture_by_key[key](body[key]), body.get("phrases")


async def _of_form(request: web.Request) -> tuple[Picture, Any]:
    """The form has a file `image`; `phrases` may come several times, each time a phrase."""
    picture: Picture | None = None
    phrases: list[str] = []
    try:
        reader = MultipartReader(request.headers, _stream_of(request["body"]))
        while part := await reader.next():
            # A form in the form is no BodyPartReader: the AssertionError is answered below.
            assert isinstance(part, BodyPartReader)
            data = bytes(await part.read(decode=True))
            if part.name == "image" and part.filename:
                picture = Picture(part.filename, partial(bytes, data))
            elif part.name == "phrases":
                phrases.append(data.decode())
    except Exception:  # aiohttp raises all kinds on a form that is broken
        raise WrongRequest("the form can't be read") from None
    if picture is None:
        raise WrongRequest("the form should have a file `image`")
    return picture, phrases


def _stream_of(body: bytes) -> StreamReader:
    """Room for all of it: with less, it would ask its connection to pause, and it has none."""
    loop = asyncio.get_running_loop()
    stream = StreamReader(BaseProtocol(loop), max(2**16, len(body)), loop=loop)
    stream.feed_data(body)
    stream.feed_eof()
    return stream
