"""An endpoint that the runs of a place ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from dataflow_grounding.testing._endpoint import Endpoint
from tests.support.takes import Takes
from tests.support.workplace import Workplace, command

Serves = Callable[..., LoopbackServer]
"""The fixture `serves`: a module's server as if it had just begun, of what a LoopbackServer takes."""


@contextmanager
def endpoint_of(
    place: Workplace, answers: Any = None, /, **settings: Any
) -> Iterator[LoopbackServer]:
    """A server of these settings, which the place names from now on; without `answers` it echoes."""
    with LoopbackServer(answers or EchoAnswers(), **{"takes": Takes(), **settings}) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        yield server


SELDOM = 10**6
"""Requests between two checks: none but the first and the last one come."""


def seldom_checked(folder: Path, server: LoopbackServer, **settings: Any) -> Workplace:
    """A folder whose runs ask for xyxy_1000, and check the endpoint at their beginning and end."""
    usual = {"vlm.box_format": "xyxy_1000", "vlm.check_every": SELDOM}
    return Workplace(folder, server.base_url, **{**usual, **settings})


def calibrate(server: LoopbackServer, model: str = "loopback") -> None:
    """Calibrate a model of a server by the command."""
    done = command(["calibrate", "--base-url", server.base_url, "--model", model])
    assert done.code == 0, done


def serving_of(server: LoopbackServer, box_format: str = "xyxy_1000") -> OpenAIServing:
    """A serving that asks there."""
    return OpenAIServing(server.base_url, "loopback", box_format=box_format)


def with_settings(
    server: LoopbackServer, answers: Any = None, /, **settings: Any
) -> LoopbackServer:
    """Give a running server these settings alone, and counts from zero."""
    asyncio.run_coroutine_threadsafe(_end_talks(server), server._loop).result()
    if server.errors:
        raise server.errors[0]
    settings = {"keep_bodies": True, "takes": Takes(), **settings}
    new = Endpoint(answers or EchoAnswers(), port=server.port, **settings)
    vars(server).update(vars(new))
    server.requests = []
    return server


async def _end_talks(server: LoopbackServer) -> None:
    """End what earlier tests have left, and listen again where one has ended that."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if server._listener is None or not server._listener.is_serving():
        await server._listen()
