"""The store of replies: what is paid for is kept before anybody reads it, and sent for once."""

import asyncio
import copy
import time
from typing import Any

from dataflow_grounding._util import errors
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.keyed_log import key_of
from dataflow_grounding.engine.reply_line import REFUSED_BY_ERROR, line_of
from dataflow_grounding.engine.senders.sender import Asked, Asker, Sender
from dataflow_grounding.serving.serving import Reply, Serving, Usage
from dataflow_grounding.tasks.request import Request


class StoredReplies:
    """Returns the stored line of a request's reply; equal requests under way at once are sent once.

    A refusal by an error isn't stored: it is final within a run, and the next run asks again.
    """

    def __init__(self, sender: Sender, serving: Serving) -> None:
        self._next = sender
        self._serving = serving
        # by the request's key: the line that is waited for, and that of a refusal by an error
        self.under_way: dict[str, asyncio.Future[JsonObject]] = {}
        self._refusals: dict[str, JsonObject] = {}

    async def line(self, asked: Asked) -> JsonObject:
        before_sending = asked.request.sending.before_sending
        if before_sending is not None:
            await before_sending()
        store, key = asked.by.store, asked.key
        line = None
        if not asked.is_check:  # a check is asked each time, unless it was refused
            line = store.get_new(key)
        if line is None:
            line = self._refusals.get(key)
        if line is not None:
            return line
        under_way = self.under_way.get(key)
        if under_way is not None:
            return await _line_of_equal(under_way)
        # Nothing is awaited between the look above and this entry, so that equal requests of two
        # records are never both sent, and paid for twice.
        future: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self.under_way[key] = future
        try:
            line = await self._sent_and_stored(asked)
        except BaseException as error:
            # a waiter would take the CancelledError of this task for one of its own
            is_own = isinstance(error, Exception)
            future.set_exception(error if is_own else errors.Interrupted("stopped"))
            future.exception()  # without a waiter, asyncio would complain that nobody took it
            raise
        finally:
            del self.under_way[key]
        future.set_result(line)
        return line

    async def _sent_and_stored(self, asked: Asked) -> JsonObject:
        request, by = asked.request, asked.by
        try:
            reply = await self._next.send(asked)
        except errors.RequestRefused as refused:
            refusal = Reply("", REFUSED_BY_ERROR, Usage(), str(refused))
            line = line_of(by.step, request, self._serving, refusal, asked.is_check)
            self._refusals[asked.key] = line
            return line
        line = line_of(by.step, request, self._serving, reply, asked.is_check)
        return by.store.put(asked.key, line)


async def _line_of_equal(under_way: "asyncio.Future[JsonObject]") -> JsonObject:
    try:
        # Shielded: this record may be cancelled, while the request is another one's and goes on.
        return await asyncio.shield(under_way)
    except errors.RecordError as error:
        raise copy.copy(error) from None  # each record's own: operators may add to it


def keep_for_cost(reply: Reply, request: Request[Any], serving: Serving, by: Asker) -> None:
    """Store for `cost` what answers no record's request: it is paid for, too."""
    line = line_of(by.step, request, serving, reply, check=True)
    by.store.put(key_of(f"paid {time.time_ns()}"), line)  # no record's request has that key
