"""A gateway in front of a loopback server, with the headers and bodies of LiteLLM's proxy 1.108.7.

They were recorded from the real one, which `tests/serving/test_litellm.py` asks where it is
installed.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dataflow_grounding.testing import LoopbackServer

OF_LITELLM = {"x-litellm-version": "1.108.7", "x-litellm-attempted-fallbacks": "0"}


@dataclass
class Gateway:
    """Forwards to `upstream`, and keeps replies.

    Args:
        upstream: The address of the server behind it, which ends in /v1.
        keeps: Whether an equal request gets the reply that was kept.
        heeds: Whether requests tell it: by LiteLLM's key `cache: {no-cache: true}`, or a seed.
        says: Headers of a reply that was kept.
        headers: Headers of each reply.
        refuses_seed, refuses_cache: How it refuses a `seed`, and the key `cache`; "" where it takes
            one.
        changed: Changes a completion before it is kept.
    """

    upstream: str
    keeps: bool = True
    heeds: bool = True
    says: dict[str, str] = field(default_factory=lambda: {"x-litellm-cache-key": "6a146692a6"})
    headers: dict[str, str] = field(default_factory=lambda: dict(OF_LITELLM))
    refuses_seed: str = ""
    refuses_cache: str = ""
    changed: Callable[[dict[str, Any]], dict[str, Any]] = lambda completion: completion

    def __post_init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.kept = 0
        self._replies: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Gateway:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, headers, data = gateway.answer(body)
                self.send_response(status)
                headers = {"Content-Type": "application/json", **headers}
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        request = json.loads(body)
        self.bodies.append(dict(request))
        for key, message in (("seed", self.refuses_seed), ("cache", self.refuses_cache)):
            if key in request and message:
                error = {"error": {"message": message}}
                return 400, self.headers, json.dumps(error).encode()
        wants_none = bool((request.pop("cache", None) or {}).get("no-cache")) and self.heeds
        sent = json.dumps(request, sort_keys=True)
        with self._lock:
            key = self._key(request)
            if self.keeps and key in self._replies and not wants_none:
                self.kept += 1
                return 200, {**self.headers, **self.says}, self._replies[key]
            question = urllib.request.Request(
                f"{self.upstream}/chat/completions",
                sent.encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(question) as response:
                    completion = self.changed(json.loads(response.read()))
            except urllib.error.HTTPError as error:
                return error.code, self.headers, error.read()
            self._replies[key] = json.dumps(completion).encode()
            return 200, self.headers, self._replies[key]

    def _key(self, request: dict[str, Any]) -> str:
        if not self.heeds:
            request.pop("seed", None)
        return json.dumps(request, sort_keys=True)


@contextmanager
def gateway_before(
    answers: Any, *, kind: type[Gateway] = Gateway, faults: Any = (), **how: Any
) -> Iterator[Gateway]:
    """A gateway of these settings, and a model that answers so."""
    with (
        LoopbackServer(answers, faults=faults) as upstream,
        kind(upstream.base_url, **how) as gateway,
    ):
        yield gateway
