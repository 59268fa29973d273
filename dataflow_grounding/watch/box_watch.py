"""The standing check: whether a run's boxes are in the format asked for, by checks of the endpoint and by signs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypeVar

from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import SUSPECT, Ask
from dataflow_grounding.errors import RecordError, SpecError, SuspectBoxes, UnreadableReply
from dataflow_grounding.geometry import Size, box_of
from dataflow_grounding.images import Image
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.terminal import say
from dataflow_grounding.watch.drift import Drift
from dataflow_grounding.watch.endpoint_checks import FRESH, EndpointChecks
from dataflow_grounding.watch.signs import ADVICE, Seen, Signs, corners_of

T = TypeVar("T")
OnSuspect: TypeAlias = Literal["warn", "stop"]

CHECK_EVERY = 100  # answers between two checks of the endpoint
ODD = (
    "a probe picture was clearly answered in {}, others in {} as asked. The endpoint may answer in more than one "
    "format: are there several servers or models behind its address? Look at some boxes"
)


class BoxWatch:
    """Watches the boxes of one run, and stops it, or warns once, where they are not in the format that was asked for.

    A sign in the first boxes or a drift of the numbers calls for a check of the endpoint, and so does every `every`-th
    request (None: no checks); a check that passes withdraws them. Where there can be no check, a sign is enough. It
    changes no record. Raises SpecError.
    """

    _checks: EndpointChecks  # of a run that is watched
    _signs: Signs  # those it began with, where a check of another run that misses begins anew
    _drift: Drift

    def __init__(self, on_suspect: OnSuspect, every: int | None = CHECK_EVERY) -> None:
        if on_suspect not in ("warn", "stop"):
            raise SpecError("on_suspect_boxes should be 'warn' or 'stop'")
        if every is not None and every < 1:
            raise SpecError("check_every should be 1 or more, or None")
        self.on_suspect = on_suspect
        self.every = every
        self.suspicion: str | None = None
        self.poor: str | None = None
        self._watches = False
        self._stopped: SuspectBoxes | None = None
        self._odd: str | None = None
        self._open: dict[Ask, bool] = {}  # since the last good check, and whether it was sent

    def __getstate__(self) -> dict[str, Any]:
        anew = BoxWatch(self.on_suspect, self.every)  # the rest is of a run, which is in one process
        return {**vars(anew), "suspicion": self.suspicion, "poor": self.poor}

    def __repr__(self) -> str:
        return f"BoxWatch({self.on_suspect!r})"

    def begun(self, serving: Serving, choice: FormatChoice, start: RunStart) -> "tuple[BoxWatch, Counter[str]]":
        """The watch of a run that starts, shared by all who ask in one format, and what settling the format took.

        Unless it has begun, and where boxes can be in no other format, requests pass unwatched. Raises as `settle`.
        """
        whose = (choice, self.on_suspect, self.every)
        if whose in start.shared:
            return start.shared[whose], Counter()
        watch = start.shared[whose] = BoxWatch(self.on_suspect, self.every)
        watch.poor = self.poor
        took, asked = choice.settle_to_ground(start, watch.on_poor), choice.format
        if not serving.exact_boxes and asked.scale != "grid_32":
            new, trusting = choice.is_new(FRESH), self.on_suspect == "warn"
            watch._checks = EndpointChecks(serving, asked, self.every, start, calibrated=new, trusting=trusting)
            watch._signs, watch._drift = watch._checks.known.signs, watch._checks.known.drift
            watch._watches = True
        return watch, took

    async def ask(self, ask: Ask, request: Request[T], image: Image, phrases: Sequence[str]) -> T:
        """The answer, which is looked at, to a request for boxes of `phrases`. Raises what failed, and SuspectBoxes."""
        if not self._watches:
            return await ask(request)
        if self.suspicion is not None and self.on_suspect == "warn":
            return await ask(replace(request, of=self._checks.of))
        if self._stopped is not None:
            raise self._stopped
        if self._checks.open(ask, image.sent_size):
            await self._ready(ask)
        sent = False

        async def before() -> None:
            nonlocal sent
            await self._ready(ask)
            self._checks.sending()
            sent = True

        def read(reply: str) -> ReadReply[T]:
            if self.suspicion is None and (not self._signs.done or (sent and self._checks.possible)):
                self._open[ask] = sent or self._open.get(ask, False)
            self._look(reply, image.sent_size, dict(enumerate(phrases, 1)))
            return request.read(reply)

        try:
            answer = await ask(replace(request, read=read, before=before, of=self._checks.of))
        except RecordError:  # boxes in another format are often no boxes at all
            await self._look_round(ask)
            raise
        await self._look_round(ask)
        return answer

    async def conclude(self, ask: Ask) -> None:
        """What is left to settle after the last record. Raises SuspectBoxes."""
        if not self._watches:
            return
        self._watches = False  # once, whichever operator comes first
        await self._look_round(ask, last=True)
        self._checks.finish(vouched=self.suspicion is None)
        if self._odd and self.suspicion is None:
            say(f"Warning: {ODD.format(self._odd, self._checks.asked.name)}.")

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it, and `estimate` reckons with."""
        return {"suspect_boxes": self.suspicion or self.poor, "check_every": self.every}

    def on_poor(self, what: str) -> None:
        """Say that boxes in some pictures will be poor. Raises SuspectBoxes unless it only warns."""
        if self.on_suspect == "stop":
            raise SuspectBoxes(f"{what} (vlm.on_suspect_boxes: warn goes on all the same)")
        if self.poor != what:
            say(f"Warning: {what}.")
        self.poor = what

    async def _ready(self, ask: Ask) -> None:
        """Wait until requests may be sent: for the first check, made by the first comer, and for any in doubt."""
        to_begin = not self._checks.begun and self._checks.possible
        if to_begin and not self._checks.under_way and self.suspicion is None:
            await self._check(ask, waiting=True)
        else:
            await self._look_round(ask)
        await self._checks.free.wait()
        if self._stopped is not None:
            raise self._stopped

    async def _look_round(self, ask: Ask, last: bool = False) -> None:
        """Check the endpoint where it is time for it."""
        if self._checks.under_way or self.suspicion is not None:
            return
        strange = self._signs.found is not None or self._signs.mixed
        drifted = self._checks.possible and self._drift.alarmed
        if self._checks.due(drifted, last) or (strange and self._checks.possible):
            several = strange or drifted or (last and not self._checks.in_memory)
            await self._check(ask, waiting=drifted or strange, several=several)
        elif self._signs.found:
            self._suspect_all()

    async def _check(self, ask: Ask, waiting: bool, several: bool = False) -> None:
        before = list(self._open)
        verdict = await self._checks.check(ask, waiting=waiting, several=several)
        if verdict.odd and verdict.kind != "misses":
            self._odd = verdict.odd
            ask.note("mixed_formats", f"a probe picture was clearly answered in {verdict.odd}")
        if verdict.kind == "misses":
            what = f"the boxes don't look like {self._checks.asked.name}: {verdict.why}. {verdict.remedy}"
            self._suspect(f"{what}{ADVICE if verdict.fitting else ''}", [a for a, sent in self._open.items() if sent])
            return
        if verdict.kind == "silent":
            ask.note("unanswered_check", verdict.why)
            if self._signs.found:
                self._suspect_all()
        elif self._odd is None:
            self._open = {one: sent for one, sent in self._open.items() if one not in before}
        self._signs.withdraw()
        self._drift.settled()

    def _suspect_all(self) -> None:
        """A sign speaks against the boxes, and no check can tell."""
        self._checks.doubt()
        what = self._signs.of_one_blind() if self._checks.known.silent else self._signs.found or ""
        self._suspect(what, list(self._open))

    def _suspect(self, what: str, asked: Iterable[Ask]) -> None:
        """Report wrong boxes. Raises SuspectBoxes unless set to warn."""
        self.suspicion, kept = what, self._checks.lost()
        if self.on_suspect == "stop":
            self._stopped = SuspectBoxes(f"{what}. {kept}")
            raise self._stopped
        say(f"Warning: {what}.")
        for ask in asked:
            ask.note(SUSPECT, what)
        self._open.clear()

    def _look(self, reply: str, sent: Size, phrases: Mapping[int, str]) -> None:
        self._checks.known.answers += 1
        if self.suspicion is not None or (self._signs.done and not self._checks.possible):
            return
        try:
            marks = parse_reply(reply, self._checks.asked.key)
        except UnreadableReply:
            return
        boxes = []
        usable = (m for m in marks.boxes if m.answer == marks.answer and len(m.numbers) == 4 and m.family is None)
        for mark in usable:  # of an answer that wasn't taken back
            phrase = phrases.get(mark.said.id or 0) or next(iter(mark.said.labels), "")
            numbers = box_of(mark.numbers)
            corners = corners_of(numbers, mark.order, sent, self._checks.asked)
            boxes.append(Seen(corners, numbers, mark.order, sent, phrase, self._checks.known.answers))
        self._signs.add(boxes)
        if self._checks.possible:
            self._drift.add(boxes)
