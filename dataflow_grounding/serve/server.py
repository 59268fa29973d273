"""The server: whom it answers, how much may wait, and how it ends."""

import asyncio
import hmac
import ipaddress
import logging
import os
import signal
import socket
import warnings
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import BasicAuth, StreamReader, web
from aiohttp.typedefs import Handler
from yarl import URL

from dataflow_grounding._util import errors
from dataflow_grounding._util.secrets import learn
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.run_lock import locked_folder
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.serve import _json, _label_studio, _x_anylabeling
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.requests import Pictures, WrongRequest, status_of

AGAIN_SECONDS = 5  # after which to try again what may pass
QUEUE = 256  # how many requests may wait
SECONDS = 90  # that a body has to come, and then that a request may wait
BODY_MB = 64  # MiB of a body
BODIES = 8  # of the largest size, that all requests together may have in memory


@dataclass
class Server:
    """Serves a run over HTTP until it is interrupted; port 0 is a free one."""

    spec_run: SpecRun
    pictures: Pictures
    host: str
    port: int
    token: str  # that clients have to send, if it isn't empty

    def __post_init__(self) -> None:
        if not self.token and not _is_here(self.host):
            way = "set DF_SERVE_TOKEN, or --token, to what they have to send"
            raise errors.SpecError(f"--host {self.host} is reached by others: {way}")
        learn(self.token)  # so that it is masked where it would be shown
        self._bodies_coming: set[StreamReader] = set()  # bodies that aren't here yet
        self._bytes_held = 0  # of bodies in memory, of all requests
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with errors.errors_as(errors.InputError, f"can't listen on {self.host}:{self.port}"):
            self._socket = socket.create_server((self.host, self.port), family=family)
        port = self._socket.getsockname()[1]
        # An empty host is every IPv4 address of this machine.
        self._address = str(URL.build(scheme="http", host=self.host or "0.0.0.0", port=port))

    def run(self) -> None:
        """Answer until a signal, then finish what is in flight; a second one ends at once."""
        with suppress(KeyboardInterrupt):
            run_blocking(self._serve, signal.SIGINT, signal.SIGTERM)

    async def _serve(self) -> None:
        # aiohttp refuses what is no HTTP itself, and would print a traceback for each.
        logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="aiohttp")  # they quote what strangers send
        with locked_folder(self.spec_run.job.steps[0].storage.checkpoint_folder):
            engine = Engine(self.spec_run, self.pictures, SECONDS)
            # one for each request that is at work or waits
            self._places = asyncio.Semaphore(engine.at_once + QUEUE)
            app = web.Application(middlewares=[self._guarded])
            for dialect in (_json, _label_studio, _x_anylabeling):
                app.add_routes(dialect.routes(engine))
            app.cleanup_ctx.append(engine.working)
            app.on_shutdown.append(self._end)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=SECONDS)
            with suppress(asyncio.CancelledError):  # a signal
                await runner.setup()
                await web.SockSite(runner, self._socket, backlog=1024).start()
                say(self._address, err=False)
                await asyncio.Event().wait()
            try:
                await asyncio.shield(runner.cleanup())
            except asyncio.CancelledError:  # another one
                # `_exit` waits for no thread, and loses no reply: each is stored as soon as it
                # comes. 130 is a shell's code for a process that Ctrl-C has ended.
                os._exit(130)

    async def _end(self, _: web.Application) -> None:
        """Called at the first signal, before aiohttp waits for the requests in flight."""
        say("Finishing what is in flight; Ctrl-C once more ends at once.")
        for content in list(self._bodies_coming):  # nobody waits for bodies that may come slowly
            content.set_exception(WrongRequest("the service is ending", 503))

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What goes wrong becomes one sentence, never a traceback."""
        body = bytearray()  # `_read` fills it; it has only a part if `_read` refuses the rest
        try:
            self._refuse_strangers(request)
            await self._read(request, body)
            request["body"] = body
            if self._places.locked():
                raise WrongRequest("too many requests wait: try again later", 429)
            async with self._places:
                return await handler(request)
        except errors.GroundingError as error:
            return _answer_of(request, error)
        except ConnectionError:  # it left in the middle of its request: nobody reads an answer
            return web.Response(status=400)
        except Exception as error:
            return _answer_of(request, _as_wrong_request(error, request.path))
        finally:
            self._bytes_held -= len(body)  # `_read` has added as much

    async def _read(self, request: web.Request, body: bytearray) -> None:
        """Fill `body`. It takes none of `_places`: who sends slowly is in nobody's way."""
        late = WrongRequest(f"the body hasn't come in {SECONDS:g} s", 408)
        content = request.content
        # `readany` raises the exception that the timer or `_end` sets.
        timer = asyncio.get_running_loop().call_later(SECONDS, content.set_exception, late)
        self._bodies_coming.add(content)
        try:
            while chunk := await content.readany():
                body += chunk
                self._bytes_held += len(chunk)
                self._refuse_too_much(len(body))
        except web.RequestPayloadError:
            raise WrongRequest("the body isn't encoded as its headers say") from None
        finally:
            timer.cancel()
            self._bodies_coming.discard(content)

    def _refuse_too_much(self, body_bytes: int) -> None:
        if body_bytes > BODY_MB * 2**20:
            raise WrongRequest(f"the body has more than {BODY_MB} MiB", 413)
        if self._bytes_held > BODIES * BODY_MB * 2**20:
            raise WrongRequest("other requests take all memory: try again later", 429)

    def _refuse_strangers(self, request: web.Request) -> None:
        if self.token:
            if not self._has_token(request):
                raise WrongRequest("the token is missing or wrong", 401)
            return
        # Without a token, two things are refused:
        # - A page of the web, open in the user's browser, sends a form here. Then the browser sends
        #   `Origin`.
        # - A site has its own name lead to this machine, to read the answers. Then the request's
        #   host is that name.
        is_of_page = "Origin" in request.headers
        host = None
        with suppress(ValueError):  # the header `Host` is no address
            host = request.url.host
        if is_of_page or not _is_here(host or ""):
            raise WrongRequest("pages of the web may not ask: set a token for those", 403)

    def _has_token(self, request: web.Request) -> bool:
        """As a bearer's, as basic auth's password (Label Studio) or in `Token` (X-AnyLabeling)."""
        header = request.headers.get("Authorization", "")
        _, _, after_scheme = header.partition(" ")  # "Bearer TOKEN"
        sent_tokens = [request.headers.get("Token", ""), after_scheme]
        with suppress(ValueError):  # it is no basic auth
            sent_tokens.append(BasicAuth.decode(header).password)
        token = self.token.encode()
        # All are compared, and each in a time that doesn't depend on where it differs: so the time
        # tells nothing of the token.
        are_equal = []
        for sent in sent_tokens:
            are_equal.append(hmac.compare_digest(sent.encode("utf-8", "replace"), token))
        return any(are_equal)


