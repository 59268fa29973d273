"""How many bytes an endpoint takes in one picture, as its refusals tell.

An endpoint seldom says so before it refuses one. What is told goes into `image_limits` of the
serving, by which pictures are opened, and into the store of replies: a run that goes on opens all
pictures as this one did, and finds its replies.
"""

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import PictureReduced, PictureTooLarge
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.request import Request

if TYPE_CHECKING:
    from dataflow_grounding.engine.annotating import StepAsk

# Characters in base64 to which a picture is reduced where no limit is named, if that is less than
# half. First it is less than any limit in docs/endpoints.md; the lowest is Groq's, 4 MB a request.
# Then it is less than 1 MB a request, as which nginx begins (client_max_body_size).
USUAL = 3_600_000
LOWEST = 900_000
LEAST = 20_000  # a smaller picture isn't what is too large
MOST_REDUCTIONS = 2  # for the same record
# What is named may count all of the request, or megabytes of either kind.
SPARE = 0.05


class PictureLimit:
    """What is known of it for one serving of a run."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._is_recalled = False
        # what is in the store: a limit by which pictures that were reduced have been answered
        self._kept: int | None = None
        self._taken = 0  # the most characters of a picture that was answered
        self._has_told = False

    def _set(self, learnt: int | None) -> None:
        limits = self._serving.image_limits
        self._serving.image_limits = replace(limits, learnt_bytes=learnt)

    def recall(self, store: KeyedLog) -> None:
        """Go by what an earlier run has kept, once, before the first picture is opened."""
        if self._is_recalled:
            return
        self._is_recalled = True
        line = store.get(self._key()) or {}
        most = line.get("picture_bytes")
        if type(most) is int and most >= LEAST:  # else it is damaged
            self._kept = most
            self._set(most)

    def check(self, request: Request[Any], by: "StepAsk") -> None:
        """Raise PictureReduced where a picture was opened before the limit was known, and may be
        over it.
        """
        most = self._serving.image_limits.most_base64
        if most is None or not by.makes_again:
            return
        for image in request.images:
            if image.limits.most_base64 != most and image.most_characters > most:
                raise PictureReduced("the picture is over a limit that was told meanwhile", most)

    def refused(self, request: Request[Any], refusal: PictureTooLarge, by: "StepAsk") -> None:
        """Lower the limit after a refusal, and raise PictureReduced. It returns where that is no
        use: for small pictures, and if the same record's were reduced MOST_REDUCTIONS times.
        """
        lengths = [image.most_characters for image in request.images]
        if not by.makes_again or max(lengths, default=0) < LEAST:
            return
        limits = self._serving.image_limits
        opened_by = {image.limits.most_base64 for image in request.images}
        most = limits.most_base64
        if most is None or most in opened_by:
            if by.reductions >= MOST_REDUCTIONS:
                self._set(self._kept)  # smaller pictures are refused as well
                return
            by.reductions += 1
            most = self._lower_than(lengths, refusal)
            self._set(most)
            self._tell(refusal, most)
        raise PictureReduced(str(refusal), most)

    def answered(self, request: Request[Any], by: "StepAsk") -> None:
        """Note the sizes of pictures that were answered, before the reply is stored."""
        learnt = self._serving.image_limits.learnt_bytes
        for image in request.images:
            if len(request.images) == 1:
                self._taken = max(self._taken, image.most_characters)
            if learnt != self._kept and image.is_fitted:
                self._kept = learnt
                line = {"step": by.step, "task": CHECK, "picture_bytes": learnt}
                by.store.put(self._key(), line)

    def _lower_than(self, lengths: list[int], refusal: PictureTooLarge) -> int:
        largest = max(lengths)
        of_one = [number for number in refusal.numbers if LEAST <= number < largest]
        of_all = [number for number in refusal.numbers if largest <= number < sum(lengths)]
        if of_one:
            lower = int(min(of_one) * (1 - SPARE))
        elif of_all:
            lower = int(min(of_all) * (1 - SPARE)) // len(lengths)
        else:
            lower = min(largest // 2, USUAL if largest > USUAL else LOWEST)
        # A picture that was answered when it was sent alone goes on being sent as it is, so that
        # its stored reply is found.
        was_alone = len(lengths) == 1 and self._taken < largest
        return max(lower, LEAST, self._taken if was_alone else 0)

    def _tell(self, refusal: PictureTooLarge, most: int) -> None:
        if self._has_told:
            return
        self._has_told = True
        say(
            f"Note: {str(refusal).rstrip('.')}. Larger pictures are sent smaller from now on: with"
            f" {most} bytes in base64 at most, or fewer if those are refused. If you know the"
            f" limit, state it in {setting('vlm.picture_bytes')}."
        )

    def _key(self) -> str:
        # without the address, as the key of a reply
        identity = json.dumps(self._serving.identity(), sort_keys=True, default=repr)
        return hashlib.sha256(f"picture limit {identity}".encode()).hexdigest()[:32]
