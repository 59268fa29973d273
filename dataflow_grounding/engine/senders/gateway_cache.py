"""Replies of a gateway's cache: one that it has kept is no further answer, and no check.

A reply is `kept` if a cache gave it. It is `repeated` if it is no use: another answer was wanted,
or it is about another picture.
"""

from dataclasses import replace

from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.senders.heard_replies import HeardReplies
from dataflow_grounding.engine.senders.sender import Asked, Sender
from dataflow_grounding.engine.senders.stored import keep_for_cost
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.serving.serving import Reply, Serving


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

    async def send(self, asked: Asked) -> Reply:
        reply = self._marked(asked, await self._next.send(asked))
        if not reply.repeated or asked.is_check:
            return reply
        own_sending = asked.request.sending.replace(own_reply=True)
        past_cache = asked.again(asked.request.replace(sending=own_sending))
        for _ in range(self._traffic.max_attempts - 1):
            if not self._heard.is_of_another_picture(reply, asked.request):
                break
            keep_for_cost(reply, asked.request, self._serving, asked.by)
            reply = self._marked(past_cache, await self._next.send(past_cache))
        return reply

    def _marked(self, asked: Asked, reply: Reply) -> Reply:
        if not reply.kept:
            return reply
        is_of_another_picture = self._heard.is_of_another_picture(reply, asked.request)
        if not (is_of_another_picture or asked.request.wants_own_reply):
            return reply
        self._tell(is_of_another_picture)  # before it is counted, because it warns of the first
        self._traffic.counts["repeated"] += 1
        self._traffic.counts["of_another_picture"] += int(is_of_another_picture)
        return replace(reply, repeated=True)

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
