"""The checks of a run's endpoint: when they are due, what they showed, and what they vouch for.

A check asks for rectangles in copies of the run's own pictures. One that is answered as asked
vouches for the replies before it: a later run may read them from the store. `Checks` are those of
one run. `Known` is what outlives a call for records in memory, so that one call after another
doesn't check the same endpoint again and again.
"""

import asyncio
import copy
import hashlib
import json
import math
import os
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from dataflow_grounding._util.errors import GroundingError, concerns_all
from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.settings import setting
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.images.image import Image, ImageLimits, open_image
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.kinds import MOST_KINDS, kind_of, sizes_to_check
from dataflow_grounding.trust.reach import Reach, orientation_of
from dataflow_grounding.trust.reply_judge import ReplyJudge
from dataflow_grounding.trust.seen_probes import SeenProbes

if TYPE_CHECKING:
    from dataflow_grounding.trust.one_check import Outcome

# Requests since the last check from which a run ends with another: for fewer, one more request is
# over a twentieth of what they cost.
AT_THE_END = 20
SILENT = 2  # checks in a row that told nothing, after which no more are made: each costs a request
# Seconds for which a check holds for further calls in this process. A script calls every few
# seconds, and a check with each of its calls would double what they cost.
FRESH = 600.0

PictureKind: TypeAlias = "tuple[tuple[str, int] | Size, str]"
"""The kind of a picture's size, or its frame, and its media type."""


class Known:
    """What is known of an endpoint, model and format.

    It is known of one run or, for records in memory, of all that this process asked.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.judge = ReplyJudge(asked)
        self.reach: dict[str, Reach] = {}
        """How far boxes reach, by orientation."""
        self.checked_at = -math.inf
        """When the last check ended, by the monotonic clock, in seconds."""
        self.missed: str | None = None
        """What was warned of last, where a call went on with boxes in another format."""
        self.missed_at = -math.inf
        """When that was, as `checked_at`."""
        self.sent = 0
        """Requests so far, in all."""
        self.unchecked = 0
        """Requests since the last check."""
        self.next_check = 0
        """The number of requests at which a check is due; 0 before the first one."""
        self.stretch_end = 0
        """The number of requests with which the stretch ends that it is in: each has one."""
        self.answers = 0
        """Answers so far, in all."""
        self.vouched = 0
        """The number of `answers` when the last good check began."""
        self.returned = 0
        """The number of `answers` that calls have returned."""
        self.kinds: set[PictureKind] = set()
        """The kinds of pictures that were checked."""
        self.checks = 0
        """Pictures that were sent for checks, without those that confirm a miss."""
        self.seen = SeenProbes()
        """What probe pictures have shown so far."""
        self.unanswered = 0
        """Checks in a row that told nothing."""
        self.silent: set[str] = set()
        """Orientations of which the last probe picture went unanswered."""
        self.check_under_way: Future[BaseException | None] | None = None
        """Set while a run makes a check: other runs of the process wait for its end."""
        self.lock = threading.Lock()
        """Held at each look at `check_under_way`."""

    @property
    def is_fresh(self) -> bool:
        """Whether a check was made less than FRESH ago, and so still holds."""
        return time.monotonic() - self.checked_at < FRESH

    def miss(self, message: str) -> None:
        """Remember that a call warned of boxes in another format, and goes on."""
        self.missed = message
        self.missed_at = time.monotonic()

    @property
    def lately_missed(self) -> str | None:
        """What a call warned of less than FRESH ago; None where a later check went well."""
        return self.missed if time.monotonic() - self.missed_at < FRESH else None


_known: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints asked in this process, by Checks.of."""


def _forget_checks_under_way() -> None:
    for known in list(_known.values()):
        known.check_under_way = None
        known.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_checks_under_way)


def probes_for(
    requests: int, every: int | None, pictures: Mapping[Size, int], *, in_frames: bool = False
) -> int:
    """Return how many probe pictures a run asks an endpoint about, if all are answered as asked.

    It is an estimate, 0 without requests or checks.

    Args:
        requests: The run's own requests.
        every: Requests between two checks, on average; None for no checks.
        pictures: How many of the run's pictures are sent in each size, as `sent_sizes` returns it.
        in_frames: Whether these sizes are frames.
    """
    if not requests or every is None:
        return 0
    kinds = sizes_to_check(list(pictures), in_frames=in_frames)
    at_the_end = requests >= min(AT_THE_END, every)
    return max(1, len(kinds)) + requests // every + at_the_end


