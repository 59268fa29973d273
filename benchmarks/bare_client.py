"""The denominator of the benchmarks: an honest minimal client that sends the same bytes as a run,
and its CPU time.

    python -m benchmarks.bare_client http://127.0.0.1:PORT/v1 --requests 1500 --in-flight 64 --image
    FILE

For each request it reads the image file, encodes it (base64 of the standard library), writes the
message with `json.dumps`, posts it on a kept connection and parses the reply's JSON.
`--client hand` is asyncio alone, `aiohttp` that library, and `openai` the SDK as by default, which
writes and parses JSON itself. With `--keep FOLDER` it does what a run can't do without as well, in
the plainest way: see `Keeper`.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

# A small process gives every 200 KB buffer back to the system and pays for it with page faults,
# which doubles its time: a matter of glibc's settings, not of the client. With these the buffers
# are kept.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(64 << 20), "MALLOC_MMAP_THRESHOLD_": str(32 << 20)}
SYSTEM = "You look at pictures and answer with one JSON object, as the user's message asks. " * 4
INSTRUCTIONS = (
    "Find every phrase in the picture. Give a box for each object that a phrase names. " * 12
)
WIDTH, HEIGHT = 1280, 960  # of the pictures, in pixels
SYNCED = 50  # replies that are put on disk together
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["objects"],
    "properties": {
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "label", "bbox_2d"],
                "properties": {
                    "id": {"type": "integer"},
                    "label": {"type": "string"},
                    "bbox_2d": {"type": "array", "items": {"type": "number"}},
                },
            },
        }
    },
}
Post = Callable[[bytes], Awaitable[bytes]]
Ask = Callable[[dict[str, Any]], Awaitable[str]]
"""Sends a message, and returns the text of the answer."""


def message_of(image: bytes, number: int, model: str) -> dict[str, Any]:
    """Request `number`: a phrase grounding of an image, every one of them a little different."""
    url = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    phrases = [{"id": 1, "text": f"mug number {number}"}, {"id": 2, "text": "wooden table"}]
    given = {
        "task": "phrase_grounding",
        "image": {"width": WIDTH, "height": HEIGHT},
        "phrases": phrases,
    }
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": f"{INSTRUCTIONS}\n<input>{json.dumps(given)}</input>"},
    ]
    return {
        "model": model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": parts}],
        "temperature": 0.7,
        "max_tokens": 4096,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "phrase_grounding", "strict": True, "schema": SCHEMA},
        },
    }


class Keeper:
    """Stores each reply by what was asked, and writes a record of it, checking nothing.

    That is the least that a run has to do so that nothing is paid for twice: a digest of the
    picture and of the question, a line in the file of replies that is with the system before the
    next request and on disk with SYNCED others, and a line with boxes in pixels.

    Args:
        folder: Where both files are made.
    """

    def __init__(self, folder: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.replies = os.open(os.path.join(folder, "replies.jsonl"), flags)
        self.records = open(os.path.join(folder, "annotations.jsonl"), "w", encoding="utf-8")  # noqa: SIM115
        self.kept = 0

    def keep(self, path: str, image: bytes, message: dict[str, Any], answer: str) -> None:
        """Take the answer to a message about an image."""
        question = message["messages"][1]["content"][1]["text"]
        digest = hashlib.sha256(image).hexdigest()
        key = hashlib.sha256(f"{digest} {message['model']} {question}".encode()).hexdigest()[:32]
        os.write(self.replies, json.dumps({"key": key, "text": answer}).encode() + b"\n")
        self.kept += 1
        if self.kept % SYNCED == 0:
            os.fsync(self.replies)
        expressions = []
        for found in json.loads(answer)["objects"]:
            x1, y1, x2, y2 = found["bbox_2d"]
            box = [x1 * WIDTH / 1000, y1 * HEIGHT / 1000, x2 * WIDTH / 1000, y2 * HEIGHT / 1000]
            expressions.append({"text": found["label"], "bbox": box, "score": found["score"]})
        record = {"image_path": path, "image_id": digest, "expressions": expressions}
        self.records.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close both files."""
        os.close(self.replies)
        self.records.close()


def asking(post: Post) -> Ask:
    """What sends a message by a client that knows of bytes alone."""

    async def ask(message: dict[str, Any]) -> str:
        reply = json.loads(await post(json.dumps(message).encode()))
        return str(reply["choices"][0]["message"]["content"])

    return ask


