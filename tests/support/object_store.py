"""An object store on this machine, moto's S3, behind a proxy that delays, counts, and does what
goes wrong.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

Fault: TypeAlias = str
"""`503`, `403`, `404`: a status. `cut`: half of the body. `slow`: the first byte comes late.
`empty`: lists nothing.
"""

BUCKET = "pictures"


class ObjectStore(ThreadingHTTPServer):
    """`fault` says of a method, a key and how often it was asked before what goes wrong, if
    anything.
    """

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, direct: str, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.direct, self.delay = urlsplit(direct), delay
        self.fault: Callable[[str, str, int], Fault | None] = lambda method, key, before: None
        self.asked: Counter[tuple[str, str]] = Counter()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """What leads libraries here, and lets botocore's own tries alone."""
        keys = {
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": "loopback",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return {
            **keys,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_address[1]}",
        }

    def count(self, method: str, ending: str = "") -> int:
        """How often objects with such an ending were asked for."""
        return sum(
            n for (asked, key), n in self.asked.items() if asked == method and key.endswith(ending)
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone."""

    def forget(self) -> None:
        """Start over: no faults, nothing counted."""
        self.fault, self.most_at_once = lambda method, key, before: None, 0
        self.asked.clear()

    def put(self, key: str, data: bytes, bucket: str = BUCKET) -> str:
        """Put an object into the store; returns its address."""
        self.client.put_object(Bucket=bucket, Key=key, Body=data)
        return f"s3://{bucket}/{key}"

    def put_all(self, folder: Path, prefix: str = "") -> str:
        """Put all files under a folder into the store; returns the address of their folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}".rstrip("/")

    @cached_property
    def client(self) -> Any:
        """boto3's client, which goes past the proxy; making one takes as long as a test."""
        import boto3

        keys = {
            "aws_access_key_id": "loopback",
            "aws_secret_access_key": "loopback",
            "region_name": "us-east-1",
        }
        return boto3.client("s3", endpoint_url=self.direct.geturl(), **keys)


class _Proxy(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        store, url = self.server, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = unquote(url.path).lstrip("/").partition("/")[2]
        method = "LIST" if self.command == "GET" and not key else self.command
        with store.lock:
            store.at_once += method == "GET"
            store.most_at_once = max(store.most_at_once, store.at_once)
            before = store.asked[method, key]
            store.asked[method, key] += 1
        fault = store.fault(method, key, before)
        try:
            time.sleep(store.delay + (1.5 if fault == "slow" else 0))
            self.answer(fault, body)
        finally:
            with store.lock:
                store.at_once -= method == "GET"

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def answer(self, fault: Fault | None, body: bytes) -> None:
        status, headers, data = (
            (int(fault), {}, b"") if fault and fault.isdigit() else self.passed_on(body)
        )
        if fault == "empty":
            data = (
                b'<?xml version="1.0"?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>'
            )
        told = (
            len(data)
            if self.command != "HEAD" or status != 200
            else int(headers.get("Content-Length", 0))
        )
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in (
                "content-length",
                "connection",
                "transfer-encoding",
                "date",
                "server",
            ):
                self.send_header(name, value)
        self.send_header("Content-Length", str(told))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        self.close_connection = self.close_connection or fault == "cut"

    def passed_on(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        place = self.server.direct
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def object_store(delay: float = 0.0) -> Iterator[ObjectStore]:
    """A store with an empty bucket, within this process."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    store = ObjectStore(f"http://{host}:{port}", delay)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    try:
        store.client.create_bucket(Bucket=BUCKET)
        yield store
    finally:
        store.shutdown()
        store.server_close()
        with suppress(Exception):
            moto.stop()
