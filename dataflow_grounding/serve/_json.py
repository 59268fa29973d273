"""The plain route: `POST /ground`, a picture and phrases in, the record out."""

from collections.abc import Callable

from aiohttp import web

from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Picture, WrongRequest, read_json


def routes(engine: Engine) -> list[web.RouteDef]:
    pictures = engine.pictures
    picture_by_key: dict[str, Callable[[object], Picture]] = {
        "image": pictures.of_base64,
        "image_path": pictures.of_path,
        "image_url": pictures.of_address,
    }

    async def ground(request: web.Request) -> web.Response:
        # {"image_path": "cups.jpg", "phrases": ["a cup"]}; the engine checks the phrases
        body = read_json(request)
        keys_sent = [key for key in picture_by_key if isinstance(body.get(key), str)]
        if len(keys_sent) != 1:
            keys = ", ".join(picture_by_key)
            raise WrongRequest(f"the request should have one of {keys}, as a text")
        [key] = keys_sent
        picture = picture_by_key[key](body[key])
        return web.json_response(await engine.ground(request, picture, body.get("phrases")))

    return [web.post("/ground", ground)]
