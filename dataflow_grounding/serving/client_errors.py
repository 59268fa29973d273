"""What an error means that a serving of the user's own lets through, of whichever HTTP client.

`answer` should raise the errors that `Serving` names. Many don't translate those of the client that
they send with: a time limit or a busy endpoint would then fail a record for good.
"""

import asyncio
import errno
import http.client
import socket
import ssl
from contextlib import suppress
from typing import Any, TypeGuard

from dataflow_grounding._util.errors import (
    EndpointUnreachable,
    GroundingError,
    ServerFault,
    machine_fault,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.serving.http_errors import error_of, with_causes

# Clients are recognized by the names of their errors' classes, because none has to be installed:
# aiohttp, httpx, requests, urllib3, botocore, and the openai and anthropic packages.
_NO_CONNECTION = frozenset(
    {
        "ClientConnectorError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "NewConnectionError",
    }
)
_BROKEN_OFF = frozenset(
    {
        "APIConnectionError",
        "ChunkedEncodingError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionClosedError",
        "ConnectionError",
        "HTTPClientError",
        "MaxRetryError",
        "ProtocolError",
        "SSLError",
        "ServerTimeoutError",
        "Timeout",
        "TimeoutError",
        "TransportError",
        "URLError",
    }
)
_SYSTEM_ERRORS = (
    ConnectionError,
    TimeoutError,
    asyncio.TimeoutError,
    http.client.HTTPException,
    ssl.SSLError,
)
_REFUSED = (ConnectionRefusedError, socket.gaierror)
# Numbers of the system's errors for an address that can't be reached.
_NO_ROUTE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN)
LONGEST_MESSAGE = 200  # characters of the client's words that are shown


def fault_of_client(error: Exception, where: str) -> GroundingError | None:
    """Return what an HTTP client's error means; None for an error that is no HTTP client's."""
    status = _status_of(error)
    if status is not None:
        return error_of(status, _headers_of(error), _body_of(error), where=where)
    if isinstance(error, ssl.SSLError) and machine_fault(error) is not None:
        return None  # OpenSSL's "malloc failure": this machine has too little memory
    if not (_is_no_connection(error) or _is_broken_off(error)):
        return None
    message = f"{where}: {type(error).__name__}"
    words = excerpt(str(error), LONGEST_MESSAGE)
    if words:
        message += f": {words}"
    # A refused connection may be only the cause of the error, as in requests and openai.
    if any(map(_is_no_connection, with_causes(error))):
        return EndpointUnreachable(message)
    return ServerFault(message)


def _class_names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _is_no_connection(error: BaseException) -> bool:
    if isinstance(error, _REFUSED) or not _NO_CONNECTION.isdisjoint(_class_names(error)):
        return True
    return isinstance(error, OSError) and error.errno in _NO_ROUTE


def _is_broken_off(error: BaseException) -> bool:
    return isinstance(error, _SYSTEM_ERRORS) or not _BROKEN_OFF.isdisjoint(_class_names(error))


def _status_of(error: Exception) -> int | None:
    """The status of the answer, such as 429; None where there is none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        metadata = response.get("ResponseMetadata")
        in_response = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    else:
        in_response = getattr(response, "status_code", None)  # openai, httpx and requests
    if _is_status(in_response):
        return in_response
    # The attributes of anthropic, aiohttp and urllib. `code` is last, because aiohttp warns of it.
    for name in ("status_code", "status", "code"):
        status = getattr(error, name, None)
        if _is_status(status):
            return status
    return None


def _is_status(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _headers_of(error: Exception) -> dict[str, str]:
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if headers is None:
        headers = getattr(error, "headers", None)
    with suppress(Exception):  # a stranger's object
        return {str(name).lower(): str(value) for name, value in dict(headers or {}).items()}
    return {}


def _body_of(error: Exception) -> bytes:
    with suppress(Exception):  # a body that was never read raises
        response: Any = getattr(error, "response", None)
        content = response.content
        if isinstance(content, bytes) and content:
            return content
    return str(error).encode("utf-8", "replace")
