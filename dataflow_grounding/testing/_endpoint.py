"""What the played endpoint replies to a request: key, limits, faults, then the answer.

There are no sockets here.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.serving.serving import Usage
from dataflow_grounding.testing._connection import Head, response
from dataflow_grounding.testing.answers import IMAGES, NOTHING, Answers, EchoAnswers
from dataflow_grounding.testing.dialects import Answer, Dialect, Gemini, OpenAI, read_input
from dataflow_grounding.testing.faults import (
    Fault,
    FaultRule,
    first_of,
    model_not_found,
    too_many_requests,
    unauthorized,
)
from dataflow_grounding.testing.received import BadRequest, ReceivedRequest, read_image

DIALECTS: dict[str, Dialect] = {"openai": OpenAI(), "gemini": Gemini()}
# "/v1/chat/completions", Azure's "/openai/deployments/MODEL/chat/completions", and Gemini's
# "/v1beta/models/MODEL:generateContent".
SERVED_PATH = re.compile(
    r"(/openai)?/v1/chat/completions|/openai/deployments/(?P<azure>.+)/chat/completions"
    r"|/v1(beta)?/models/(?P<gemini>.+):generateContent"
)
KEY_HEADERS = ("authorization", "api-key", "x-goog-api-key")  # of OpenAI, Azure and Gemini
IMAGE_TOKENS = 1000  # what an image counts
CACHE_WINDOW = 64  # a beginning counts as cached if one of the last 64 requests had it, too


@dataclass(slots=True)
class Exchange:
    """A request, and what is sent for it. `Endpoint.plan` fills it; `LoopbackServer` sends it."""

    request: ReceivedRequest
    dialect: Dialect
    fault: Fault = field(default_factory=Fault)
    status: int = 200
    wire: bytes = b""  # of the reply, head and body
    delay: float = 0.0  # seconds until it is sent
    counted: bool = True  # whether it is a request to a model, not for the list of models
    served: bool = False  # whether it takes a place of the server's capacity


class Counts:
    """What a played endpoint has counted."""

    def __init__(self) -> None:
        self.received = 0  # requests to a model
        self.paid = 0  # replies of status 200 that were sent whole
        self.abandoned = 0  # requests whose reply didn't leave whole
        self.in_flight = 0
        self.max_in_flight = 0
        self.served_now = 0  # requests that take a place of the capacity
        self.bytes_received = 0  # of bodies
        self.by_status: Counter[int] = Counter()
        self.by_task: Counter[str] = Counter()
        self.errors: list[Exception] = []  # what the answers or rules raised

    def count_request(self, size: int) -> None:
        self.received += 1
        self.bytes_received += size
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def count_reply(self, status: int, replies: int) -> None:
        """Count replies as sent; -1 takes back one that did not leave whole after all."""
        self.by_status[status] += replies
        if 200 <= status < 300:
            self.paid += replies


@dataclass(eq=False)
class Endpoint(Counts):
    """Settings, counts and replies of a played endpoint; see LoopbackServer."""

    answers: Answers = field(default_factory=EchoAnswers)
    _: KW_ONLY
    faults: Sequence[FaultRule] | FaultRule = ()
    latency: float | Callable[[ReceivedRequest], float] = 0.0
    capacity: int | None = None
    limit_fault: Fault = field(default_factory=too_many_requests)
    takes: FaultRule | None = None
    key: str | None = None
    models: Sequence[str] | None = None
    record: bool = True
    keep_bodies: bool = False
    port: int = 0

    def __post_init__(self) -> None:
        """Read all of a request if it is recorded or kept, else what the answers look at."""
        super().__init__()
        if self.record or self.keep_bodies:
            self._reads = IMAGES  # the most: input and images
        else:
            self._reads = getattr(self.answers, "reads", IMAGES)
        # By a hash of system message and pictures, the number of the last request that had them.
        self._beginnings: dict[int, int] = {}

    def plan(self, head: Head, body: bytes) -> Exchange:
        """Count a request, and return what is sent: a 500 where the answers or rules raise."""
        request = ReceivedRequest(self.received, time.monotonic(), head.target, head.headers)
        exchange = Exchange(request, DIALECTS[request.dialect])
        asks_for_list = head.method == "GET" and urlsplit(head.target).path.endswith("/models")
        exchange.counted = not asks_for_list
        if exchange.counted:
            self.count_request(len(body))
        try:
            exchange.fault = self._decide(exchange, head, body)  # sets `wire` if there is a reply
        except BadRequest as error:
            exchange.fault = Fault(error.status, str(error))
        except Exception as error:
            self.errors.append(error)
            exchange.fault = Fault(500, f"the server's own answers failed: {error!r}")
        request.encoded_images = ()  # with them, recorded requests would fill the memory
        has_reply = bool(exchange.wire)
        if not has_reply:
            self._put_error_on_wire(exchange)
        return exchange

    def _decide(self, exchange: Exchange, head: Head, body: bytes) -> Fault:
        """Put the reply into `exchange.wire`; it stays empty if the returned fault has a status."""
        if not self._has_key(head):
            return unauthorized()
        if not exchange.counted:  # it asks for the list of models
            models = exchange.dialect.models(self.models or ["loopback"])
            exchange.wire = response(200, _dump(models))
            return Fault()
        exchange.request.model = _model_in(head)
        if self._reads != NOTHING:
            self._read(exchange, body)
        if self.capacity is not None and self.served_now >= self.capacity:
            return self.limit_fault
        nothing_wrong = Fault()
        fault = self._fault_for(exchange.request) or nothing_wrong
        exchange.served = True
        self.served_now += 1  # until the reply has left: `LoopbackServer` gives the place back
        exchange.delay = self.latency(exchange.request) if callable(self.latency) else self.latency
        if fault.status is None:
            exchange.wire = self._answer(exchange, fault)
        return fault

    def _fault_for(self, request: ReceivedRequest) -> Fault | None:
        """By a rule, or a refusal."""
        rule = self.faults if callable(self.faults) else first_of(self.faults)
        fault = rule(request)
        if fault is not None:
            return fault
        if self._reads == NOTHING:  # what is refused is in the body
            return None
        if self.models and request.model not in self.models:
            return model_not_found()
        if request.settings.get("stream"):
            return Fault(400, "This server does not stream.", "unsupported_value", "stream")
        return self.takes(request) if self.takes else None

    def _has_key(self, head: Head) -> bool:
        if self.key is None:
            return True
        keys = [head.headers.get(name, "").removeprefix("Bearer ") for name in KEY_HEADERS]
        keys += parse_qs(urlsplit(head.target).query).get("key", [])
        return self.key in keys

    def _read(self, exchange: Exchange, body: bytes) -> None:
        """Fill in the request from its body."""
        request = exchange.request
        try:
            fields = json.loads(body)
            pictures = exchange.dialect.read(fields, request)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise BadRequest(
                f"We could not parse the JSON body of your request: {error!r}"
            ) from None
        request.encoded_images = tuple(pictures)
        request.input = read_input(request.text)
        if self._reads == IMAGES:
            request.images = tuple(map(read_image, pictures))
        if self.keep_bodies:
            request.body = fields
        self.by_task[request.task] += 1

    def _answer(self, exchange: Exchange, fault: Fault) -> bytes:
        """The reply's bytes: what the answers say, changed by the fault's `change`, if any."""
        request = exchange.request
        answer = _as_answer(self.answers(request))
        if fault.change:
            answer = fault.change(answer)
        asked_tier = request.settings.get("service_tier")
        if answer.tier is None and asked_tier is not None:
            answer = replace(answer, tier=str(asked_tier))
        usage = answer.usage or self._usage(request, answer)
        reply = exchange.dialect.reply(answer, request.model, request.index, usage)
        headers = {**exchange.dialect.headers(answer), **fault.headers}
        return response(200, _dump(reply), headers)

    def _usage(self, request: ReceivedRequest, answer: Answer) -> Usage:
        """Four characters count as a token; the beginning of a request is cached."""
        output_tokens = len(answer.text) // 4
        if self._reads == NOTHING:  # the input counts as one image
            return Usage(IMAGE_TOKENS, output_tokens=output_tokens)
        pictures = request.encoded_images
        beginning_tokens = len(request.system) // 4 + IMAGE_TOKENS * len(pictures)
        input_tokens = beginning_tokens + len(request.text) // 4
        beginning = hash((request.system, *pictures))
        last_received = self._beginnings.get(beginning)
        self._beginnings[beginning] = self.received
        cached_tokens = 0
        is_long = bool(pictures)  # endpoints cache only long beginnings
        if is_long and last_received is not None:
            requests_since = self.received - last_received
            if requests_since <= CACHE_WINDOW:
                cached_tokens = beginning_tokens
        return Usage(input_tokens, cached_tokens, output_tokens)

    def _put_error_on_wire(self, exchange: Exchange) -> None:
        request = exchange.request
        fault = exchange.fault
        if fault.status == 401 and request.dialect == "gemini":
            # For a wrong key, Gemini's service sends a 400.
            message = "API key not valid. Please pass a valid API key."
            fault = replace(fault, status=400, message=message, code="API_KEY_INVALID")
        status = fault.status or 500
        error = exchange.dialect.error(
            status, fault.message, fault.code, fault.param, fault.retry_after
        )
        exchange.status = status
        body = _dump(error) if fault.body is None else fault.body
        headers = {**fault.headers, **_headers_on_waiting(fault)}
        exchange.wire = response(status, body, headers)


def _as_answer(answer: Answer | str | JsonObject) -> Answer:
    """Text and dict become an Answer; what is none of these fails where it is looked at."""
    if isinstance(answer, Mapping):
        answer = json.dumps(dict(answer), ensure_ascii=False)
    return Answer(answer) if isinstance(answer, str) else answer


def _headers_on_waiting(fault: Fault) -> dict[str, str]:
    """Return when to try again: in seconds, or as a date next to the date of now."""
    if fault.retry_after is None:
        return {}
    if fault.http_date:
        then = formatdate(time.time() + fault.retry_after, usegmt=True)
        return {"Retry-After": then, "Date": formatdate(usegmt=True)}
    return {"Retry-After": f"{fault.retry_after:g}"}


def _model_in(head: Head) -> str:
    """The model that the path names; empty where it names none: then the body names it."""
    target = urlsplit(head.target)
    match = SERVED_PATH.fullmatch(target.path) if head.method == "POST" else None
    if match is not None and match["azure"] and "api-version" not in parse_qs(target.query):
        match = None  # Azure refuses a request whose address has no `?api-version=…`
    if match is None:
        raise BadRequest(f"no such path: {head.method} {target.path}", 404)
    return match["azure"] or match["gemini"] or ""


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
