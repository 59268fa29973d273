"""What the played endpoint replies to a request: key, limits, faults, then the answer; no sockets here."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dataflow_grounding.testing.answers import IMAGES, NOTHING, Answers, EchoAnswers
from dataflow_grounding.testing.connection import Head, response
from dataflow_grounding.testing.dialects import Answer, Dialect, Gemini, OpenAI, Question, Usage, read_input
from dataflow_grounding.testing.faults import (
    Fault,
    FaultRule,
    bad_request,
    first_of,
    model_not_found,
    too_many_requests,
    unauthorized,
)
from dataflow_grounding.testing.received import BadRequest, ReceivedImage, ReceivedRequest, cut_pictures, read_image
from dataflow_grounding.testing.takes import Takes

OPENAI, GEMINI = OpenAI(), Gemini()
CHAT_PATHS = ("/v1/chat/completions", "/openai/v1/chat/completions")
AZURE_START, AZURE_END = "/openai/deployments/", "/chat/completions"
KEY_HEADERS = ("authorization", "api-key", "x-goog-api-key")
IMAGE_TOKENS = 1000
CACHE_WINDOW = 64
Latency = float | Callable[[ReceivedRequest], float]


@dataclass(slots=True)
class Exchange:
    """A request, and the reply planned for it: `wire` holds the response's bytes, to be sent after `delay` seconds.

    `served` tells that it counts towards the capacity until it ends, `counted` that it shows in the counts.
    """

    request: ReceivedRequest
    dialect: Dialect
    fault: Fault = field(default_factory=Fault)
    status: int = 200
    wire: bytes = b""
    delay: float = 0.0
    counted: bool = True
    served: bool = False


@dataclass(eq=False)
class Endpoint:
    """The settings of a played endpoint, all of them free to be set anew while it runs, and its replies.

    `answers` answers (see `Answers`). `faults` are rules made with `on(…)`, or any function from request to Fault.
    `latency` is in seconds. What comes while `capacity` requests are being served gets `limit_fault`. `takes` is what it
    refuses. `key` is the only key that is taken, `models` are the only models; None takes all. `leaky` repeats the key in
    every error, as some endpoints do.
    `record` is for requests to be looked at later: without it bodies are read only as far as the answers need.
    `keep_bodies` keeps their JSON, too. Lists of models are free: neither counted nor recorded.
    """

    answers: Answers = field(default_factory=EchoAnswers)
    faults: Sequence[FaultRule] | FaultRule = field(default=(), kw_only=True)
    latency: Latency = field(default=0.0, kw_only=True)
    capacity: int | None = field(default=None, kw_only=True)
    limit_fault: Fault = field(default_factory=too_many_requests, kw_only=True)
    takes: Takes = field(default_factory=Takes, kw_only=True)
    key: str | None = field(default=None, kw_only=True)
    models: Sequence[str] | None = field(default=None, kw_only=True)
    leaky: bool = field(default=False, kw_only=True)
    record: bool = field(default=True, kw_only=True)
    keep_bodies: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self.received = self.paid = self.abandoned = self.in_flight = self.max_in_flight = self.bytes_received = 0
        self.by_status: Counter[int] = Counter()
        self.by_task: Counter[str] = Counter()
        self.errors: list[Exception] = []
        self.serving = 0
        reads = IMAGES if self.record or self.keep_bodies else getattr(self.answers, "reads", IMAGES)
        self.reads_body, self._reads_images = reads != NOTHING, reads == IMAGES
        self._images: dict[int, ReceivedImage] = {}
        self._beginnings: dict[int, int] = {}

    def plan(self, head: Head, body: bytes | None) -> Exchange:
        """The reply to one request; `body` is None where bodies are not read."""
        dialect: Dialect = GEMINI if "/v1beta" in head.target or ":generateContent" in head.target else OPENAI
        request = ReceivedRequest(self.received, time.monotonic(), dialect.name, head.target, head.headers)
        exchange = Exchange(request, dialect)
        exchange.counted = not (head.method == "GET" and urlsplit(head.target).path.endswith("/models"))
        if exchange.counted:
            self.received += 1
            self.bytes_received += head.length
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            self._decide(exchange, head, body)
        except NotServed as error:
            self._fail(exchange, Fault(404, str(error)))
        except BadRequest as error:
            self._fail(exchange, bad_request(str(error)))
        except Exception as error:
            self.errors.append(error)
            self._fail(exchange, Fault(500, f"the server's own answers failed: {error!r}"))
        return exchange

    def _decide(self, exchange: Exchange, head: Head, body: bytes | None) -> None:
        if not self._has_key(head):
            return self._fail(exchange, unauthorized())
        if not exchange.counted:
            exchange.wire = response(200, _dump(exchange.dialect.models(self.models or ["loopback"])))
            return None
        model = _model_in(head)
        question = self._read(exchange, model, body) if body is not None else None
        if self._is_full(exchange):
            return self._fail(exchange, self.limit_fault)
        rule = self.faults if callable(self.faults) else first_of(self.faults)
        fault = rule(exchange.request)
        if fault is None and question is not None:
            known = not self.models or question.model in self.models
            fault = self.takes.refuses(exchange.request, len(question.pictures)) if known else model_not_found()
        exchange.served = True
        self.serving += 1
        latency = self.latency
        exchange.delay = latency(exchange.request) if callable(latency) else latency
        if fault and fault.status is not None:
            return self._fail(exchange, fault)
        exchange.fault = fault or Fault()
        self._answer(exchange, question)
        return None

    def _is_full(self, exchange: Exchange) -> bool:
        return self.capacity is not None and self.serving >= self.capacity

    def _has_key(self, head: Head) -> bool:
        if self.key is None:
            return True
        given = [head.headers.get(name, "").removeprefix("Bearer ") for name in KEY_HEADERS]
        return self.key in (*given, *parse_qs(urlsplit(head.target).query).get("key", ()))

    def _read(self, exchange: Exchange, model: str, body: bytes) -> Question:
        """Fill in the request from its body. Raises BadRequest."""
        lean, pictures = cut_pictures(body)
        try:
            content = json.loads(lean)
            question = exchange.dialect.read(content, pictures, model)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise BadRequest(f"We could not parse the JSON body of your request: {error!r}") from None
        request = exchange.request
        request.model, request.system, request.settings = question.model, question.system, question.settings
        request.text = "\n".join(question.texts)
        request.input = read_input(request.text)
        request.task = str(request.input.get("task", ""))
        if self._reads_images:
            request.images = tuple(self._image(picture) for picture in question.pictures)
        if self.keep_bodies:
            request.body = json.loads(body)
        self.by_task[request.task] += 1
        return question

    def _image(self, picture: bytes) -> ReceivedImage:
        """Read an image once, however often it comes."""
        key = hash(picture)
        if key not in self._images:
            self._images[key] = read_image(picture)
        return self._images[key]

    def _answer(self, exchange: Exchange, question: Question | None) -> None:
        """Ask `answers`, apply what the fault does to the text, and word the reply."""
        request, fault = exchange.request, exchange.fault
        given = self.answers(request)
        if isinstance(given, dict):
            given = json.dumps(given, ensure_ascii=False)
            if self.takes.ignores_format:
                given = f"Here is what I found:\n```json\n{given}\n```\nLet me know if you need more."
        answer = Answer(given) if isinstance(given, str) else given
        if fault.change:
            answer = fault.change(answer)
        usage = self._usage(request, question, answer)
        reply = exchange.dialect.reply(answer, request.model, request.index, answer.usage or usage)
        exchange.wire = response(200, _dump(reply), headers=fault.headers)

    def _usage(self, request: ReceivedRequest, question: Question | None, answer: Answer) -> Usage:
        """A token for every four characters, a fixed number for an image; a beginning seen lately is cached."""
        if question is None:
            return Usage(IMAGE_TOKENS, len(answer.text) // 4)
        beginning = len(question.system) // 4 + IMAGE_TOKENS * len(question.pictures)
        key = hash((question.system, *question.pictures))
        before, self._beginnings[key] = self._beginnings.get(key), self.received
        cached = question.pictures and before is not None and self.received - before <= CACHE_WINDOW
        return Usage(beginning + len(request.text) // 4, len(answer.text) // 4, beginning if cached else 0)

    def _fail(self, exchange: Exchange, fault: Fault) -> None:
        """Word the fault as the dialect does; the key is repeated by a leaky endpoint only."""
        request, status = exchange.request, fault.status or 500
        message, code = fault.message, fault.code
        if status == 401 and exchange.dialect is GEMINI:
            # What the service does: a wrong key is a 400.
            status, message, code = 400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"
        if self.leaky:
            given = [request.headers[name] for name in KEY_HEADERS if name in request.headers]
            message += f" (key: {(given or [request.path])[0]})"
        headers = dict(fault.headers)
        if fault.retry_after is not None and fault.http_date:
            headers |= {
                "Retry-After": formatdate(time.time() + fault.retry_after, usegmt=True),
                "Date": formatdate(usegmt=True),
            }
        elif fault.retry_after is not None:
            headers["Retry-After"] = f"{fault.retry_after:g}"
        body = fault.body
        if body is None:
            body = _dump(exchange.dialect.error(status, message, code, fault.param, fault.retry_after))
        exchange.fault, exchange.status = fault, status
        exchange.wire = response(status, body, fault.content_type, headers)


def _model_in(head: Head) -> str:
    """The model that the path names, empty where the body does. Raises BadRequest for a path that is not served."""
    path = urlsplit(head.target)
    if head.method != "POST":
        raise NotServed(f"no such path: {head.method} {path.path}")
    if path.path in CHAT_PATHS:
        return ""
    if path.path.startswith(AZURE_START) and path.path.endswith(AZURE_END) and "api-version" in parse_qs(path.query):
        return path.path[len(AZURE_START) : -len(AZURE_END)]
    for start in ("/v1beta/models/", "/v1/models/"):
        if path.path.startswith(start) and path.path.endswith(":generateContent"):
            return path.path[len(start) :].removesuffix(":generateContent")
    raise NotServed(f"no such path: {head.method} {path.path}")


class NotServed(BadRequest):
    """The path is none of this server's: answered with a 404."""


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
