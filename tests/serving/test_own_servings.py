"""Servings of the user's own: what they let through of the HTTP clients that they send with."""

from __future__ import annotations

import asyncio
import errno
import json
import ssl
import traceback
import urllib.request
from typing import Any, ClassVar

import pytest

from dataflow_grounding._util.errors import (
    EndpointRefused,
    EndpointUnreachable,
    GroundingError,
    OperatorFailed,
    RequestRefused,
    ServerFault,
    SuspectBoxes,
)
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.images.image import open_image
from dataflow_grounding.operators import ExpressionExtractor, Operator, PhraseGrounder
from dataflow_grounding.serving import Serving
from dataflow_grounding.tasks import phrase_grounding
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.testing import on
from dataflow_grounding.testing.faults import Fault
from tests.support import faults
from tests.support.endpoint import Serves

SECONDS = 0.3  # until the clients give an answer up
CLIENTS = ["urllib", "requests", "httpx2", "aiohttp", "openai"]


class WrittenInAnHour(Serving):
    """A serving that sends with some client, and translates none of its errors."""

    model = "loopback"
    box_format = "xyxy_px"

    def __init__(self, base_url: str, client: str) -> None:
        self._base_url = base_url
        self._send = getattr(self, f"_by_{client}")

    async def answer(self, request: Request[Any]) -> str:
        picture = {"type": "image_url", "image_url": {"url": request.images[0].data_url().decode()}}
        content = [picture, {"type": "text", "text": request.text}]
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": content},
            ],
        }
        completion: dict[str, Any] = await self._send(body)
        return str(completion["choices"][0]["message"]["content"])

    @property
    def _url(self) -> str:
        return f"{self._base_url}/chat/completions"

    async def _by_urllib(self, body: dict[str, Any]) -> Any:
        def send() -> Any:
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.loads(answer.read())

        return await asyncio.to_thread(send)

    async def _by_requests(self, body: dict[str, Any]) -> Any:
        import requests

        def send() -> Any:
            answer = requests.post(self._url, json=body, timeout=SECONDS)
            answer.raise_for_status()
            return answer.json()

        return await asyncio.to_thread(send)

    async def _by_httpx2(self, body: dict[str, Any]) -> Any:
        httpx = pytest.importorskip("httpx2")  # what openai's client sends with
        async with httpx.AsyncClient(timeout=SECONDS) as client:
            answer = await client.post(self._url, json=body)
            answer.raise_for_status()
            return answer.json()

    async def _by_aiohttp(self, body: dict[str, Any]) -> Any:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=SECONDS)
        async with (
            aiohttp.ClientSession(timeout=limit, raise_for_status=True) as session,
            session.post(self._url, json=body) as answer,
        ):
            return await answer.json()

    async def _by_openai(self, body: dict[str, Any]) -> Any:
        import openai

        client = openai.AsyncOpenAI(
            base_url=self._base_url, api_key="none", timeout=SECONDS, max_retries=0
        )
        async with client:
            return (await client.chat.completions.create(**body)).model_dump()


@pytest.mark.slow
@pytest.mark.filterwarnings("error::DeprecationWarning")  # a client may warn of an attribute
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(faults.hang(), ServerFault, id="hang"),
        pytest.param(faults.cut_body(0.6), ServerFault, id="cut body"),
        pytest.param(faults.server_error(500), ServerFault, id="500"),
        pytest.param(faults.content_filter(), RequestRefused, id="content filter"),
        pytest.param(faults.unauthorized(), EndpointRefused, id="401"),
    ],
)
def test_a_clients_error_is_what_it_means(
    row: dict[str, Any], serves: Serves, fault: Fault, kind: type[GroundingError], client: str
) -> None:
    server = serves(faults=faults.leaky(on(fault)))
    with holding(current_options, RunOptions(max_attempts=1)), pytest.raises(kind) as caught:
        ExpressionExtractor(WrittenInAnHour(server.base_url, client))(row)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert server.count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_a_busy_endpoint_is_waited_for(row: dict[str, Any], serves: Serves, client: str) -> None:
    server = serves(faults=on(faults.too_many_requests(retry_after=0.1), indexes=range(2)))
    assert ExpressionExtractor(WrittenInAnHour(server.base_url, client))(row)["expressions"]
    assert (server.count(429), server.count(200)) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS)
def test_nobody_at_the_address(row: dict[str, Any], client: str) -> None:
    extractor = ExpressionExtractor(WrittenInAnHour("http://127.0.0.1:9/v1", client))
    with (
        holding(current_options, RunOptions(max_attempts=1)),
        # as our own servings' is: the run waits for it, whichever client says so
        pytest.raises(
            (EndpointUnreachable, EndpointRefused), match=r"WrittenInAnHour \(loopback\)"
        ),
    ):
        extractor(row)


@pytest.mark.parametrize(
    "error", [KeyError("choices"), FileNotFoundError("weights.bin"), RuntimeError("CUDA error")]
)
def test_what_is_no_clients_error_stays_the_operators(
    row: dict[str, Any], error: Exception
) -> None:
    class Broken(Serving):
        model = "broken"
        box_format = "xyxy_px"

        async def answer(self, request: Request[Any]) -> str:
            raise error

    with pytest.raises(OperatorFailed, match=type(error).__name__):
        ExpressionExtractor(Broken())(row)