def sent_sizes(pictures: OwnPictures, limits: ImageLimits) -> Counter[Size]:
    """Return the sizes in which pictures are sent within these limits, with how many of each."""
    fitted: Counter[Size] = Counter()
    for size, count in zip(pictures.sizes, pictures.counts, strict=True):
        fitted[limits.sent(size)] += count
    return fitted


def _name_of(identity: Mapping[str, Any], asked: BoxFormat, form: str) -> str:
    # `form` is the form in which boxes are asked for; "" for the usual one.
    endpoint = {**identity, "box_format": asked.name}
    if form:
        # The usual form isn't named, so that what earlier versions vouched for stays so.
        endpoint["asking"] = form
    whose = json.dumps(endpoint, sort_keys=True, default=repr)
    return f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"


def _known_of(serving: Serving, name: str, asked: BoxFormat) -> Known:
    # A class of the user's that says of itself no more than its model's name may have another
    # server behind each object: what is known of one is not known of another.
    if asked.maps:  # further frames are further formats to this process
        name += f" {hash(asked.maps)}"
    says_more = type(serving).identity is not Serving.identity
    if says_more or serving.endpoint != Serving.endpoint:
        return _known.setdefault(name, Known(asked))
    own_name = f"{name} {id(serving)}"
    if own_name not in _known:
        # an object that is gone leaves its id to others
        weakref.finalize(serving, _known.pop, own_name, None)
    return _known.setdefault(own_name, Known(asked))


