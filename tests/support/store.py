"""An S3 of this machine's own, and a proxy before it that plays what goes wrong between a run and a
store.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import unquote

BUCKET = "bucket"
NO_LIST = b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>'


class FaultyStore:
    """Before the S3 server at `port`; what is set here goes wrong from then on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.getting = 0  # requests for objects that are under way
        self._counting = threading.Lock()
        self.heal()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def _do(self) -> None:
                store.play(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _do

        class Server(ThreadingHTTPServer):
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.counts = Counter[str]()
        self.refuse_every = 0  # one in this many requests gets a 503, though never twice in a row
        self.tear = ""  # uploads to keys that match are cut in the middle, each once
        self.down = False  # connections are closed without an answer
        # all is answered with this status, code and message
        self.denies: tuple[int, str, str] | None = None
        self.late = 0.0  # seconds until a listing comes
        self.hangs = False  # uploads are never answered
        self.loses = False  # each upload is taken, and its first answer lost
        # of a method (LIST, too), a key and how often it was asked before: a status, `cut` for half
        # of the body, `slow`, `empty` for a listing of nothing, or None
        self.fault: Callable[[str, str, int], str | None] = lambda method, key, before: None
        self.asked = Counter[tuple[str, str]]()  # by method and key
        self._refused: set[tuple[str, str]] = set()  # commands and paths that got a 503 last
        self._lost: set[str] = set()
        self._torn: set[str] = set()

    def count(self, method: str, ending: str = "") -> int:
        """How often objects with such an ending were asked for."""
        asked = self.asked.items()
        return sum(n for (how, key), n in asked if how == method and key.endswith(ending))

    @cached_property
    def client(self) -> Any:
        """boto3's client, past all that goes wrong; making one takes as long as a test."""
        import boto3

        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}")

    def put(self, key: str, data: bytes) -> str:
        """Put an object into the bucket; returns its address."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def put_all(self, folder: Path, name: str) -> str:
        """Put all files under a folder into one of the bucket; returns its address."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{name}"

    def names(self, folder: str) -> list[str]:
        """What is in a folder of the bucket, by its name there."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{folder}/"
        )
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [key.removeprefix(f"{folder}/") for key in keys]

    def data(self, key: str) -> bytes:
        """An object."""
        found = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert isinstance(found, bytes)
        return found

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def play(self, request: Any) -> None:
        """Answer one request, or not."""
        path, _, query = request.path.partition("?")
        method = "LIST" if "list-type" in query else request.command
        name = unquote(path).partition(f"/{BUCKET}/")[2]
        with self._counting:
            self.getting += method == "GET"
            before = self.asked[method, name]
            self.asked[method, name] += 1
        try:
            self._play(request, self.fault(method, name, before))
        finally:
            with self._counting:
                self.getting -= method == "GET"

    def _play(self, request: Any, fault: str | None) -> None:
        self.counts["all"] += 1
        key = request.path.partition("?")[0]
        length = int(request.headers.get("Content-Length") or 0)
        if self.down:
            request.close_connection = True
            return
        if (
            request.command == "PUT"
            and self.tear
            and re.search(self.tear, key)
            and key not in self._torn
        ):
            self._torn.add(key)
            self.counts["torn"] += 1
            self._send_half(request, length)
            request.close_connection = True
            return
        body = request.rfile.read(length)
        if fault and fault.isdigit():
            self._answer(request, int(fault), [], b"")
            return
        if fault == "slow":
            time.sleep(1.5)
        if self.denies is not None:
            status, code, message = self.denies
            answer = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self._answer(request, status, [], answer if request.command != "HEAD" else b"")
            return
        if self.hangs and request.command == "PUT":
            time.sleep(3600)
        if "list-type" in request.path:
            self.counts["LIST late"] += bool(self.late)
            time.sleep(self.late)
        asked = (request.command, request.path)
        is_refused = self.refuse_every and self.counts["all"] % self.refuse_every == 0
        if asked in self._refused:
            self._refused.remove(asked)
        elif is_refused:
            self._refused.add(asked)
            self.counts["refused"] += 1
            answer = (
                b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
            )
            self._answer(request, 503, [], answer)
            return
        status, headers, answer = self._forwarded(request, body)
        was_taken = request.command == "PUT" and status == 200
        if was_taken and self.loses and key not in self._lost:
            self._lost.add(key)
            self.counts["answers lost"] += 1
            request.close_connection = True
            return
        self._answer(request, status, headers, NO_LIST if fault == "empty" else answer, fault)

    def _forwarded(self, request: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Have S3 answer in this thread: a connection to its own server takes as long again."""
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        path, _, query = request.path.partition("?")
        asked = EnvironBuilder(
            path,
            f"http://127.0.0.1:{self.port}",
            query,
            method=request.command,
            data=body,
            headers=list(request.headers.items()),
        )
        answer, status, headers = run_wsgi_app(self._s3, asked.get_environ(), buffered=True)
        kept = [(k, v) for k, v in headers if k.lower() not in ("connection", "date", "server")]
        return int(status.partition(" ")[0]), kept, b"".join(answer)

    @cached_property
    def _s3(self) -> Any:
        from moto.server import DomainDispatcherApplication, create_backend_app

        return DomainDispatcherApplication(create_backend_app)

    def _send_half(self, request: Any, length: int) -> None:
        """A connection is cut in the middle of the body: the store makes nothing of it."""
        request.rfile.read(length // 2)

    def _answer(
        self,
        request: Any,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        fault: str | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in headers:
            if name.lower() != "content-length" or request.command == "HEAD":
                request.send_header(name, value)
        if request.command != "HEAD":
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
        request.close_connection = request.close_connection or fault == "cut"


@contextmanager
def faulty_store() -> Iterator[FaultyStore]:
    """A moto server with an empty bucket, behind the proxy, to which the environment leads within
    the block.
    """
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    port = moto.get_host_and_port()[1]
    # A process has one moto: another server in it began with the buckets of the one before it.
    urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST"), timeout=60
    ).close()
    store = FaultyStore(port)
    try:
        with mock.patch.dict(os.environ, environment(store)):
            s3fs.S3FileSystem.clear_instance_cache()  # those of another store
            store.client.create_bucket(Bucket=BUCKET)
            yield store
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        store.server.shutdown()
        store.server.server_close()
        moto.stop()


def environment(store: FaultyStore) -> dict[str, str]:
    """What the environment says of it."""
    return {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "a-key-of-nobody",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-nobody",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
