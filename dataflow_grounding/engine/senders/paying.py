"""The budget of what is sent, at its worst case, and what each answer has cost."""

import time
from functools import partial
from typing import Any

from dataflow_grounding._util import errors
from dataflow_grounding.engine.budget import Budget, with_worst_case
from dataflow_grounding.engine.senders.heard_replies import HeardReplies
from dataflow_grounding.engine.senders.refusals import REFUSED_IN_A_ROW, all_refused
from dataflow_grounding.engine.senders.sender import Asked, Sender
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.serving.serving import Reply, Serving, Usage
from dataflow_grounding.tasks.request import Request


class Paying:
    """Sends within the budget, plain questions and further forms of a request, too."""

    def __init__(
        self,
        serving: Serving,
        sender: Sender,
        budget: Budget,
        traffic: Traffic,
        heard: HeardReplies,
    ) -> None:
        self._serving = serving
        self._next = sender
        self._budget = budget
        self._traffic = traffic
        self._heard = heard

    async def send(self, asked: Asked) -> Reply:
        traffic, request = self._traffic, asked.request
        usage: Usage | None = None  # what is billed; None: unknown, so that the worst case counts
        tier = ""
        traffic.check_stopped()
        try:
            reserved = await self._budget.reserve(request, self._serving)
        except errors.RunStopped as why:
            traffic.stop(why)
            raise
        try:
            traffic.check_stopped()  # once more, because the request may have waited
            traffic.counts["sent"] += 1
            traffic.in_flight += 1
            # A serving may send further requests for one answer: in other forms, such as without a
            # schema, until one isn't refused.
            before_another = partial(self._before_another, [])
            sending = request.sending.replace(before_another=before_another)
            sent_at = time.monotonic()
            try:
                reply = await self._next.send(asked.again(request.replace(sending=sending)))
            finally:
                traffic.in_flight -= 1
            reply = self._heard.marked(reply, request, sent_at)
            tier = reply.tier
            usage = _billed_for(reply, request, self._serving, is_limited=reserved > 0)
            self._count(reply, sent_at)
            return reply
        except errors.GroundingError as error:
            usage = self._billed_for_error(error, asked)
            raise
        finally:
            # no matter what is raised, or the room in the budget would never come back
            self._budget.settle(reserved, usage, self._serving, tier)

    def _before_another(
        self,
        refused_forms: list[errors.RequestRefused],
        refused: errors.RequestRefused | None = None,
    ) -> None:
        """Count a further request for one answer; raise RunStopped if it may not be sent."""
        if refused is not None:
            refused_forms.append(refused)
            self._traffic.note_refusal()
            # a serving of the user's own may never run out of other forms
            if len(refused_forms) >= REFUSED_IN_A_ROW:
                raise all_refused(refused, len(refused_forms))
        with self._traffic.stopping():
            self._traffic.check_stopped()
            self._budget.count_further_request()
        self._traffic.counts["sent"] += 1

    def _count(self, reply: Reply, sent_at: float) -> None:
        counts = self._traffic.counts
        counts["answered"] += 1
        if reply.kept:  # its tokens were paid for before, and it tells nothing of the model
            counts["kept"] += 1
            self._traffic.last_fault = None
            return
        self._traffic.note_answer(sent_at)
        for name, tokens in vars(reply.usage).items():  # "input_tokens", …
            counts[name] += tokens

    def _billed_for_error(self, error: errors.GroundingError, asked: Asked) -> Usage | None:
        """Return what is billed for a request without a reply; None where nobody knows."""
        if isinstance(error, errors.RateLimited):
            self._traffic.counts["rate_limited"] += 1
        billed: Usage | None = error.billed  # None where the error names no tokens
        if billed is not None and billed != Usage():
            self._traffic.counts.update(vars(billed))  # "input_tokens", …
            keep_for_cost(Reply("", "error", billed), asked.request, self._serving, asked.by)
            return billed
        if isinstance(error, errors.ServerFault) and error.may_be_billed:
            return None
        return Usage()


def _billed_for(
    reply: Reply, request: Request[Any], serving: Serving, *, is_limited: bool
) -> Usage | None:
    """Return the tokens that a reply is billed for; None where the endpoint reports none."""
    if reply.kept:  # no model has worked for it
        return Usage()
    if reply.usage == Usage():
        return None
    if is_limited:  # a budget in USD counts them, with the worst case for what isn't reported
        return with_worst_case(reply.usage, request, serving, reply.text)
    return reply.usage
