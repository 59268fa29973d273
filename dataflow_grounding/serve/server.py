"""The server: whom it answers, how much may wait, and how it ends."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import signal
import socket
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from dataflow_grounding._util.errors import GroundingError, InputError, SpecError
from dataflow_grounding._util.secrets import learn
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.results_elsewhere import at_work
from dataflow_grounding.serve import _json, _label_studio, _x_anylabeling
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.pictures import Pictures
from dataflow_grounding.serve.plan import ServedJob
from dataflow_grounding.serve.service import Service, sentence, status_of

RETRY_SECONDS = 2  # after which a client whose request didn't fit in the queue may come again
DIALECTS = (_json, _label_studio, _x_anylabeling)


class Server:
    """Serves a job over HTTP until it is interrupted.

    Args:
        job: What is served.
        pictures: Where pictures may come from.
        host: The name or address that it listens at.
        port: 0 for a free one.
        token: What clients have to send; empty for none, on this machine alone.
        queue: How many requests may wait while as many as the engine takes are at work.
        timeout: Seconds that a request waits for its answer.
        most_bytes: Of a request's body.

    Attributes:
        address: Where it listens.

    Raises:
        SpecError: Others could reach it, and no token is set.
        InputError: The port is taken.
    """

    def __init__(
        self,
        job: ServedJob,
        pictures: Pictures,
        *,
        host: str,
        port: int,
        token: str,
        queue: int,
        timeout: float,
        most_bytes: int,
    ) -> None:
        if not token and not _is_here(host):
            raise SpecError(
                f"--host {host} is reached by others: set DF_SERVE_TOKEN or --token to what they"
                " have to send"
            )
        learn(token)
        self._job = job
        self._pictures = pictures
        self._token = token
        self._queue = queue
        self._timeout = timeout
        self._most_bytes = most_bytes
        self._inside = 0
        self._socket = _listening(host, port)
        shown_host = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown_host}:{self._socket.getsockname()[1]}"

    def run(self) -> None:
        """Answer until SIGINT or SIGTERM; then finish what is in flight. A second one ends it.

        Raises FolderTaken, StorageFailed, and KeyboardInterrupt at a second signal.
        """
        # aiohttp refuses what is no HTTP itself, and would print a traceback for each.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        with at_work(self._job.folder):
            asyncio.run(self._run())

    async def _run(self) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        this_task = asyncio.current_task()
        assert this_task is not None

        def end() -> None:
            if ended.is_set():
                this_task.cancel()
            ended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, end)
        engine = Engine(self._job)
        engine.open()
        service = Service(engine, self._pictures, self._timeout)
        runner = web.AppRunner(self._app(service), access_log=None, shutdown_timeout=self._timeout)
        try:
            await runner.setup()
            await web.SockSite(runner, self._socket, backlog=1024).start()
            say(self.address, err=False)
            settling = asyncio.create_task(engine.settle_at_start())
            await ended.wait()
            say("Finishing what is in flight; Ctrl-C once more ends at once.")
            await runner.cleanup()
            await service.finish()
            await settling
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            await engine.close()
            self._pictures.close()

    def _app(self, service: Service) -> web.Application:
        self._most_inside = service.engine.at_once + self._queue
        app = web.Application(middlewares=[self._guarded], client_max_size=self._most_bytes)
        for dialect in DIALECTS:
            app.add_routes(dialect.routes(service))
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Whatever goes wrong becomes one sentence, never a traceback.
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        self._inside += 1
        try:
            return await handler(request)
        except GroundingError as error:
            status, seconds = status_of(error)
            return _told(request, status, sentence(error), seconds)
        except web.HTTPRequestEntityTooLarge:
            return _told(request, 413, f"the body has more than {self._most_bytes:,} bytes")
        except web.HTTPException as error:
            return _told(request, error.status, _of_http(request, error))
        except ConnectionError:  # it left in the middle of its request: nobody reads an answer
            return web.Response(status=400)
        except Exception as error:
            say(f"Internal error: {type(error).__name__}: {error}")
            return _told(request, 500, f"internal error: {type(error).__name__}")
        finally:
            self._inside -= 1

    def _refusal(self, request: web.Request) -> web.Response | None:
        # A page of the web that the user has open may send forms to this machine, but not without
        # saying where it comes from, and never with the token.
        if self._token:
            if not self._has_token(request):
                response = _told(request, 401, "the token is missing or wrong")
                response.headers["WWW-Authenticate"] = 'Basic realm="dataflowgrounding"'
                return response
        elif "Origin" in request.headers or not _is_here(request.url.host or ""):
            return _told(request, 403, "pages of the web may not ask: set a token for those")
        if self._inside >= self._most_inside:
            return _told(request, 429, "too many requests wait: try again later", RETRY_SECONDS)
        return None

    def _has_token(self, request: web.Request) -> bool:
        # As a bearer's token, as the password of basic auth (Label Studio), or in the header
        # `Token` (X-AnyLabeling).
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        sent = [request.headers.get("Token", "")]
        if kind.lower() in ("bearer", "token"):
            sent.append(value.strip())
        elif kind.lower() == "basic":
            try:
                decoded = base64.b64decode(value, validate=True).decode("utf-8", "replace")
            except binascii.Error:
                decoded = ""
            sent.append(decoded.partition(":")[2])
        expected = self._token.encode()
        right = [hmac.compare_digest(text.encode(), expected) for text in sent]
        return True in right  # all are compared, whichever is right


def _told(
    request: web.Request, status: int, text: str, retry_after: float | None = None
) -> web.Response:
    # In the reason, too: the labelling tools show that, and not the body.
    headers: Mapping[str, str] = {}
    if retry_after is not None:
        headers = {"Retry-After": str(max(1, round(retry_after)))}
    body: dict[str, object] = {"error": text}
    if request.path.startswith("/v1/"):
        code = HTTPStatus(status).name
        body = {"success": False, "error": {"code": code, "message": text}}
    reason = text[:300].encode("ascii", "replace").decode()
    return web.json_response(body, status=status, reason=reason, headers=headers)


def _of_http(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"no route {request.path[:100]}"
    if error.status == 405:
        return f"{request.path[:100]} takes no {request.method}"
    return error.reason


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"can't listen on {host}, port {port}: {why}") from None
