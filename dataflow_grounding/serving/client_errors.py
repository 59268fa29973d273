"""What the errors of HTTP clients mean: of those that carry our requests, and of whichever client
a serving of the user's own sends with.

`answer` should raise the errors that `Serving` names. Many don't translate those of the client that
they send with: a time limit or a busy endpoint would then fail a record for good.
"""

import errno
import http.client
import math
import socket
import ssl
from contextlib import suppress
from typing import Any, TypeGuard

from dataflow_grounding._util.errors import (
    SHORT,
    EndpointRefused,
    EndpointUnreachable,
    GroundingError,
    RateLimited,
    ServerFault,
    machine_fault,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.serving.http_errors import error_of, with_causes

CONNECT_SECONDS = 20.0  # until a connection has to be there
NO_ADDRESS = "no address"
NO_CONNECTION_IN_TIME = "no connection in time"
NO_CONNECTION = "no connection"
NO_ANSWER_IN_TIME = "no answer in time"
BROKEN_OFF = "broken off"
# Clients are recognized by the names of their errors' classes, because none has to be installed:
# aiohttp, httpx, requests, urllib3, botocore, and the openai and anthropic packages. An error is of
# several classes: the first row that has one of them counts.
_TABLE = [
    (NO_ADDRESS, {"InvalidURL"}),
    (NO_CONNECTION_IN_TIME, {"ConnectionTimeoutError", "ConnectTimeout", "ConnectTimeoutError"}),
    (
        NO_CONNECTION,
        {"ClientConnectorError", "ConnectError", "EndpointConnectionError", "NewConnectionError"},
    ),
    (NO_ANSWER_IN_TIME, {"APITimeoutError", "Timeout", "TimeoutError", "TimeoutException"}),
    (
        BROKEN_OFF,
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
            "TransportError",
            "URLError",
        },
    ),
]
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
    return fault_of(error, where) if _kind_of(error) else None


def fault_of(
    error: BaseException, where: str, timeout: float = math.inf
) -> EndpointRefused | ServerFault:
    """Return what an HTTP client's error means."""
    kind = _kind_of(error)
    if kind == NO_ADDRESS:
        return EndpointRefused(f"{where} is not an address: check it")
    if kind == NO_CONNECTION_IN_TIME:
        return EndpointUnreachable(
            f"no connection to {where} within {min(timeout, CONNECT_SECONDS):g} s"
        )
    if kind == NO_ANSWER_IN_TIME:
        within = f"within {timeout:g} s" if timeout < math.inf else "in time"
        return ServerFault(f"{where} did not answer {within}")
    # A refused connection may be only the cause of the error, as in requests and openai.
    if any(_kind_of(cause) == NO_CONNECTION for cause in with_causes(error)):
        return _no_connection(error, where)
    reason = excerpt(str(error), LONGEST_MESSAGE) or type(error).__name__
    return ServerFault(f"{where}: the answer broke off: {reason}")


def _kind_of(error: BaseException) -> str:
    """Return the row of _TABLE that an error is of; "" for none."""
    if isinstance(error, _REFUSED) or (isinstance(error, OSError) and error.errno in _NO_ROUTE):
        return NO_CONNECTION
    class_names = {base.__name__ for base in type(error).__mro__}
    for kind, names in _TABLE:
        if not names.isdisjoint(class_names):
            return kind
    return BROKEN_OFF if isinstance(error, http.client.HTTPException) else ""


def _no_connection(error: BaseException, where: str) -> ServerFault:
    """A cause of the error says more: one of `ssl`, or one of the system with an `errno`."""
    causes = list(with_causes(error))
    ssl_error = next((cause for cause in causes if hasattr(cause, "verify_message")), None)
    why_not_trusted = getattr(ssl_error, "verify_message", None)
    if why_not_trusted:
        return EndpointUnreachable(
            f"this machine does not trust the certificate of {where}:"
            f" {excerpt(why_not_trusted, 200)} (an authority of your own: name its file in"
            " SSL_CERT_FILE)"
        )
    system_error = next((cause for cause in causes if getattr(cause, "errno", None)), None)
    error_number = getattr(system_error, "errno", None)
    reason = excerpt(getattr(system_error, "strerror", None) or str(error), 200)
    if error_number in SHORT:  # too many open files, no memory: the engine waits
        return RateLimited(f"this machine has no room for another connection: {reason}")
    if error_number == errno.ECONNREFUSED:
        reason = "Connection refused"  # libraries have longer words for it
    return EndpointUnreachable(f"no connection to {where}: {reason}")


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