def _as_wrong_request(error: Exception, path: str) -> WrongRequest:
    if isinstance(error, web.HTTPException):  # no such path, for instance
        return WrongRequest(f"{error.reason}: {path[:100]}", error.status)
    if isinstance(error, UnicodeEncodeError):
        return WrongRequest("a text has half of a surrogate pair")
    name = type(error).__name__
    say(f"Internal error: {name}: {error}")
    return WrongRequest(f"internal error: {name}", 500)


def _answer_of(request: web.Request, error: errors.GroundingError) -> web.Response:
    """The error is the reason of the status line, too, which the labelling tools show."""
    status = status_of(error)
    line = " ".join(str(error).split())
    body: dict[str, object] = {"error": line}
    if request.path.startswith("/v1/"):  # as X-AnyLabeling has it
        body = {"success": False, "error": {"code": HTTPStatus(status).name, "message": line}}
    reason = line[:300].encode("ascii", "replace").decode()
    response = web.json_response(body, status=status, reason=reason)
    # What stopped the asking, such as a budget that is used up, needn't pass in some seconds.
    may_pass = status in (429, 503) and not isinstance(error, errors.RunStopped)
    if may_pass:
        seconds = getattr(error, "retry_after", None) or AGAIN_SECONDS
        response.headers["Retry-After"] = str(max(1, round(seconds)))
    return response


def _is_here(host: str) -> bool:
    """Whether only this machine can reach a server at that host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
