"""What is found out once for all who ask, while nothing else is sent."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from dataflow_grounding.engine.senders.traffic import Traffic

P = ParamSpec("P")
T = TypeVar("T")


class Question(Generic[P, T]):
    """Finds something out: whoever asks meanwhile gets the same answer."""

    def __init__(self, traffic: Traffic, find: Callable[P, Coroutine[Any, Any, T]]) -> None:
        self._traffic = traffic
        self._find = find
        self._under_way: asyncio.Task[T] | None = None

    async def answer(self, *arguments: P.args, **keywords: P.kwargs) -> T:
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._found(*arguments, **keywords))
            self._under_way.add_done_callback(self._over)
            self._traffic.questions.add(self._under_way)
        return await asyncio.shield(self._under_way)

    async def _found(self, *arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return await self._find(*arguments, **keywords)
        finally:
            # Here, and not in a callback of the task: that would run after the requests that the
            # answer lets in, which would still find it under way.
            if self._under_way is not None:
                self._traffic.questions.discard(self._under_way)
            self._under_way = None

    def _over(self, question: "asyncio.Task[T]") -> None:
        self._traffic.questions.discard(question)  # also of one that was cancelled as it began
        if not question.cancelled():
            question.exception()  # who waits gets it; without anybody, asyncio would complain
