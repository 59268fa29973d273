"""An endpoint that the runs of a place ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.workplace import Workplace


@contextmanager
def endpoint_of(
    place: Workplace, answers: Any = None, /, **settings: Any
) -> Iterator[LoopbackServer]:
    """A server of these settings, which the place names from now on; without `answers` it echoes."""
    with LoopbackServer(answers or EchoAnswers(), **settings) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        yield server
