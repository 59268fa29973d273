"""The probe pictures of one run: when they are due, what they showed, and what that means.

A probe picture that is answered as asked vouches for the replies before it: a later run may read
them from the store. `Probing` is one run's checks. `Known` is what outlives a call for records in
memory, so that one call after another doesn't check the same endpoint again and again.
"""

import asyncio
import copy
import hashlib
import json
import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dataflow_grounding._util.errors import concerns_all
from dataflow_grounding._util.lazy import load_aside
from dataflow_grounding._util.settings import setting
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.options import OwnPictures, RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.watch._evidence import Evidence
from dataflow_grounding.watch._probe_sizes import ProbeSizes, orientation_of

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

# Answers that lie between two checks at the least, whatever calls for one. A run that had as many
# since its last check ends with another.
LEAST_BETWEEN = 20
MORE_OFTEN = 25  # requests between two checks once a picture was clearly answered in another format
WORTH = 0.042  # requests that the watch may send over small doubts, as a share of a run's answers
MOST_AT_ONCE = 3  # requests over small doubts that are sent at the end of a run
SILENT = 2  # after so many checks in a row that told nothing, no more are made
_ANY_SIZE = (1024, 768)  # of a probe picture, where nothing is known of the run's pictures
FRESH = 600.0  # seconds for which a check holds for further calls in this process


class Known:
    """What is known of an endpoint, model and format.

    It is known of one run or, for records in memory, of all that this process asked.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.checked_at = -math.inf
        """When the last check ended, by the monotonic clock, in seconds."""
        self.sent = 0
        """Requests since the last check."""
        self.answers = 0
        """Answers so far, in all."""
        self.answers_then = 0
        """The number of `answers` when the last check began."""
        self.vouched = 0
        """The number of `answers` when the last good check began."""
        self.returned = 0
        """The number of `answers` that calls have returned."""
        self.extra = 0
        """Requests beyond the run's own: probe pictures, and questions that were asked again.

        Pictures that are added to confirm a miss, or for further endpoints, aren't counted.
        """
        self.checks_unanswered = 0
        """Checks in a row that told nothing."""
        self.odd: str | None = None
        """The format in which a probe picture was clearly answered, though others were not."""
        self.good: dict[str, int] = {}
        """For each orientation, the number of `answers` at the last check that it passed."""
        self.sizes = ProbeSizes(in_pixels=asked.scale == "px")
        self.evidence = Evidence(asked)
        self.check_under_way: Future[BaseException | None] | None = None
        """Set while a run makes a check: other runs of the process wait for its end."""
        self.lock = threading.Lock()
        """Held at each look at `check_under_way`."""

    @property
    def is_fresh(self) -> bool:
        """Whether a check was made less than FRESH ago, and so still holds."""
        return time.monotonic() - self.checked_at < FRESH


_known: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints asked in this process, by Probing.of."""


def _forget_checks_under_way() -> None:
    """Forget, in a forked process, what threads of its parent are checking: none goes on here."""
    for known in list(_known.values()):
        known.check_under_way = None
        known.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_checks_under_way)


def probes_for(
    requests: int, every: int | None, pictures: Mapping[Size, int], *, in_pixels: bool
) -> int:
    """Return how many probe pictures a run asks an endpoint about, if all are answered as asked.

    It is an estimate, 0 without requests or checks.

    Args:
        requests: The run's own requests.
        every: Requests between two checks; None for no checks.
        pictures: How many of the run's pictures are sent in each size, as `sent_sizes` returns it.
        in_pixels: Whether boxes are in pixels.
    """
    if not requests or every is None:
        return 0
    sizes = ProbeSizes(in_pixels=in_pixels)
    sizes.expect(pictures or {_ANY_SIZE: 1})
    probes = len(sizes.chosen(every=True))
    probes += requests // every  # further checks have one picture each, nearly always
    requests_after_last = requests % every
    if requests_after_last >= min(LEAST_BETWEEN, every) or sizes.outgrown:
        probes += len(sizes.chosen(last=True))
    return probes


def sent_sizes(pictures: OwnPictures, limits: ImageLimits) -> Counter[Size]:
    """Return the sizes in which pictures are sent within these limits, with how many of each."""
    fitted: Counter[Size] = Counter()
    for size, count in zip(pictures.sizes, pictures.counts, strict=True):
        fitted[limits.sent(size)] += count
    return fitted


def _name_of(serving: Serving, asked: BoxFormat, form: str) -> str:
    """Return what stands for a format at a serving's endpoint and model: its name and a digest.

    `form` is the form in which boxes are asked for; "" for the usual one.
    """
    endpoint = {**serving.identity_there(), "box_format": asked.name}
    if form:
        # The usual form isn't named, so that what earlier versions vouched for stays so.
        endpoint["asking"] = form
    whose = json.dumps(endpoint, sort_keys=True, default=repr)
    return f"{asked.name} {hashlib.sha256(whose.encode()).hexdigest()[:16]}"


