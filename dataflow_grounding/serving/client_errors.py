"""What an error means that a serving of the user's own lets through, of whichever HTTP client.

`answer` should raise the errors that `Serving` names. Many don't translate those of the client that
they send with: a time limit or a busy endpoint would then fail a record for good.
"""

import asyncio
import http.client
import socket
from contextlib import suppress
from typing import Any

from dataflow_grounding._util.errors import EndpointUnreachable, GroundingError, ServerFault
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.serving.http_errors import error_of

# Clients are told by the names of their errors' classes, as none of them needs to be installed:
# aiohttp's, httpx's, those of requests and urllib3, of the openai and anthropic packages.
_NO_CONNECTION = frozenset({"ClientConnectorError", "ConnectError", "ConnectTimeout", "URLError"})
_BROKEN_OFF = frozenset(
    {
        "APIConnectionError",
        "ChunkedEncodingError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "ProtocolError",
        "ServerTimeoutError",
        "Timeout",
        "TransportError",
    }
)
_SYSTEM_ERRORS = (ConnectionError, TimeoutError, asyncio.TimeoutError, http.client.HTTPException)
LONGEST_MESSAGE = 200  # characters of the client's words that are shown


def fault_of_client(error: Exception, where: str) -> GroundingError | None:
    """Return what an error of an HTTP client means; None for what is no such error.

    That is, for an answer with a status, what `error_of` returns; EndpointUnreachable where no
    connection came about; ServerFault where one broke off, or nothing came in time.

    Args:
        error: What `Serving.answer` raised.
        where: Serving and model, with which the message begins.

    Example:
        >>> fault_of_client(TimeoutError("no answer"), "MyServing (my-model)")
        ServerFault('MyServing (my-model): TimeoutError: no answer')
        >>> fault_of_client(KeyError("choices"), "MyServing (my-model)")
    """
    status = _status_of(error)
    if status is not None:
        return error_of(status, _headers_of(error), _body_of(error), where=where)
    class_names = {base.__name__ for base in type(error).__mro__}
    words = excerpt(str(error), LONGEST_MESSAGE)
    message = f"{where}: {type(error).__name__}" + (f": {words}" if words else "")
    no_connection = isinstance(error, (ConnectionRefusedError, socket.gaierror))
    if no_connection or class_names & _NO_CONNECTION:
        return EndpointUnreachable(message)
    if isinstance(error, _SYSTEM_ERRORS) or class_names & _BROKEN_OFF:
        return ServerFault(message)
    return None


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status of the answer that an error is about; None where it names none."""
    response = getattr(error, "response", None)
    # in order: openai, httpx and requests; anthropic; aiohttp; urllib
    candidates = [
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "status", None),
        getattr(error, "code", None),
    ]
    for status in candidates:
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600:
            return status
    return None


def _headers_of(error: Exception) -> dict[str, str]:
    """Return the headers of the answer that an error is about, by their names in lower case."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if headers is None:
        headers = getattr(error, "headers", None)
    with suppress(Exception):  # a stranger's object
        return {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
    return {}


def _body_of(error: Exception) -> bytes:
    """Return the body of the answer that an error is about, or else the error's words."""
    with suppress(Exception):  # one that was never read raises an error of its own
        response: Any = getattr(error, "response", None)
        content = response.content
        if isinstance(content, bytes) and content:
            return content
    return str(error).encode("utf-8", "replace")
