"""The plain route: `POST /ground`, a picture and phrases in, the record out."""

import asyncio
from typing import Any

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from dataflow_grounding.data.records import parse_value
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Picture, WrongRequest, read_json


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this dialect."""

    async def ground(request: web.Request) -> web.Response:
        is_form = request.content_type == "multipart/form-data"
        picture, phrases = await _form(request) if is_form else _object(engine, request)
        return web.json_response(await engine.ground(request, picture, phrases))

    return [web.post("/ground", ground)]


def _object(engine: Engine, request: web.Request) -> tuple[Picture, Any]:
    body = read_json(request)
    ways = ("image", "image_path", "image_url")
    given = [way for way in ways if body.get(way) is not None]
    if len(given) != 1:
        raise WrongRequest(f"the request should have one of {', '.join(ways)}")
    phrases = body.get("phrases")
    [way] = given
    if way == "image_path":
        return engine.pictures.of_path(body[way]), phrases
    if way == "image_url":
        return engine.pictures.of_address(body[way]), phrases
    return engine.pictures.of_base64(body[way]), phrases


async def _form(request: web.Request) -> tuple[Picture, Any]:
    # `phrases` may come several times, each time a phrase, or once as a JSON list.
    picture: Picture | None = None
    phrases: list[str] = []
    loop = asyncio.get_running_loop()
    stream = StreamReader(BaseProtocol(loop), 2**16, loop=loop)
    stream.feed_data(request["body"])
    stream.feed_eof()
    try:
        reader = MultipartReader(request.headers, stream)
        while part := await reader.next():
            assert isinstance(part, BodyPartReader)  # else it is a form in the form
            data = bytes(await part.read(decode=True))
            if part.name == "image" and part.filename:
                picture = Picture(part.filename, data=data)
            elif part.name == "phrases":
                phrases.append(data.decode())
        if len(phrases) == 1 and phrases[0].lstrip().startswith("["):
            phrases = parse_value(phrases[0])
    except Exception:  # aiohttp raises all kinds on a form that is broken
        raise WrongRequest("the form, or the JSON list of its `phrases`, can't be read") from None
    if picture is None:
        raise WrongRequest("the form should have a file `image`")
    return picture, phrases
