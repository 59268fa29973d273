"""The server: whom it answers, how much may wait, and how it ends."""

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import socket
from http import HTTPStatus

from aiohttp import BasicAuth, web
from aiohttp.typedefs import Handler

from dataflow_grounding._util.errors import GroundingError, InputError, SpecError
from dataflow_grounding._util.secrets import blotted_message, learn
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.remote_results import locked_folder
from dataflow_grounding.serve import _json, _label_studio, _x_anylabeling
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.plan import ServedJob
from dataflow_grounding.serve.requests import AGAIN_SECONDS, Pictures, status_of


class Server:
    """Serves a job over HTTP until it is interrupted; port 0 is a free one.

    Clients have to send the token, where there is one. `queue` requests may wait, each for
    `timeout` seconds and with a body of `most_bytes`. Raises SpecError where others than this
    machine could reach it without a token, InputError where the port is taken.
    """

    queue = 256
    timeout = 90.0
    most_bytes = 64 * 2**20

    def __init__(
        self, job: ServedJob, pictures: Pictures, host: str, port: int, token: str
    ) -> None:
        if not token and not _is_here(host):
            way = "set DF_SERVE_TOKEN, or --token, to what they have to send"
            raise SpecError(f"--host {host} is reached by others: {way}")
        learn(token)
        self._job = job
        self._pictures = pictures
        self._token = token
        self._inside = 0  # requests that wait or are at work
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=1024)
        except OSError as error:
            raise InputError(f"can't listen on {host}:{port}: {error.strerror or error}") from None
        shown_host = f"[{host}]" if ":" in host else host
        self._address = f"http://{shown_host}:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        """Print the address, answer until SIGINT or SIGTERM, then finish what is in flight.

        A second signal ends the process at once, with 130. Raises FolderTaken, StorageFailed.
        """
        # aiohttp refuses what is no HTTP itself, and would print a traceback for each.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        with locked_folder(self._job.folder):
            asyncio.run(self._run())

    async def _run(self) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            ended.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                # The next one ends at once, even if a thread waits: each reply is in the store
                # as soon as it is there.
                signal.signal(number, lambda *_: os._exit(130))

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        engine = Engine(self._job, self._pictures, self.timeout)
        self._most_inside = engine.at_once + self.queue
        app = web.Application(middlewares=[self._guarded], client_max_size=self.most_bytes)
        for dialect in (_json, _label_studio, _x_anylabeling):
            app.add_routes(dialect.routes(engine))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=self.timeout)
        try:
            await runner.setup()
            await web.SockSite(runner, self._socket, backlog=1024).start()
            say(self._address, err=False)
            await ended.wait()
            say("Finishing what is in flight; Ctrl-C once more ends at once.")
            await runner.cleanup()
            await engine.finish()
        finally:
            await engine.close()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # What goes wrong becomes one sentence, never a traceback.
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        self._inside += 1
        try:
            return await handler(request)
        except GroundingError as error:
            status, seconds = status_of(error)
            return _told(request, status, str(error), seconds)
        except web.HTTPRequestEntityTooLarge:
            return _told(request, 413, f"the body has more than {self.most_bytes:,} bytes")
        except web.HTTPException as error:
            return _told(request, error.status, f"{error.reason}: {request.path[:100]}")
        except ConnectionError:  # it left in the middle of its request: nobody reads an answer
            return web.Response(status=400)
        except Exception as error:
            say(f"Internal error: {type(error).__name__}: {error}")
            return _told(request, 500, f"internal error: {type(error).__name__}")
        finally:
            self._inside -= 1

    def _refusal(self, request: web.Request) -> web.Response | None:
        # Without a token, a page of the web that the user has open could send forms to this
        # machine. Browsers say where such a form comes from.
        if self._token and not self._has_token(request):
            return _told(request, 401, "the token is missing or wrong")
        is_from_page = "Origin" in request.headers or not _is_here(request.url.host or "")
        if not self._token and is_from_page:
            return _told(request, 403, "pages of the web may not ask: set a token for those")
        if self._inside >= self._most_inside:
            return _told(request, 429, "too many requests wait: try again later", AGAIN_SECONDS)
        return None

    def _has_token(self, request: web.Request) -> bool:
        # As a bearer's token, as the password of basic auth (Label Studio), or in the header
        # `Token` (X-AnyLabeling).
        header = request.headers.get("Authorization", "")
        sent = [request.headers.get("Token", ""), header.partition(" ")[2]]
        try:
            sent.append(BasicAuth.decode(header).password)
        except ValueError:
            pass
        token = self._token.encode()
        right = [hmac.compare_digest(text.encode("utf-8", "replace"), token) for text in sent]
        return True in right  # all are compared, whichever is right


def _told(
    request: web.Request, status: int, text: str, retry_after: float | None = None
) -> web.Response:
    # In the reason, too, which the labelling tools show.
    line = blotted_message(" ".join(text.split()))
    body: dict[str, object] = {"error": line}
    if request.path.startswith("/v1/"):
        body = {"success": False, "error": {"code": HTTPStatus(status).name, "message": line}}
    reason = line[:300].encode("ascii", "replace").decode()
    response = web.json_response(body, status=status, reason=reason)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    return response


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
