"""`dataflowgrounding serve` as a process, and requests to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support.forking import Forked

SECONDS = 60


def paid_for(endpoint: LoopbackServer) -> int:
    """How many requests about pictures the endpoint got: all but checks of the box format."""
    return sum(not asks_for_rectangles(request) for request in endpoint.requests)


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: Any
    headers: Mapping[str, str]
    reason: str


class Served:
    """A running `serve`; `arguments` are those of the command, `variables` of the environment, and
    `bounds` what the server has instead of its own `QUEUE`, `SECONDS`, `BODY_MB`.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        bounds: Mapping[str, float] = MappingProxyType({}),
        **variables: str,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if name[:3] != "DF_"}
        cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
        line = ["serve", "--port", "0", *arguments]
        first = "from dataflow_grounding.serve import server\n"
        first += "".join(f"server.{name} = {value}\n" for name, value in bounds.items())
        self.process = Forked(line, folder, {**inherited, **cache, **variables}, first)
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://"), self.process.communicate()[1]

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self, which: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Return the exit code after a signal, and what was said on standard error."""
        self.process.send_signal(which)
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said

    def get(self, path: str, **headers: str) -> Answer:
        return self._answer(Request(self.address + path, headers=headers))

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        return self._answer(Request(self.address + path, data, headers))

    def ground(self, image_path: str, *phrases: str) -> Answer:
        return self.post("/ground", {"image_path": image_path, "phrases": list(phrases)})

    def _answer(self, request: Request) -> Answer:
        try:
            with urlopen(request, timeout=SECONDS) as response:
                return Answer(
                    response.status, json.load(response), response.headers, response.reason
                )
        except HTTPError as error:
            text = error.read()
            return Answer(
                error.code, json.loads(text) if text else None, error.headers, error.reason
            )