class Checks:
    """The checks of one run.

    Args:
        serving: The serving that is asked.
        asked: The format of the run's boxes.
        every: Requests between two checks, on average; None for no checks.
        start: What the run starts with.
        trusting: Whether replies that were set aside as suspect count all the same.
        form: The form in which boxes are asked for; "" for the usual one.

    Attributes:
        of: What a check vouches for: the name and digest of this format at this endpoint and model.
        known: What is known of these; for records in memory, all runs of this process share it.
        judge: What judges this run's replies.
        wanted: Whether checks are to be made in this run, and the serving takes probe pictures.
        begun: Whether a check was made that still holds.
        in_memory: Whether the records are in memory, and the run has no folder.
    """

    def __init__(
        self,
        serving: Serving,
        asked: BoxFormat,
        every: int | None,
        start: RunStart,
        *,
        trusting: bool,
        form: str = "",
    ) -> None:
        self.asked = asked
        self.in_memory = start.folder is None
        self._serving = serving
        self._every = every
        self._trusting = trusting
        # The addresses to check, each by a picture; a single one isn't named in messages.
        parts = serving.endpoints()
        self._endpoints = [part.endpoint for part, _ in parts] if len(parts) > 1 else [""]
        self.of = _name_of(serving.identity_there(), asked, form)
        self._anywhere = _name_of(serving.identity(), asked, form)
        self.known = _known_of(serving, self.of, asked) if self.in_memory else Known(asked)
        # `forget_format` gives `known` a new judge. This run, which ends then, keeps its own.
        self.judge = self.known.judge
        self._start: RunStart | None = start  # None once the run's pictures were looked at
        self._vouching: Vouching | None = None  # from the first record on
        # Whether the run works on a block of the rows, which processes share among them.
        self._is_block = bool(start.options.shard and start.options.shard.rows)
        self._marked = False  # whether the folder says that checks have begun
        self._unchecked = 0  # requests of this run since its last check
        self._set_aside = 0  # replies that don't count any more
        self._has_given_up = False  # whether boxes are known to be in another format
        self._last: Image | None = None  # the last picture that was asked about
        self.wanted = every is not None and serving.takes_probes
        self.begun = self.known.is_fresh
        if not self.begun:
            self.known.unanswered = 0
            self.known.unchecked = 0

    @property
    def possible(self) -> bool:
        """Whether checks are wanted, and not SILENT of them in a row went unanswered."""
        return self.wanted and self.known.unanswered < SILENT

    # What the run does

    def add_picture(self, ask: Ask, image: Image) -> bool:
        """Note the picture that is asked about.

        `ask` is the means of its record to send requests. Returns whether stored replies may be
        read that nobody vouched for.
        """
        self._last = image
        if self._vouching is None:
            self._vouching = ask.vouching(self.of, self._anywhere, self._trusting)
        return self._vouching.relied_on

    @property
    def trusts_stored(self) -> bool:
        """Whether somebody vouched for all stored replies of earlier runs.

        False before the first picture was added.
        """
        return self._vouching is not None and not self._vouching.relied_on

    def sending(self) -> None:
        """Count a request that is about to be sent; mark the first that a check is to vouch for.

        That is the run's first one once checks have `begun`. It is marked in the store of replies:
        a later run then knows that nobody vouches for what follows until a check has ended well.
        """
        self.known.sent += 1
        self.known.unchecked += 1
        self._unchecked += 1
        is_to_be_vouched_for = self.begun and not self._marked and self.possible
        if is_to_be_vouched_for and self._vouching is not None:
            self._marked = True
            self._vouching.write("begun")

    def is_new(self, image: Image) -> bool:
        """Whether no check has had a picture of this one's kind, once checks have `begun`."""
        if self._every is None or not self.begun or not self.possible:
            return False
        if self._kind_of(image) in self.known.kinds:
            return False
        # Data may have any number of kinds, and checks are to cost few requests.
        return self.known.checks < MOST_KINDS + self.known.sent / self._every

    def _kind_of(self, image: Image) -> PictureKind:
        # Each frame has a map of its own, and a server may read PNGs otherwise than JPEGs.
        size = image.sent_size
        in_frames = bool(self._serving.image_limits.frames)
        return size if in_frames else kind_of(size), image.sent_media_type

    @property
    def is_due(self) -> bool:
        """Whether this stretch's check is due."""
        return self.known.sent >= self.known.next_check and self.begun and self.possible

    def _plan_next(self) -> None:
        known = self.known
        if self._every is None or known.sent < known.next_check:
            return
        begin = max(known.stretch_end, known.sent - known.sent % self._every)
        # A check has just told of the first few requests.
        first = min(AT_THE_END, self._every // 2) + 1
        known.next_check = begin + random.SystemRandom().randint(first, self._every)
        known.stretch_end = begin + self._every

    def can_tell(self, image: Image) -> bool:
        """Whether probe pictures of an image's orientation tell anything, as far as is known."""
        return self.possible and orientation_of(image.sent_size) not in self.known.silent

    @property
    def is_due_at_the_end(self) -> bool:
        """Whether the run should not end without a check: enough requests came since its last."""
        if self._every is None or not self.begun or not self.possible:
            return False
        unchecked = self._unchecked
        if self.in_memory:  # another run of this process may have checked meanwhile
            unchecked = min(unchecked, self.known.unchecked)
        # A block of rows is checked however short it is: a run may consist of short ones alone.
        enough = 1 if self._is_block else min(AT_THE_END, self._every)
        return unchecked >= enough

    # What the pictures show

    async def check(
        self, ask: Ask, image: Image | None = None, looks_like: str | None = None
    ) -> "Outcome":
        """Ask for rectangles in copies of the run's pictures, and say whether the format is right.

        The first check has a picture of each kind among the run's first thousand; any other one has
        the `image`, or the last that was asked about. Each endpoint is asked about each. That a
        check began is counted before it is answered, and stays so where the run stops meanwhile.

        Args:
            ask: A record's means to send requests.
            image: The picture; None for the last one.
            looks_like: The format that replies look like, where they call for the check.

        Raises:
            RunStopped: The run ended meanwhile.
        """
        assert self._vouching is not None
        image = image or self._last
        assert image is not None
        known = self.known
        position = self._vouching.here()
        answers_then = known.answers
        known.unchecked = 0
        self._unchecked = 0
        self._plan_next()
        await load_aside("dataflow_grounding.trust.one_check")  # with NumPy
        from dataflow_grounding.trust.one_check import OneCheck

        images = [image]
        if not self.begun:
            known.kinds = set()
            known.checks = 0
            images = await asyncio.to_thread(self._one_of_each_kind, image)
        known.checks += len(images)
        known.kinds |= {self._kind_of(one) for one in images}
        one_check = OneCheck(ask, self.asked, self._endpoints, self.known.seen)
        outcome = await one_check.of(images, looks_like)
        self._note(outcome, position, answers_then)
        return outcome

    def _one_of_each_kind(self, image: Image) -> list[Image]:
        # Of a kind it is the commonest size or, where pixels count, the largest: servers reduce
        # these first. One that can't be read is left out: its record fails when its turn comes.
        start = self._start
        self._start = None  # a check that begins meanwhile doesn't look at them, too
        if start is None:
            return [image]
        pictures = start.pictures()
        limits = self._serving.image_limits
        path_of: dict[Size, str] = {}
        for size, path in zip(pictures.sizes, pictures.examples, strict=False):
            path_of.setdefault(limits.sent(size), path)
        sizes = list(path_of)
        if self.asked.scale == "px" and not self.asked.maps:
            sizes.sort(key=lambda size: -max(size))
        images = []
        for size in sizes_to_check(sizes, in_frames=bool(limits.frames)):
            path = path_of[size]
            folders = (path,) if "://" in path else ()  # an address that the run's rows may name
            with suppress(GroundingError):
                record = Record({"image_path": path}, folders)
                images.append(open_image(record, "image_path", limits))
        return images or [image]

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Enter for a check once no other run of this process makes one, and keep others from it.

        They ask the same endpoint in the same format, each in a thread of its own. Whoever enters
        should look again whether a check is due: another run's may have been good for this one.
        Records of a file wait for nobody. Raises what another run's check raised meanwhile, if it
        concerns all that ask the endpoint.
        """
        known = self.known
        if not self.in_memory:
            yield
            return
        mine: Future[BaseException | None] = Future()
        while True:
            with known.lock:
                others = known.check_under_way
                if others is None:
                    known.check_under_way = mine
                    break
            # shielded: whoever waits may be cancelled, but the check is another's
            failed = await asyncio.shield(asyncio.wrap_future(others))
            if failed is not None:
                raise copy.copy(failed)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            with known.lock:
                known.check_under_way = None
            mine.set_result(error if error is not None and concerns_all(error) else None)

    def begun_by_others(self) -> bool:
        """Return whether a check was made that still holds, be it by another run meanwhile."""
        if self.in_memory and self.known.is_fresh:
            self.begun = True
        return self.begun

    def _note(self, outcome: "Outcome", position: int, answers_then: int) -> None:
        known = self.known
        vouching = self._vouching
        assert vouching is not None
        self.begun = True
        self._marked = True
        known.checked_at = time.monotonic()
        if outcome.kind == "silent":
            known.unanswered += 1
        else:
            known.unanswered = 0
        for orientation, tells in outcome.tells.items():
            if tells:
                self.judge.calm(orientation)
                known.silent.discard(orientation)
            else:
                known.silent.add(orientation)
        if self._has_given_up:  # the replies have proven it meanwhile
            return
        if outcome.kind == "misses":
            self._set_aside = vouching.bad()
        elif outcome.kind == "fits" and not self.is_mixed:
            known.vouched = answers_then
            known.missed = None
            vouching.good(position)
        else:
            vouching.write("unclear")

    @property
    def is_mixed(self) -> bool:
        """Whether a probe picture or a reply came in another format lately, though others don't."""
        return bool(self.known.seen.lately_odd or self.judge.proven)

    # How the run ends

    def set_aside_unvouched(self) -> None:
        """Set aside all replies since the last good check: they are in several formats.

        They are counted for `forget_format`.
        """
        if self._vouching is not None:
            self._set_aside = self._vouching.bad()

    def mark_all_suspect(self) -> None:
        """Write down that all replies are suspect, if the run goes on with them."""
        if self._trusting and self._vouching is not None:
            self._vouching.doubt()

    def forget_format(self) -> str:
        """Forget what is known of the format, as boxes come in another one.

        The next call starts over. Returns a sentence, without a full stop, on what happens to the
        answers that no check vouched for.
        """
        known = self.known
        self._has_given_up = True
        was_mixed = self.is_mixed
        known.checked_at = -math.inf
        known.seen = SeenProbes()
        known.reach = {}
        known.judge = ReplyJudge(self.asked)
        return self._what_became_of_answers(are_mixed=was_mixed)

    def _what_became_of_answers(self, *, are_mixed: bool) -> str:
        # `are_mixed` says whether replies came in several formats.
        known = self.known
        since = known.answers - known.vouched
        if not self.in_memory and self._set_aside:
            aside = f"The {self._set_aside} replies since the last good check are set aside"
            aside += ": the next run asks for them again"
            if are_mixed:
                aside += (
                    f". Earlier ones may be mixed too: {setting('workflow.force_reprocess')} asks"
                    " for all again"
                )
            return aside
        if not since:
            return "No boxes were asked for"
        if not self.in_memory:
            return "Every reply so far is kept"
        what_became = "none of them returned"
        returned = known.returned - known.vouched
        if returned > 0:
            what_became = f"{returned} of them already returned: don't use them"
        return f"{since} answers came since the last good check, {what_became}"

    def finish(self, *, vouched: bool) -> None:
        """Note that the run is done, and all its answers are returned.

        `vouched` says that its format is right, as far as known.
        """
        if vouched and self._marked and self._vouching is not None:
            self._vouching.finished()
        self.known.returned = self.known.answers
