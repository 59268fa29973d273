"""How many bytes an endpoint takes in one picture, as its refusals tell.

An endpoint seldom says so before it refuses one. What is told goes into `image_limits` of the
serving, by which pictures are opened, and into the store of replies: a run that goes on opens all
pictures as this one did, and finds its replies.
"""

import json
from dataclasses import replace
from typing import Any

from dataflow_grounding._util.errors import PictureReduced, PictureTooLarge
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.keyed_log import CHECK, key_of
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.senders.sender import Asked, Asker, Sender
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks.request import Request

LEAST = 20_000  # a smaller picture isn't what is too large
MOST_REDUCTIONS = 4  # for the same record


class WithinLimit:
    """Sends pictures that are within the limit; the limit may be told while a request waits for its
    place, so this is asked after it.
    """

    def __init__(self, sender: Sender, limit: "PictureLimit") -> None:
        self._next = sender
        self._limit = limit

    async def send(self, asked: Asked) -> Reply:
        self._limit.check(asked.request, asked.by)
        try:
            reply = await self._next.send(asked)
        except PictureTooLarge as refusal:
            self._limit.refused(asked.request, refusal, asked.by)
            raise
        self._limit.answered(asked.request, asked.by)
        return reply


class PictureLimit:
    """What is known of the limit for one serving; lengths are characters in base64."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._is_recalled = False
        # what is in the store: a limit by which pictures that were reduced have been answered
        self._stored_limit: int | None = None
        self._largest_taken = 0  # of the pictures that were answered, each sent alone
        self._has_told = False

    def _set(self, learnt: int | None) -> None:
        limits = self._serving.image_limits
        self._serving.image_limits = replace(limits, learnt_bytes=learnt)

    def recall(self, store: ReplyLog) -> None:
        """Go by what an earlier run has kept, once, before the first picture is opened."""
        if self._is_recalled:
            return
        self._is_recalled = True
        line = store.get(self._key()) or {}
        most = line.get("picture_bytes")
        if type(most) is int and most >= LEAST:  # else it is damaged
            self._stored_limit = most
            self._set(most)

    def check(self, request: Request[Any], by: Asker) -> None:
        """Raise PictureReduced for a picture that is over a limit told since it was opened."""
        limit_now = self._serving.image_limits.most_base64
        if limit_now is None or not by.may_begin_again:  # no further attempt would follow
            return
        for image in request.images:
            was_opened_before = image.limits.most_base64 != limit_now
            if was_opened_before and image.most_characters > limit_now:
                why = "the picture is over a limit that was told meanwhile"
                raise PictureReduced(why, limit_now)

    def refused(self, request: Request[Any], refusal: PictureTooLarge, by: Asker) -> None:
        """Lower the limit, and raise PictureReduced; return where that is no use."""
        if not by.may_begin_again:  # no further attempt would follow
            return
        lengths = [image.most_characters for image in request.images]
        if max(lengths, default=0) < LEAST:  # all are small
            return
        limit_now = self._serving.image_limits.most_base64
        limits_when_opened = {image.limits.most_base64 for image in request.images}
        if limit_now is not None and limit_now not in limits_when_opened:
            # another record's refusal has lowered the limit since these pictures were opened
            raise PictureReduced(str(refusal), limit_now)
        if by.reductions >= MOST_REDUCTIONS:
            # Smaller pictures are refused as well: their size wasn't the reason.
            self._set(self._stored_limit)
            return
        by.reductions += 1
        lower = self._lower_than(lengths, is_last=by.reductions == MOST_REDUCTIONS)
        self._set(lower)
        self._tell(refusal, lower)
        raise PictureReduced(str(refusal), lower)

    def answered(self, request: Request[Any], by: Asker) -> None:
        """Note the sizes of answered pictures; store the limit once a reduced one is answered."""
        learnt_limit = self._serving.image_limits.learnt_bytes
        if len(request.images) == 1:
            alone = request.images[0]
            self._largest_taken = max(self._largest_taken, alone.most_characters)
        for image in request.images:
            if learnt_limit != self._stored_limit and image.is_fitted:
                self._stored_limit = learnt_limit
                line = {"step": by.step, "task": CHECK, "picture_bytes": learnt_limit}
                by.store.put(self._key(), line)

    def _lower_than(self, lengths: list[int], is_last: bool) -> int:
        """Return the new limit after pictures with these lengths were refused: half of the way down
        to what was taken. No number is read out of the endpoint's words: it may be anything.
        """
        largest = max(lengths)
        # Pictures up to `_largest_taken` were answered, each sent alone. If a larger one is refused
        # alone, those go on being sent as they are, so that their stored replies are found.
        is_alone = len(lengths) == 1
        if not is_alone or self._largest_taken >= largest:
            return max(largest // 2, LEAST)
        if is_last and self._largest_taken >= LEAST:
            return self._largest_taken
        return max((self._largest_taken + largest) // 2, LEAST)

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
        """Return the key of its line, without the address, like that of a reply."""
        identity = json.dumps(self._serving.identity(), sort_keys=True, default=repr)
        return key_of(f"picture limit {identity}")