class Connection(asyncio.Protocol):
    """One kept connection, one request at a time; replies must have a Content-Length."""

    def __init__(self, host: str, path: str, key: str) -> None:
        self.head = (
            f"POST {path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer"
            f" {key}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        self.reply: asyncio.Future[bytes] | None = None
        self.received = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.reply and not self.reply.done():
            self.reply.set_exception(error or ConnectionError("the server closed the connection"))

    def post(self, content: bytes) -> Awaitable[bytes]:
        """Send a body; the future holds the reply's."""
        assert self.transport
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.writelines([(self.head % len(content)).encode(), content])
        return self.reply

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = bytes(self.received[:end]).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(self.received) < end + 4 + length or not self.reply:
            return
        content = bytes(self.received[end + 4 :])
        self.received.clear()
        if lines[0].split(b" ")[1] == b"200":
            self.reply.set_result(content)
        else:
            self.reply.set_exception(RuntimeError(content.decode()))


async def hand_made(arguments: argparse.Namespace, drive: Callable[[Ask], Awaitable[None]]) -> None:
    """One connection for each request in flight."""
    url = urlsplit(arguments.url)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: Connection(url.netloc, url.path, arguments.key), url.hostname, url.port
        )
        for _ in range(arguments.in_flight)
    ]
    await asyncio.gather(*(drive(asking(connection.post)) for _, connection in made))
    for transport, _ in made:
        transport.close()


async def with_aiohttp(
    arguments: argparse.Namespace, drive: Callable[[Ask], Awaitable[None]]
) -> None:
    """One session, as many connections as it takes."""
    import aiohttp

    headers = {"Authorization": f"Bearer {arguments.key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers
    ) as session:

        async def post(content: bytes) -> bytes:
            async with session.post(f"{arguments.url}/chat/completions", data=content) as reply:
                reply.raise_for_status()
                return await reply.read()

        await asyncio.gather(*(drive(asking(post)) for _ in range(arguments.in_flight)))


async def with_openai(
    arguments: argparse.Namespace, drive: Callable[[Ask], Awaitable[None]]
) -> None:
    """The SDK's client, as by default but for its retries, which would hide failures here."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=arguments.url, api_key=arguments.key, max_retries=0) as client:

        async def ask(message: dict[str, Any]) -> str:
            reply = await client.chat.completions.create(**message)
            return reply.choices[0].message.content or ""

        await asyncio.gather(*(drive(ask) for _ in range(arguments.in_flight)))


CLIENTS = {"hand": hand_made, "aiohttp": with_aiohttp, "openai": with_openai}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Send all requests; CPU and wall time of sending, not of starting."""
    client = CLIENTS[arguments.client]
    place = arguments.image
    images = sorted(entry.path for entry in os.scandir(place)) if os.path.isdir(place) else [place]
    numbers = iter(range(arguments.requests))
    answered = 0
    keeper = Keeper(arguments.keep) if arguments.keep else None

    async def drive(ask: Ask) -> None:
        nonlocal answered
        for number in numbers:
            path = images[number % len(images)]
            with open(path, "rb") as file:
                image = file.read()
            message = message_of(image, number, arguments.model)
            answer = await ask(message)
            if keeper is None:
                json.loads(answer)
            else:
                keeper.keep(path, image, message, answer)
            answered += 1

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    asyncio.run(client(arguments, drive))
    if keeper is not None:
        keeper.close()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "client": arguments.client,
        "answered": answered,
        "in_flight": arguments.in_flight,
        "cpu_ms_per_request": round(cpu / arguments.requests * 1000, 3),
        "wall_s": round(wall, 3),
        "page_faults_per_request": round(
            (after.ru_minflt - before.ru_minflt) / arguments.requests, 1
        ),
        "peak_rss_kb": after.ru_maxrss,
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="base URL, ending with /v1")
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument(
        "--image", required=True, help="a JPEG file, or a folder of them to take in turn"
    )
    parser.add_argument("--client", choices=tuple(CLIENTS), default="hand")
    parser.add_argument(
        "--allocator-as-it-is", action="store_true", help="don't restart with glibc's settings"
    )
    parser.add_argument(
        "--keep", default="", metavar="FOLDER", help="keep replies and write records in this folder"
    )
    parser.add_argument("--model", default="loopback")
    parser.add_argument("--key", default="sk-test")
    arguments = parser.parse_args()
    if not (arguments.allocator_as_it_is or ALLOCATOR.keys() <= os.environ.keys()):
        again = [sys.executable, "-m", "benchmarks.bare_client", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, **ALLOCATOR})
    print(json.dumps(measure(arguments)))


if __name__ == "__main__":
    main()
