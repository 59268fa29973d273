"""`calibrate()` of a client of the user's own, which is one function."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import urllib.request
from collections.abc import Callable

import pytest

from dataflow_grounding import (
    EmbeddedServing,
    GroundingError,
    OpenAIServing,
    PhraseGrounder,
    calibrate,
    read_boxes,
)
from dataflow_grounding._util.errors import EndpointRefused, SpecError
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.testing import CannedAnswers, LoopbackServer, on
from dataflow_grounding.trust.no_fit import NoFit
from tests.support import faults
from tests.support.stand_ins.probe_model import ProbeModel


def client_of(server: LoopbackServer) -> Callable[[str, bytes], str]:
    """What people have: one function with one HTTP request in it."""

    def ask(prompt: str, jpeg: bytes) -> str:
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        content = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        body = {"model": "mine", "messages": [{"role": "user", "content": content}]}
        request = urllib.request.Request(
            f"{server.base_url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return str(json.load(reply)["choices"][0]["message"]["content"])

    return ask


def test_a_clients_format_is_found_out_and_reads_its_replies(server: LoopbackServer) -> None:
    server.answers = ProbeModel("xywh_100")
    found = calibrate(client_of(server))
    assert (found.name, found.sizes) == ("xywh_100", None)
    assert found.requests == server.count()
    numbers = found.from_pixels((10, 20, 110, 220), original=(640, 480))
    reply = json.dumps([{"label": "cat", "box": numbers}])
    [box] = read_boxes(reply, format=found, image_size=(640, 480)).boxes
    assert box.bbox == pytest.approx((10, 20, 110, 220), abs=4)


def test_an_async_client_and_a_serving_are_clients_too(server: LoopbackServer) -> None:
    server.answers = ProbeModel("yxyx_1000")
    ask = client_of(server)

    async def later(prompt: str, jpeg: bytes) -> str:
        return await asyncio.to_thread(ask, prompt, jpeg)

    assert calibrate(later).name == "yxyx_1000"
    assert calibrate(OpenAIServing(server.base_url, "mine")).name == "yxyx_1000"


def test_boxes_of_pictures_of_other_sizes_are_refused_and_never_read_wrong(
    server: LoopbackServer,
) -> None:
    """As by Qwen2.5-VL behind a server with limits of its own."""
    name = "xyxy_px@smart_resize_28_200704_1003520"
    server.answers = ProbeModel(name, noise=0.0, outliers=0.0)
    found = calibrate(client_of(server))
    sizes = found.sizes
    assert found.scale == "px"
    assert sizes is not None, "those for which that holds come along"
    right = find_box_format(name, "")
    refused = 0
    shapes = [(3000, 120), (1600, 100), (60, 900), (1170, 2532), (640, 480), (1, 1), (9000, 9000)]
    draw = random.Random(1)
    shapes += [(draw.randint(1, 5000), draw.randint(1, 5000)) for _ in range(80)]
    for size in shapes:
        padded, sent = sizes.padded(size), sizes.sent(size)
        box = tuple(side * share for share in (0.25, 0.5) for side in sent)
        reply = json.dumps([{"bbox_2d": right.from_pixels(box, original=sent)}])
        boxes = read_boxes(reply, format=found, image_size=padded, sent_size=sent).boxes
        asked = [side * share for share in (0.25, 0.5) for side in padded]
        allowed = 3 * max(padded) / max(sent) + 0.01 * max(padded)
        assert boxes[0].bbox == pytest.approx(asked, abs=allowed), (size, sent)
        if size in sizes.frames:
            continue
        with pytest.raises(SpecError, match="read with image_size=padded, sent_size=sent"):
            read_boxes(reply, format=found, image_size=size)
        refused += 1
    assert refused > 20


def test_a_calibrated_format_is_no_name_and_an_async_clients_loop_is_its_own() -> None:
    with pytest.raises(SpecError, match="should be a name, such as xyxy_1000, or auto"):
        PhraseGrounder(
            OpenAIServing("http://127.0.0.1:9/v1", "mine"),
            box_format=find_box_format("xyxy_px", ""),  # type: ignore[arg-type]
        )

    with pytest.raises(SpecError, match="should be a name, such as xyxy_1000, or auto"):
        PhraseGrounder(OpenAIServing("http://127.0.0.1:9/v1", "mine", box_format=5))  # type: ignore[arg-type]

    async def elsewhere(prompt: str, jpeg: bytes) -> str:
        raise RuntimeError("Event loop is closed")

    with pytest.raises(EndpointRefused, match=r"closed\. It is called in an event loop of its own"):
        calibrate(elsewhere)


def test_what_the_client_raises_is_told_in_one_line(server: LoopbackServer) -> None:
    server.faults = on(faults.unauthorized())
    with pytest.raises(EndpointRefused, match="the client raised HTTPError: HTTP Error 401"):
        calibrate(client_of(server))
    assert server.count() == 1


def test_a_client_that_has_no_further_reply_is_told_too() -> None:
    def without_reply(prompt: str, jpeg: bytes) -> str:
        return next(iter([]))

    with pytest.raises(EndpointRefused, match=r"client raised RuntimeError: .*StopIteration"):
        calibrate(without_reply)


def test_a_model_that_sees_nothing_has_no_format(server: LoopbackServer) -> None:
    server.answers = CannedAnswers('{"objects": []}')
    with pytest.raises(NoFit, match="can't tell how"):
        calibrate(client_of(server))


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ("gpt-5", "takes a function of a prompt and a JPEG's bytes, or a Serving, not str"),
        (EmbeddedServing(), "there is nothing to calibrate"),
        (lambda prompt, jpeg: None, "should return the reply's text, not NoneType"),
    ],
)
def test_what_is_no_client_is_told(client: Callable[[str, bytes], str], message: str) -> None:
    with pytest.raises(GroundingError, match=message) as told:
        calibrate(client)
    assert isinstance(told.value, SpecError)
