"""Recorded replies: `RecordedServing` records another serving's to a file, or plays them back.

A recording is a file of JSON lines. The first one says whose replies they are, and each other one
has a reply under the key of its request:

    {"recorded": {"endpoint": "http://…", "model": "qwen3-vl", "temperature": 0.7}, "box_format": …}
    {"key": "9f…", "reply": "…", "finish_reason": "stop", "usage": [812, 0, 95], "refusal": null}
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

from dataflow_grounding._util.errors import InputError, RequestRefused
from dataflow_grounding._util.secrets import blotted, masked
from dataflow_grounding.boxes.coordinates import FrameMap
from dataflow_grounding.data.records import dump_line, parse_line
from dataflow_grounding.serving.serving import Reply, Serving, Usage, tier_named
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
        self.takes_turns = serving is None or serving.takes_turns
        # A recording has no reply to a picture that its run didn't show.
        self.takes_probes = serving is not None and serving.takes_probes
        recording = _Recording()  # what the file holds: nothing, if it is yet to be written
        if serving is None or os.path.exists(self.path):
            recording = _read_recording(self.path)
        self._identity = recording.identity
        self._recorded_at = recording.recorded_at  # the endpoint whose replies these are
        self._replies = recording.replies
        self.box_format = recording.box_format
        self.box_formats = recording.box_formats
        self.is_vlm = recording.is_vlm
        if serving is not None:
            self._take_over(serving)
        self.model = str(self._identity["model"])
        self.endpoint = self._recorded_at if serving is None else serving.endpoint

    def _take_over(self, serving: Serving) -> None:
        """What the serving says of itself replaces what the file said."""
        self._identity = masked(serving.identity())
        if not self._recorded_at:  # the file is yet to be written
            self._recorded_at = str(masked(serving.identity_there())["endpoint"])
        self.box_format = serving.box_format
        self.box_formats = serving.box_formats
        self.is_vlm = serving.is_vlm
        self.max_workers = serving.max_workers
        self.timeout = serving.timeout
        self.image_limits = serving.image_limits
        self.service_tier = serving.service_tier

    def identity(self) -> dict[str, Any]:
        return self._identity

    def identity_there(self) -> dict[str, Any]:
        return {**self._identity, "endpoint": self._recorded_at}

    async def answer(self, request: Request[Any]) -> Reply:
        """Return the recorded reply; if there is none, ask the serving and record its reply.

        Raises RequestRefused if nothing is recorded and there is no serving to ask, else what the
        serving raises.
        """
        key = request.key(self._identity)
        line = self._replies.get(key)
        if line is None:
            if self._serving is None:
                raise RequestRefused(f"{self.path} holds no reply to this {request.task} request")
            answer = await self._serving.answer(request)
            reply = Reply(answer) if isinstance(answer, str) else answer
            line = self._record(key, reply)
        # A new reply is read from its line, too: so it is the same as when it is played back.
        return Reply(
            line["reply"],
            line["finish_reason"],
            Usage(*line["usage"]),
            line["refusal"],
            tier=tier_named(line.get("tier")),
        )

    def _record(self, key: str, reply: Reply) -> dict[str, Any]:
        """Add a reply to the file, and return its line."""
        line: dict[str, Any] = {
            "key": key,
            "reply": blotted(reply.text),
            "finish_reason": reply.finish_reason,
            "usage": reply.usage.as_list(),
            "refusal": reply.refusal and blotted(reply.refusal),
        }
        if reply.tier:
            line["tier"] = blotted(reply.tier)
        with open(self.path, "a+b") as file:
            self._prepare_to_append(file)
            file.write(dump_line(line).encode())
        self._replies[key] = line
        return line

    def _prepare_to_append(self, file: BinaryIO) -> None:
        """Write the first line, or end the last one, whose process may have been killed."""
        is_empty = file.tell() == 0  # it is opened at its end
        if is_empty:
            head = head_of_recording(self, self.identity_there(), self.box_format)
            file.write(dump_line(head).encode())
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")

    def thinking_fields(self, level: str) -> dict[str, Any] | None:
        # A recorded request has its own fields in its key: it is found, or isn't there.
        return {} if self._serving is None else self._serving.thinking_fields(level)

    async def aclose(self) -> None:
        if self._serving is not None:
            await self._serving.aclose()


@dataclass(frozen=True)
class _Recording:
    """What the file of a recording holds."""

    identity: dict[str, Any] = field(default_factory=dict)
    recorded_at: str = ""  # the endpoint whose replies these are
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)  # by their requests' keys
    box_format: str = Serving.box_format
    box_formats: Sequence[Mapping[str, Any]] = ()
    is_vlm: bool = True


def _read_recording(path: str) -> _Recording:
    try:
        with open(path, encoding="utf-8") as file:
            head = parse_line(file.readline())
            replies = {}
            for text in file:
                # A line that isn't whole is no reply: the process was killed while it wrote it.
                with suppress(ValueError):
                    line = json.loads(text)
                    replies[line["key"]] = line
        recorded = dict(head["recorded"])
        recorded_at = str(recorded["endpoint"])
        # Keys of replies are made of the identity, which mostly has no address.
        if not head.get("keyed_by_endpoint", True):
            del recorded["endpoint"]
        return _Recording(
            identity={"model": recorded["model"], **recorded},  # KeyError without a model
            recorded_at=recorded_at,
            replies=replies,
            box_format=str(head["box_format"]),
            box_formats=[dict(row) for row in head.get("box_formats", ())],
            is_vlm=bool(head.get("is_vlm", True)),
        )
    except FileNotFoundError:
        raise InputError(f"no recording {path}") from None
    except Exception:
        raise InputError(f"{path} is not a recording of replies") from None


def head_of_recording(
    serving: Serving,
    identity_there: Mapping[str, Any],
    box_format: str,
    maps: Sequence[FrameMap] = (),
) -> dict[str, Any]:
    """Return the first line of a recording: whose replies it holds.

    `keyed_by_endpoint` is written, as false, where the address isn't part of the replies' keys, and
    `is_vlm` where the serving is no VLM: a reader takes both for true. `maps` are those of a
    measured format, which is written as a further row.
    """
    head: dict[str, Any] = {"recorded": identity_there, "box_format": box_format}
    rows = [dict(row) for row in serving.box_formats]
    if maps:  # the format was measured: its name is `xyxy_px@measured`, or of another order
        order = box_format.partition("_")[0]
        row = {"name": box_format, "order": order, "scale": "px", "maps": list(map(asdict, maps))}
        rows.append(row)
    if rows:
        head["box_formats"] = rows
    is_keyed_by_endpoint = "endpoint" in serving.identity()
    if not is_keyed_by_endpoint:
        head["keyed_by_endpoint"] = False
    if not serving.is_vlm:
        head["is_vlm"] = False
    return head
