"""The checks of a run's endpoint: when they are due, what they showed, and what they vouch for.

A check asks for rectangles in copies of the run's own pictures. One that is answered as asked
vouches for the replies before it: a later run may read them from the store.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import GroundingError
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
from dataflow_grounding.trust.kinds import MOST_KINDS, kind_of, orientation_of, sizes_to_check
from dataflow_grounding.trust.known import AT_THE_END, Known, PictureKind, known_in_process

if TYPE_CHECKING:
    from dataflow_grounding.trust.one_check import Outcome

SILENT = 2  # checks in a row that told nothing, after which no more are made: each costs a request


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
        endpoint["asking"] = form
    whose = json.dumps(endpoint, sort_keys=True, default=repr)
    return f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"


class StoredReplies:
    """What checks vouch for in the store of a run's replies.

    Args:
        serving: The serving that is asked.
        asked: The format of the run's boxes.
        form: The form in which boxes are asked for; "" for the usual one.
        trusting: Whether replies that were set aside as suspect count all the same.

    Attributes:
        of: What a check vouches for: the name and digest of this format at this endpoint and model.
        set_aside: How many replies don't count any more.
    """

    def __init__(self, serving: Serving, asked: BoxFormat, form: str, *, trusting: bool) -> None:
        self.of = _name_of(serving.identity_there(), asked, form)
        self.set_aside = 0
        self._anywhere = _name_of(serving.identity(), asked, form)
        self._trusting = trusting
        self._vouching: Vouching | None = None  # from the first record on
        self._marked = False  # whether the store says what a check of this run has shown

    def open(self, ask: Ask) -> bool:
        """Return whether stored replies may be read that nobody vouched for.

        `ask` is a record's means to send requests.
        """
        if self._vouching is None:
            self._vouching = ask.vouching(self.of, self._anywhere, self._trusting)
        return self._vouching.relied_on

    @property
    def are_trusted(self) -> bool:
        """Whether somebody vouched for all of earlier runs; False before `open`."""
        return self._vouching is not None and not self._vouching.relied_on

    def here(self) -> int:
        """Return the place up to which a check that begins now will vouch."""
        assert self._vouching is not None
        return self._vouching.here()

    def note(self, outcome: "Outcome", position: int, *, is_good: bool) -> None:
        """Write down what a check showed that began at `position`."""
        assert self._vouching is not None
        self._marked = True
        if outcome.kind == "misses":
            self.set_aside = self._vouching.bad()
        elif is_good:
            self._vouching.good(position)
        else:
            self._vouching.unclear()

    def set_aside_unvouched(self) -> None:
        """Set aside all replies since the last good check: they are in several formats."""
        if self._vouching is not None:
            self.set_aside = self._vouching.bad()

    def mark_all_suspect(self) -> None:
        """Write down that all replies are suspect, if the run goes on with them."""
        if self._trusting and self._vouching is not None:
            self._vouching.doubt()

    def finish(self) -> None:
        """Note that the run is done, and its format is right as far as known."""
        if self._marked and self._vouching is not None:
            self._vouching.finished()


class Checks:
    """The checks of one run.

    Args:
        serving: The serving that is asked.
        asked: The format of the run's boxes.
        every: Requests between two checks, on average; None for no checks.
        start: What the run starts with.
        stored: What the checks vouch for.

    Attributes:
        asked: The format of the run's boxes.
        stored: What the checks vouch for.
        known: What is known of the endpoint; for records in memory, all runs of this process share
            it.
        judge: What judges this run's replies.
        wanted: Whether this run makes checks, and the serving takes probe pictures.
        begun: Whether a check was made that still holds.
    """

    def __init__(
        self,
        serving: Serving,
        asked: BoxFormat,
        every: int | None,
        start: RunStart,
        stored: StoredReplies,
    ) -> None:
        self.asked = asked
        self.stored = stored
        self._in_memory = start.folder is None  # and the run has no folder
        self._serving = serving
        self._every = every or 1
        self.known = Known(asked)
        if self._in_memory:
            self.known = known_in_process(serving, stored.of, asked)
        # `forget_format` gives `known` a new judge. This run, which ends then, keeps its own.
        self.judge = self.known.judge
        self._start: RunStart | None = start  # None once the run's pictures were looked at
        # Whether the run works on a block of the rows, which processes share among them.
        self._is_block = bool(start.options.shard and start.options.shard.rows)
        self._unchecked = 0  # requests of this run since its last check
        self._has_given_up = False  # whether boxes are known to be in another format
        self._last: Image | None = None  # the last picture that was asked about
        self.wanted = every is not None and serving.takes_probes
        self.begun = self.known.is_fresh
        if not self.begun:
            self.known.unanswered = 0
            self.known.pace.unchecked = 0

    @property
    def possible(self) -> bool:
        """Whether checks are wanted, and not SILENT of them in a row went unanswered."""
        return self.wanted and self.known.unanswered < SILENT

    @property
    def for_an_own_serving(self) -> str:
        """Return what to do if a serving of the user's own writes boxes itself, as in a test.

        A sentence without a full stop; "" for a shipped serving, which has a model.
        """
        own = type(self._serving)
        if own.__module__.startswith("dataflow_grounding."):
            return ""
        return (
            f"If no model writes its boxes, as in a test, add exact_boxes = True to {own.__name__}"
        )

    # What the run does

    def add_picture(self, ask: Ask, image: Image) -> bool:
        """Note the picture that is asked about; return as `StoredReplies.open` does."""
        self._last = image
        return self.stored.open(ask)

    def sending(self) -> None:
        """Count a request that is about to be sent; mark the first that a check is to vouch for."""
        self.known.pace.sent += 1
        self.known.pace.unchecked += 1
        self._unchecked += 1

    def want_another(self) -> None:
        """Have the next check made at once: another model answers than before."""
        self.known.pace.next_check = 0

    def is_new(self, image: Image) -> bool:
        """Whether no check has had a picture of this one's kind, once checks have `begun`."""
        if not self.begun or not self.possible or self._kind_of(image) in self.known.kinds:
            return False
        # Data may have any number of kinds, and checks are to cost few requests.
        return self.known.checks < MOST_KINDS + self.known.pace.sent / self._every

    def _kind_of(self, image: Image) -> PictureKind:
        # Each frame has a different map, and a server may read PNGs otherwise than JPEGs.
        size = image.sent_size
        in_frames = bool(self._serving.image_limits.frames)
        return size if in_frames else kind_of(size), image.sent_media_type

    @property
    def is_due(self) -> bool:
        """Whether this stretch's check is due."""
        pace = self.known.pace
        return pace.sent >= pace.next_check and self.begun and self.possible

    def can_tell(self, image: Image) -> bool:
        """Whether probe pictures of an image's orientation tell anything, as far as is known."""
        return self.possible and orientation_of(image.sent_size) not in self.known.silent

    @property
    def is_due_at_the_end(self) -> bool:
        """Whether the run should not end without a check: enough requests came since its last."""
        if not self.begun or not self.possible:
            return False
        # A block of rows is checked however short it is: a run may consist of short ones alone.
        enough = 1 if self._is_block else min(AT_THE_END, self._every)
        # another run of this process may have checked meanwhile
        return min(self._unchecked, self.known.pace.unchecked) >= enough

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
        image = image or self._last
        assert image is not None
        known = self.known
        position = self.stored.here()
        count_before = known.answers.count
        known.pace.checking(self._every)
        self._unchecked = 0
        await load_aside("dataflow_grounding.trust.one_check")  # with NumPy
        from dataflow_grounding.trust.one_check import OneCheck

        images = [image]
        if not self.begun:
            known.kinds = set()
            known.checks = 0
            images = await asyncio.to_thread(self._one_of_each_kind, image)
        known.checks += len(images)
        known.kinds |= {self._kind_of(one) for one in images}
        # The addresses to check, each by a picture; a single one isn't named in messages.
        parts = self._serving.endpoints()
        endpoints = [part.endpoint for part, _ in parts] if len(parts) > 1 else [""]
        outcome = await OneCheck(ask, self.asked, endpoints, known.seen).of(images, looks_like)
        self._note(outcome, position, count_before)
        return outcome

    def _one_of_each_kind(self, image: Image) -> list[Image]:
        # Each kind is represented by its commonest size or, if boxes are in pixels, by its largest:
        # servers reduce these first. A picture that can't be read is left out: its record fails
        # when its turn comes.
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
        """Enter for a check once no other run of this process makes one of the same endpoint.

        Records of a file wait for nobody. Raises what `Turns.mine` raises.
        """
        if not self._in_memory:
            yield
            return
        async with self.known.turns.mine():
            yield

    def begun_by_others(self) -> bool:
        """Return whether a check was made that still holds, perhaps by another run meanwhile."""
        if self._in_memory and self.known.is_fresh:
            self.begun = True
        return self.begun

    def _note(self, outcome: "Outcome", position: int, count_before: int) -> None:
        known = self.known
        self.begun = True
        known.checked_at = time.monotonic()
        known.unanswered = known.unanswered + 1 if outcome.kind == "silent" else 0
        for orientation, tells in outcome.tells.items():
            if tells:
                self.judge.calm(orientation)
                known.silent.discard(orientation)
            else:
                known.silent.add(orientation)
        if self._has_given_up:  # the replies have proven it meanwhile
            return
        is_good = outcome.kind == "fits" and not self.is_mixed
        if is_good:
            known.answers.vouched = count_before
            known.miss(None)
        self.stored.note(outcome, position, is_good=is_good)

    @property
    def is_mixed(self) -> bool:
        """Whether a probe picture or a reply came in another format lately, though others don't."""
        return bool(self.known.seen.lately_odd or self.judge.proven)

    # How the run ends

    def forget_format(self) -> str:
        """Forget what is known of the format, as boxes come in another one.

        The next call starts over. Returns a sentence, without a full stop, on what happens to the
        answers that no check vouched for.
        """
        self._has_given_up = True
        are_mixed = self.is_mixed
        self.known.forget_format()
        answers = self.known.answers
        since = answers.count - answers.vouched
        set_aside = self.stored.set_aside
        if not self._in_memory and set_aside:
            aside = f"The {set_aside} replies since the last good check are set aside"
            aside += ": the next run asks for them again"
            if are_mixed:
                aside += (
                    f". Earlier ones may be mixed too: {setting('workflow.force_reprocess')} asks"
                    " for all again"
                )
            return aside
        if not since:
            return "No boxes were asked for"
        if not self._in_memory:
            return "Every reply so far is kept"
        what_became = "none of them returned"
        returned = answers.returned - answers.vouched
        if returned > 0:
            what_became = f"{returned} of them already returned: don't use them"
        return f"{since} answers came since the last good check, {what_became}"

    def finish(self, *, vouched: bool) -> None:
        """Note that the run is done, and all its answers are returned.

        `vouched` says that its format is right, as far as known.
        """
        if vouched:
            self.stored.finish()
        self.known.answers.returned = self.known.answers.count
