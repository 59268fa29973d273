"""The server of a review's page on this machine: whom it answers, and what."""

import asyncio
import logging
import os
import secrets
import socket
import webbrowser

from aiohttp import web
from aiohttp.typedefs import Handler

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import parse_line
from dataflow_grounding.review._decisions import objects_under
from dataflow_grounding.review.session import SIDES, Session

_HEADERS = {  # of each answer, unless it has its own
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page states the rest itself
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MOST_BODY = 8 * 2**20  # bytes of decisions in a request


class ReviewServer:
    """Serves one session on 127.0.0.1.

    Every address begins with a token, and other names of this machine, other origins and other
    sites' pages are refused. Pictures are asked for by record, never by path. The port is taken
    when the server is made (InputError if it can't be); `run` answers.
    """

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        try:
            self._socket = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise InputError(f"can't listen on port {port}: {why}. Choose another --port") from None
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._token = secrets.token_urlsafe(24)
        self.address = f"{self.origin}/{self._token}/"

    def run(self, open_browser: bool = True) -> None:
        """Print the address on standard output, open it in a browser, and answer until Ctrl-C."""
        say(self.address, err=False)  # on standard output, for scripts
        if open_browser:
            webbrowser.open(self.address)
        # aiohttp refuses what is no HTTP itself, and would print a traceback for each such request.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        web.run_app(
            self.app(),
            sock=self._socket,
            print=lambda *_: None,  # aiohttp would say the address without the token
            access_log=None,
            shutdown_timeout=1,
        )

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=_MOST_BODY)
        app.router.add_get("/{token}/", self._page)
        app.router.add_get("/{token}/index", self._index)
        app.router.add_get("/{token}/records", self._records)
        copy_name = "{name:" + "|".join(SIDES) + "}"  # {name:small|large}
        app.router.add_get(
            # `place` is the index of a record
            "/{token}/picture/{place:[0-9]{1,9}}-" + copy_name + ".jpg",
            self._picture,
        )
        app.router.add_post("/{token}/decide", self._decide)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request only if it comes from this review's own page."""
        if not self._is_own_page(request):
            return web.Response(
                status=403, text="Only the page of this review may ask.", headers=_HEADERS
            )
        # `/TOKEN/next`; in bytes, because `compare_digest` takes no texts beyond ASCII
        token = request.path.split("/")[1].encode("utf-8", "surrogateescape")
        if not secrets.compare_digest(token, self._token.encode()):
            return web.Response(
                status=404, text="The address that `review` said has a token.", headers=_HEADERS
            )
        response = await _answer_of(handler, request)
        # The answer's own headers win: a picture has another Cache-Control.
        response.headers.update({**_HEADERS, **response.headers})
        return response

    def _is_own_page(self, request: web.Request) -> bool:
        own_host = self.origin.removeprefix("http://")
        # A site may have its own name lead to this machine: then `Host` is that name.
        is_this_host = request.host == own_host
        # These say which page asks; clients without a page, such as curl, send neither.
        is_this_origin = request.headers.get("Origin", self.origin) == self.origin
        is_from_here = request.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
        return is_this_host and is_this_origin and is_from_here

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="".join(self.session.page()), content_type="text/html")

    async def _index(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(text=self.session.index())

    async def _records(self, request: web.Request) -> web.StreamResponse:
        places = _numbers_in(request, "places")
        return web.json_response(self.session.records(places, *_numbers_in(request, "since")[:1]))

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        index = int(request.match_info["place"])
        if index >= len(self.session.reviewable.keys):
            raise web.HTTPNotFound
        data = await asyncio.to_thread(self.session.picture, index, request.match_info["name"])
        return web.Response(
            body=data, content_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"}
        )

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        # A form of another site can't send JSON, and the page's own requests always have `Origin`.
        if request.content_type != "application/json" or "Origin" not in request.headers:
            raise web.HTTPForbidden
        decisions = objects_under(parse_line(await request.read()), "decisions")
        since = _numbers_in(request, "since")[:1]
        return web.json_response(self.session.decide(decisions, *since))


def _numbers_in(request: web.Request, name: str) -> list[int]:
    """Return what an address says as `name`, such as `1,5,9`. Raises InputError."""
    texts = [text for text in request.query.get(name, "").split(",") if text]
    if not all(text.isdecimal() and len(text) <= 9 for text in texts):
        raise InputError(f"{name!r} should be numbers")
    return [int(text) for text in texts]


async def _answer_of(handler: Handler, request: web.Request) -> web.StreamResponse:
    try:
        return await handler(request)
    except GroundingError as error:
        return web.json_response({"error": str(error)}, status=400)
    except web.HTTPException as error:
        return web.Response(status=error.status, text=error.reason)
    except ConnectionError:  # it left in the middle of its request: nobody reads an answer
        return web.Response(status=400)