class FailsAtFirst(Serving):
    """A serving that lets these errors through, one after the other, before it answers."""

    model = "fails at first"
    box_format = "xyxy_px"

    def __init__(self, *errors: Exception) -> None:
        self._errors = errors
        self.asked = 0

    async def answer(self, request: Request[Any]) -> str:
        self.asked += 1
        if self.asked <= len(self._errors):
            raise self._errors[self.asked - 1]
        return '{"expressions": ["red mug"]}'


def throttled() -> Exception:
    """As botocore raises it."""
    error: Any = RuntimeError("ThrottlingException")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {}}}
    return error


@pytest.mark.parametrize(
    "error",
    [
        throttled(),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        ssl.SSLError("record layer failure"),
        type("ReadTimeoutError", (type("HTTPClientError", (Exception,), {}),), {})("slow"),
        asyncio.TimeoutError(),  # a client's own limit
        ConnectionResetError("reset by peer"),
    ],
    ids=["throttled", "no route", "ssl", "botocore's timeout", "timeout", "reset"],
)
def test_other_passing_errors_are_tried_again(row: dict[str, Any], error: Exception) -> None:
    serving = FailsAtFirst(error)
    assert ExpressionExtractor(serving)(row)["expressions"]
    assert serving.asked == 2


def test_the_wait_that_an_error_asks_for_is_read(row: dict[str, Any]) -> None:
    class Busy(Serving):
        model = "busy"
        box_format = "xyxy_px"

        async def answer(self, request: Request[Any]) -> str:
            error: Any = RuntimeError("come again")
            error.status_code = 429
            error.headers = {"Retry-After": "86400"}
            raise error

    with (
        holding(current_options, RunOptions(max_wait=1)),
        pytest.raises(GroundingError, match=r"come again\. It asks to wait 24 h"),
    ):
        ExpressionExtractor(Busy())(row)


class Fixed(Serving):
    """As a unit test has it."""

    model = "mine"
    box_format = "xyxy_px"

    async def answer(self, request: Request[Any]) -> str:
        return '{"objects": [{"id": 1, "label": "a mug", "bbox_2d": [10, 20, 30, 40]}]}'


class FixedForAll(Fixed):
    """The same box for each phrase, rectangles of a probe picture, too."""

    async def answer(self, request: Request[Any]) -> str:
        box = [10, 20, 30, 40]
        objects = [{"id": n, "bbox_2d": box} for n, _ in enumerate(request.input["phrases"], 1)]
        return json.dumps({"objects": objects})


class NotAsync(Fixed):
    def answer(self, request: Request[Any]) -> str:  # type: ignore[override]
        return "{}"


class PassesOn(Fixed):
    def answer(self, request: Request[Any]) -> Any:  # right, as it returns an awaitable
        return super().answer(request)


class NoBase:
    model = "mine"

    async def answer(self, request: Request[Any]) -> str:
        return "{}"


class NoModel(Serving):
    async def answer(self, request: Request[Any]) -> str:
        return "{}"


class OwnGrounder(Operator):
    """Takes its serving as it is, as the examples do."""

    input_keys: ClassVar[dict[str, str]] = {"image": "image_path"}
    output_keys: ClassVar[dict[str, str]] = {"boxes": "boxes"}

    def __init__(self, serving: Any) -> None:
        self.serving = serving

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        image = open_image(record, self.keys.image, self.serving.image_limits)
        found = await ask(phrase_grounding(image, ["a mug"], find_box_format("xyxy_px", "mine")))
        return {self.keys.boxes: str(found)}


@pytest.mark.parametrize("operator_class", [PhraseGrounder, OwnGrounder])
@pytest.mark.parametrize(
    ("serving_class", "line"),
    [
        (NotAsync, r"answer of NotAsync isn't async: write async def answer\(self, request\)"),
        (NoBase, r"NoBase is no serving yet: derive it, as in class NoBase\(Serving\), from"),
        (NoModel, r"NoModel has no model: name it in its class, as in model = \"my-model\""),
    ],
)
def test_a_serving_that_is_nearly_right_is_told_what_to_write(
    row: dict[str, Any], operator_class: Any, serving_class: Any, line: str
) -> None:
    with pytest.raises(GroundingError, match=f"^{line}"):
        operator_class(serving_class())({**row, "expressions": ["a mug"]})


def test_an_answer_that_returns_an_awaitable_is_right(row: dict[str, Any]) -> None:
    [found] = PhraseGrounder(PassesOn())({**row, "expressions": ["a mug"]})["expressions"]
    assert found["instances"][0]["bbox"] == [10, 20, 30, 40]


@pytest.mark.slow
def test_a_unit_tests_fixed_boxes_are_told_what_to_write(row: dict[str, Any]) -> None:
    rows = [
        {**row, "image_id": str(number), "expressions": [f"mug {number}"]} for number in range(30)
    ]
    with pytest.raises(SuspectBoxes) as stopped:
        PhraseGrounder(FixedForAll())(rows)
    assert str(stopped.value).endswith("add exact_boxes = True to FixedForAll")
    assert len(traceback.extract_tb(stopped.value.__traceback__)) == 2  # this, and the operator

    class Exact(FixedForAll):
        exact_boxes = True

    assert len(PhraseGrounder(Exact())(rows)) == 30
