"""The plain route: `POST /ground`, a picture and phrases in, the record out."""

from typing import Any

from aiohttp import web

from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.data.records import parse_value
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Picture, WrongRequest, phrases_of, read_json


def routes(engine: Engine) -> list[web.RouteDef]:
    """Return the routes of this dialect."""

    async def ground(request: web.Request) -> web.Response:
        is_form = request.content_type == "multipart/form-data"
        picture, phrases = await (_form(request) if is_form else _object(engine, request))
        return web.json_response(await engine.ground(request, picture, phrases))

    return [web.post("/ground", ground)]


async def _object(engine: Engine, request: web.Request) -> tuple[Picture, list[str]]:
    body = await read_json(request)
    ways = ("image", "image_path", "image_url")
    given = [way for way in ways if body.get(way) is not None]
    if len(given) != 1:
        raise WrongRequest(f"the request should have one of {', '.join(ways)}")
    phrases = phrases_of(body.get("phrases"))
    [way] = given
    if way == "image_path":
        return engine.pictures.of_path(body[way]), phrases
    if way == "image_url":
        return await engine.pictures.of_address(body[way]), phrases
    return engine.pictures.of_base64(body[way]), phrases


async def _form(request: web.Request) -> tuple[Picture, list[str]]:
    # `phrases` may come several times, each time a phrase, or once as a JSON list.
    try:
        form = await request.post()
        texts: list[Any] = form.getall("phrases", [])
        if len(texts) == 1 and str(texts[0]).lstrip().startswith("["):
            texts = parse_value(texts[0])
    except (ValueError, GroundingError):
        raise WrongRequest("the form, or the JSON list of its `phrases`, can't be read") from None
    file = form.get("image")
    if not isinstance(file, web.FileField):
        raise WrongRequest("the form should have a file `image`")
    return Picture(file.filename, data=file.file.read()), phrases_of(texts)