def _known_of(serving: Serving, name: str, asked: BoxFormat) -> Known:
    """Return what this process knows of a format at a serving, whose `name` is `Probing.of`.

    A class of the user's that says of itself no more than its model's name may have another server
    behind each object: what is known of one is not known of another.
    """
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


class Probing:
    """The checks of one run by probe pictures.

    Args:
        serving: The serving that is asked.
        asked: The format of the run's boxes.
        every: Requests between two checks; None for no checks.
        start: What the run starts with.
        calibrated: Whether the format has been found out by calibrating.
        just_now: Whether the model was calibrated just now, which is as good as a first check.
        trusting: Whether replies that were set aside as suspect count all the same.
        form: The form in which boxes are asked for; "" for the usual one.

    Attributes:
        of: What a check vouches for: the name and digest of this format at this endpoint and model.
        known: What is known of these; for records in memory, all runs of this process share it.
        evidence: What this run's replies say.
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
        calibrated: bool,
        just_now: bool,
        trusting: bool,
        form: str = "",
    ) -> None:
        self.calibrated = calibrated
        self.asked = asked
        self.in_memory = start.folder is None
        self._serving = serving
        self._every = every
        self._trusting = trusting
        parts = serving.endpoints()
        # The addresses to check, each by a picture; a single one isn't named in messages.
        self._endpoints = [part.endpoint for part, _ in parts] if len(parts) > 1 else [""]
        self.of = _name_of(serving, asked, form)
        self.known = _known_of(serving, self.of, asked) if self.in_memory else Known(asked)
        # `forget_format` gives `known` new evidence. This run, which ends then, keeps its own.
        self.evidence = self.known.evidence
        self._start: RunStart | None = start  # None once the sizes of its pictures were taken
        self._vouching: Vouching | None = None  # from the first record on
        # Whether the run works on a block of the rows, which processes share among them.
        self._is_block = bool(start.options.shard and start.options.shard.rows)
        self._marked = False  # whether the folder says that checks have begun
        self._unchecked = 0  # requests of this run since its last check
        self._set_aside = 0  # replies that don't count any more
        self.evidence.learns = self.wanted
        # A calibration is no check of several endpoints, as not all of them may have been asked.
        # Nor is one of a format in parts of the side: it was made in other shapes than those of the
        # run's own pictures.
        self._start_checks(calibrated=just_now and len(parts) == 1 and asked.scale == "px")

    def _start_checks(self, *, calibrated: bool) -> None:
        """Set whether checks have `begun`: by a calibration, or a check less than FRESH ago.

        Otherwise, what earlier calls counted is set back. With `calibrated`, the model was
        calibrated just now, which proves the format in all sizes.
        """
        known = self.known
        if calibrated:
            known.sizes.checked = None
            known.checked_at = time.monotonic()
            known.sent = 0
            known.vouched = known.answers
        self.begun = known.is_fresh
        if not self.begun:
            known.checks_unanswered = 0
            known.odd = None
            known.sent = 0

    @property
    def wanted(self) -> bool:
        """Whether checks are to be made in this run, and the serving takes probe pictures."""
        return self._every is not None and self._serving.takes_probes

    @property
    def possible(self) -> bool:
        """Whether checks are wanted, and not SILENT of them in a row went unanswered."""
        return self.wanted and self.known.checks_unanswered < SILENT

    # What the run does

    def add_picture(self, ask: Ask, size: Size) -> bool:
        """Count a picture that is asked about.

        Args:
            ask: The means of the picture's record to send requests.
            size: The size in which the picture is sent.

        Returns:
            Whether stored replies may be read that nobody vouched for.
        """
        self.known.sizes.add(size)
        if self._vouching is None:
            self._vouching = ask.vouching(self.of, self._trusting)
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
        self._unchecked += 1
        is_to_be_vouched_for = self.begun and self.possible
        if is_to_be_vouched_for and not self._marked and self._vouching is not None:
            self._marked = True
            self._vouching.write("begun")

    def due(self) -> bool:
        """Whether it is time for a check: enough was sent, or sizes that no picture stands for.

        Not before the first check, which RunWatch makes by itself, nor where none is `possible`.
        """
        if self._every is None or not self.begun or not self.possible:
            return False
        known = self.known
        every = min(self._every, MORE_OFTEN) if known.odd else self._every
        if known.sent >= every:
            return True
        answers_since = known.answers - known.answers_then
        return known.sizes.outgrown and answers_since >= LEAST_BETWEEN

    def due_at_the_end(self) -> bool:
        """Whether the run should not end without a check.

        It should not if enough requests came since its last one, or sizes that no picture stands
        for. False as for `due`.
        """
        if self._every is None or not self.begun or not self.possible:
            return False
        unchecked = self._unchecked
        if self.in_memory:  # another run of this process may have checked meanwhile
            unchecked = min(unchecked, self.known.sent)
        # A block of rows is checked however short it is: a run may consist of short ones alone.
        enough = 1 if self._is_block else min(LEAST_BETWEEN, self._every)
        return self.known.sizes.outgrown or unchecked >= enough

    @property
    def spare(self) -> int:
        """How many more requests may be spent on small doubts at the end, MOST_AT_ONCE at most."""
        allowed = int(WORTH * self.known.answers) - self.known.extra
        return max(0, min(MOST_AT_ONCE, allowed))

    def stands_for(self, size: Size) -> bool:
        """Whether a probe picture of the size's orientation was answered as asked not long ago.

        That is no more answers ago than lie between two checks.
        """
        answers_then = self.known.good.get(orientation_of(size), -math.inf)
        return self.known.answers - answers_then <= (self._every or 0)

    # What the pictures show

    async def check(
        self,
        ask: Ask,
        in_doubt: Callable[[], None],
        *,
        of_size: Size | None = None,
        orientation: str | None = None,
        last: bool = False,
    ) -> "CheckVerdict":
        """Ask for the boxes of probe pictures and say whether they are in the format asked for.

        A run's first check has a picture of each frequent orientation and, where boxes are in
        pixels, of the largest sizes. Any other check has one picture, of the orientation whose turn
        it is, unless an argument says otherwise. Where there are several endpoints, each is asked
        for one at least. That a check began is counted before it is answered, and stays so where
        the run stops meanwhile.

        Args:
            ask: A record's means to send requests.
            in_doubt: Called once a picture misses, before more are asked for.
            of_size: Probe this size alone.
            orientation: Probe this orientation, if the run has pictures of it; see
                ProbeSizes.chosen.
            last: The run ends: probe all orientations that were never probed, too.

        Raises:
            RunStopped: The run ended meanwhile.
        """
        assert self._vouching is not None
        known = self.known
        position = self._vouching.here()
        known.sent = 0
        known.answers_then = known.answers
        # Taken at once: a check that begins meanwhile does not look at the run's pictures, too.
        start = self._start
        self._start = None
        await load_aside("dataflow_grounding.calibration.checking")  # with NumPy
        from dataflow_grounding.calibration.checking import check

        if start is not None:
            await self._expect_pictures(start)
        if of_size:
            sizes = [of_size]
        else:
            sizes = known.sizes.chosen(every=not self.begun, orientation=orientation, last=last)
        self._unchecked = 0
        known.extra += len(sizes)
        verdict = await check(
            ask,
            self.asked,
            sizes,
            self._serving.image_limits,
            in_doubt,
            odd=known.odd,
            endpoints=self._endpoints,
        )
        self._note(verdict, position)
        return verdict

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

    async def _expect_pictures(self, start: RunStart) -> None:
        """Tell `known.sizes` in which sizes the run's pictures will be sent, and how often."""
        coming = await asyncio.to_thread(start.pictures)
        self.known.sizes.expect(sent_sizes(coming, self._serving.image_limits))

    def _note(self, verdict: "CheckVerdict", position: int) -> None:
        """Take in what a check showed, and write it down in the run's folder.

        Args:
            verdict: What the check showed.
            position: The end of the store when the check began: a good one vouches for the replies
                before it.
        """
        known = self.known
        vouching = self._vouching
        assert vouching is not None
        self.begun = True
        self._marked = True
        known.checked_at = time.monotonic()
        if verdict.kind == "silent":
            known.checks_unanswered += 1
        else:
            known.checks_unanswered = 0
        if known.checks_unanswered >= SILENT:
            self.evidence.unlearn()
        known.odd = known.odd or verdict.odd
        if verdict.kind == "fits":
            # Pictures that went unanswered prove nothing for their orientation.
            as_asked = {orientation_of(size) for size in verdict.answered}
            known.good.update(dict.fromkeys(as_asked, known.answers_then))
            self.evidence.withdraw(as_asked)
        if verdict.kind == "misses":
            self._set_aside = vouching.bad()
        elif verdict.kind == "fits" and known.odd is None and not known.evidence.proven:
            known.vouched = known.answers_then
            vouching.good(position)
        else:
            vouching.write("unclear")

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
        are_mixed = known.odd is not None or known.evidence.proven > 0
        known.checked_at = -math.inf
        known.odd = None
        known.good = {}
        known.evidence = Evidence(self.asked)
        return self._what_became_of_answers(are_mixed=are_mixed)

    def _what_became_of_answers(self, *, are_mixed: bool) -> str:
        """Return a sentence on what happens to the answers that no check vouched for.

        `are_mixed` says whether replies came in several formats.
        """
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
