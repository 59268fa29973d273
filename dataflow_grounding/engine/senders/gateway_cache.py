"""Replies of a gateway's cache: one that came before is no further answer, and no check.

A reply is `kept` if a cache gave it. It is `repeated` if it is no use: it came before, and another
answer was wanted.
"""

from dataclasses import replace

from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.senders.heard_replies import HeardReplies, Remembered
from dataflow_grounding.engine.senders.sender import Asked, Sender
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks.request import Tries


class PastCaches:
    """Marks replies that are repeated, and asks past the cache where one is about another picture.

    Where the gateway knows no request for a reply of its own, the record fails.
    """

    def __init__(
        self, sender: Sender, heard: HeardReplies, traffic: Traffic, serving: Serving
    ) -> None:
        self._next = sender
        self._heard = heard
        self._traffic = traffic
        self._serving = serving
        self._identity = serving.identity()
        # By question: which of its samples each text answered first. A sample is one of several
        # answers to the same question.
        self._samples_by_question = Remembered[dict[int, int]]()
        self._were_several = False  # whether some question was to be answered more than once

    async def send(self, asked: Asked) -> Reply:
        reply = self._marked(asked, await self._next.send(asked))
        if not reply.repeated or asked.is_check:
            return reply
        # a reply that is repeated in another way, such as a sample that came before, stays
        own_sending = asked.request.sending.replace(own_reply=True)
        past_cache = asked.again(asked.request.replace(sending=own_sending))
        for _ in range(self._traffic.max_attempts - 1):
            if not self._heard.is_of_another_picture(reply, asked.request):
                break
            keep_for_cost(reply, asked.request, self._serving, asked.by)
            reply = self._marked(past_cache, await self._next.send(past_cache))
        return reply

    def _marked(self, asked: Asked, reply: Reply) -> Reply:
        came_before = self._came_before(asked, reply)
        if not reply.kept:
            return reply
        is_of_another_picture = self._heard.is_of_another_picture(reply, asked.request)
        if not (is_of_another_picture or came_before or asked.request.wants_own_reply):
            return reply
        self._tell(is_of_another_picture)  # before it is counted, because it warns of the first
        self._traffic.counts["repeated"] += 1
        self._traffic.counts["of_another_picture"] += int(is_of_another_picture)
        return replace(reply, repeated=True)

    def _came_before(self, asked: Asked, reply: Reply) -> bool:
        """Note a sample's answer; return whether another sample of the question got the same."""
        request = asked.request
        # most runs ask each question once, and need no key for all of its answers
        self._were_several = self._were_several or request.sample > 0 or request.tries.unread > 0
        if not self._were_several:
            return False
        # all samples go by one key: that of the first try for the first of them
        first_request = request.replace(sample=0, tries=Tries())
        question = first_request.key(self._identity)
        sample_by_text = self._samples_by_question.get(question)
        if sample_by_text is None:
            sample_by_text = {}
            self._samples_by_question.set(question, sample_by_text)
        text = hash(reply.text)
        first_sample = sample_by_text.setdefault(text, request.sample)
        if first_sample != request.sample:
            return True
        for sample in range(request.sample if reply.kept else 0):  # of an earlier run
            key = first_request.replace(sample=sample).key(self._identity)
            for line in asked.by.store.every(key):
                if line.get("reply") == reply.text and not line.get("repeated"):
                    return True
        return False

    def _tell(self, is_of_another_picture: bool) -> None:
        """Warn of the first repeated reply, and of the first about another picture."""
        counts = self._traffic.counts
        address = self._serving.endpoint
        headers = setting("vlm.openai.extra_headers")
        if is_of_another_picture and not counts["of_another_picture"]:
            say(
                f"Warning: {address} answers from a cache, and gave the reply about one picture to"
                " a question about another. Such replies are asked for again, but what it kept"
                " before this run isn't noticed: switch its cache off, as by a header in"
                f" {headers}."
            )
        elif not counts["repeated"]:
            say(
                f"Warning: {address} answers from a cache: such replies don't count as further"
                f" answers, nor as checks. Switch its cache off, as by a header in {headers}, and"
                " run again with --retry-failed."
            )
