"""A log of replies to share: `RecordedServing` records another serving's, or plays them back.

Before its replies, a recording says whose they are, in a line without a key:

    {"recorded": {"endpoint": "http://…", "model": "qwen3-vl", "temperature": 0.7}, "box_format": …}
"""

import os
from contextlib import suppress
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, RequestRefused
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.secrets import masked
from dataflow_grounding.data.records import JsonObject, dump_line, parse_line
from dataflow_grounding.engine.keyed_log import append, read_lines, storing
from dataflow_grounding.engine.reply_line import line_of, usage_of
from dataflow_grounding.serving.serving import Reply, Serving, reply_of, tier_named
from dataflow_grounding.tasks import Request


class RecordedServing(Serving):
    """Records another serving's replies, or answers from a recording.

    With `serving`, requests are passed on and each reply is added to the file `path`. So a run can
    be shared and repeated without a key. A request that was not recorded fails its record.

    Args:
        path: The recording's file.
        serving: The serving whose replies are recorded; None plays the recording back.

    Raises:
        InputError: For a file that is not a recording, or isn't there to be played back.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from dataflow_grounding import CaptionGenerator, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> row = {"image_path": "example_data/images/cat.jpg"}
        >>> with TemporaryDirectory() as folder:
        ...     with LoopbackServer(CannedAnswers('{"caption": "A cat on a rug."}')) as server:
        ...         endpoint = OpenAIServing(server.base_url, "any-model")
        ...         recorded = RecordedServing(f"{folder}/replies.jsonl", endpoint)
        ...         asked = CaptionGenerator(recorded)(row)
        ...     CaptionGenerator(RecordedServing(f"{folder}/replies.jsonl"))(row) == asked
        True
    """

    def __init__(self, path: str | os.PathLike[str], serving: Serving | None = None) -> None:
        self.path = os.fspath(path)
        self._serving = serving
        if serving is None or os.path.exists(self.path):
            self._head = _read_head(self.path)
        else:
            self._head = _head_of(serving)
        self._identity: JsonObject
        if serving is None:
            self._play_back()
        else:
            self._identity = masked(serving.identity())
            self.endpoint = serving.endpoint
            self.box_format = serving.box_format
            self.box_formats = serving.box_formats
            self.is_vlm = serving.is_vlm
            self.max_workers = serving.max_workers
            self.timeout = serving.timeout
            self.image_limits = serving.image_limits
            self.service_tier = serving.service_tier
            self.takes_turns = serving.takes_turns
            self.takes_probes = serving.takes_probes
        self.model = str(self._identity["model"])
        self._lines = {line["key"]: line for line in read_lines(self.path)}

    def _play_back(self) -> None:
        identity = self._head["recorded"]
        self.endpoint = str(identity["endpoint"])
        # Keys of replies are made of the identity, which mostly has no address.
        if not self._head.get("keyed_by_endpoint", True):
            identity = {name: value for name, value in identity.items() if name != "endpoint"}
        self._identity = identity
        self.box_format = self._head["box_format"]
        self.box_formats = self._head.get("box_formats", ())
        self.is_vlm = self._head.get("is_vlm", True)
        self.takes_turns = True
        self.takes_probes = False  # it has no reply to a picture that its run didn't show

    def identity(self) -> JsonObject:
        return self._identity

    def identity_there(self) -> JsonObject:
        return {**self._identity, "endpoint": self._head["recorded"]["endpoint"]}

    async def answer(self, request: Request[Any]) -> Reply:
        """Return the recorded reply; if there is none, ask the serving and record its reply.

        Raises RequestRefused if nothing is recorded and there is no serving to ask, StorageFailed
        if the reply can't be recorded, else what the serving raises.
        """
        key = request.key(self._identity)
        line = self._lines.get(key)
        if line is None:
            if self._serving is None:
                raise RequestRefused(f"{self.path} holds no reply to this {request.task} request")
            reply = await reply_of(self._serving, request)
            line = {"key": key, **line_of("", request, self._serving, reply, check=False)}
            self._add(line)
            self._lines[key] = line
        # A new reply is read from its line, too: so it is the same as when it is played back.
        return Reply(
            line["reply"],
            line["finish_reason"],
            usage_of(line),
            line["refusal"],
            tier=tier_named(line.get("tier")),
        )

    def _add(self, line: JsonObject) -> None:
        with storing(self.path), open(open_log(self.path, os.O_RDWR), "ab+", buffering=0) as file:
            data = dump_line(line).encode()
            size = file.tell()
            if size == 0:
                data = dump_line(self._head).encode() + data
            elif os.pread(file.fileno(), 1, size - 1) != b"\n":
                data = b"\n" + data  # after a line that a killed process has begun
            append(file.fileno(), data, size)

    def thinking_fields(self, level: str) -> JsonObject | None:
        # A recorded request has its own fields in its key: it is found, or isn't there.
        return {} if self._serving is None else self._serving.thinking_fields(level)

    async def aclose(self) -> None:
        if self._serving is not None:
            await self._serving.aclose()


def _head_of(serving: Serving) -> JsonObject:
    """`keyed_by_endpoint` and `is_vlm` are true where they aren't stated."""
    head: dict[str, object] = {
        "recorded": masked(serving.identity_there()),
        "box_format": serving.box_format,
    }
    if serving.box_formats:
        head["box_formats"] = [dict(row) for row in serving.box_formats]
    if "endpoint" not in serving.identity():
        head["keyed_by_endpoint"] = False
    if not serving.is_vlm:
        head["is_vlm"] = False
    return head


def _read_head(path: str) -> JsonObject:
    if not os.path.exists(path):
        raise InputError(f"no recording {path}")
    head: JsonObject = {}
    with suppress(OSError, BrokenRow), open(path, "rb") as file:
        head = parse_line(file.readline())
    identity = head.get("recorded")
    is_whole = isinstance(identity, dict) and {"model", "endpoint"} <= identity.keys()
    if not is_whole or not isinstance(head.get("box_format"), str):
        raise InputError(f"{path} is not a recording of replies")
    return head
