"""A run by several processes of this machine, for clients that keep more than one core busy.

Of what there was to build on, this takes the driver and the workers of runs on Ray, with pipes in
place of Ray. So all that holds there holds here by the same code: one split of the input, one pool
of leases for what the endpoint takes, for requests and for USD; a lost worker is replaced; stores
of replies that every later run reads. `--shard` and `merge` would have left each process its own
limits and its own `run.json`; threads share one core.

There are as many blocks as processes, not several for each as on Ray: processes of one machine are
alike, and each block pays for checks of its own and ends with a few late replies.
"""

import asyncio
import copyreg
import itertools
import os
import pickle
import signal
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from types import FunctionType
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import learned
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.engine.limiter import FoundPlaces, Key, Level
from dataflow_grounding.engine.progress import Now
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.extras.scale.cluster._worker import ShardOutcome, Work, WorkError
from dataflow_grounding.extras.scale.cluster.driver import DrivenRun, WorkerHandle, WorkerLost
from dataflow_grounding.extras.scale.cluster.link import HEAD_BYTES, framed, size_of
from dataflow_grounding.extras.scale.leases import LeasePool
from dataflow_grounding.serving.base import Serving

END_SECONDS = 5.0  # the longest wait for a process that was killed, and for closing its pipe


class ProcessesRun(DrivenRun):
    """One pass over a source by `count` processes, which leaves what a Run in this one would.

    `arguments` are a Run's.
    """

    whose = "this machine"

    def __init__(self, count: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._count = count
        self._starting: list[asyncio.Task[_Process]] = []  # one for each process, never taken out
        self._ready: deque[_Process] = deque()  # started ahead, and not yet asked for
        self._shown = Counter[str]()  # how often each line was shown

    def _ship(self, work: Work) -> bytes:
        return pickled(work)

    async def _execute(self) -> None:
        """Split the rows, have the processes work them through, and put the parts together.

        No process outlasts this, whatever it raises.
        """
        budget = self._budget
        self._pool = LeasePool(
            budget.max_requests,
            budget.usd,
            before=(budget.sent, budget.spent),
            levels=self._begun_levels(),
        )
        try:
            # Python and the package are loaded there while the rows are split here.
            await self._start_ahead()
            self._split(self._count)
            await self._take_through(self._count)
        finally:
            await self._end_processes()
        self._join()

    async def _start_ahead(self) -> None:
        """Start all processes, as far as the machine has room for them.

        One that is missing is started when a worker is asked for: it may have room by then.
        """
        with suppress(WorkerLost):
            for _ in range(self._count):
                self._ready.append(await self._new_process())

    async def _end_processes(self) -> None:
        """End all processes that were ever started, also those that are still starting."""
        started = await asyncio.gather(*self._starting, return_exceptions=True)
        endings = [process.ended() for process in started if isinstance(process, _Process)]
        await asyncio.gather(*endings)

    def _begun_levels(self) -> dict[Key, Level]:
        """Return the pool's limits of requests in flight, by endpoint and model.

        Each endpoint has one, of the highest `max_workers` that a serving has for it. So has a
        serving with several endpoints, under its own address: for all of them together.
        """
        levels: dict[Key, Level] = {}
        most_in_flight = Counter[Key]()
        for serving in self._servings():
            for part, _ in serving.endpoints():
                key = (part.endpoint, part.model)
                most_in_flight[key] = max(most_in_flight[key], part.max_workers)
        for key in self._endpoints():
            levels[key] = self._begun_level(key, most_in_flight[key])
        for serving in self._servings():
            parts = [part for part, _ in serving.endpoints() if "://" in part.endpoint]
            if len(parts) > 1:
                places = sum(levels[part.endpoint, part.model].places for part in parts)
                together = Level(serving.max_workers)
                together.resume(FoundPlaces(places))
                levels[serving.endpoint, serving.model] = together
        return levels

    async def _start_worker(self) -> WorkerHandle:
        """Return a process that was started ahead, else a new one. Raises WorkerLost."""
        if self._ready:
            return self._ready.popleft()
        return await self._new_process()

    async def _new_process(self) -> "_Process":
        """Start a worker's process. Raises WorkerLost where the machine has no room for it."""
        starting = asyncio.create_task(_Process.started(self._pool, self._show))
        self._starting.append(starting)
        # Cancelled while it starts a process, asyncio loses track of that, and prints a warning.
        return await asyncio.shield(starting)

    async def _totals_of_pool(self) -> tuple[int, float]:
        return self._pool.reported_totals()

    async def _levels_of_pool(self) -> dict[Key, FoundPlaces]:
        return self._pool.known_levels()

    def _show(self, line: str, times: int) -> None:
        """Print a line that a worker prints for the `times`-th time, if it wasn't so often yet.

        So a line that each worker prints once, about an endpoint, say, is printed once.
        """
        if times > self._shown[line]:
            self._shown[line] = times
            say(line)


class _Process:
    """A worker in a process of its own; see WorkerHandle."""

    def __init__(
        self, process: asyncio.subprocess.Process, pool: LeasePool, show: Callable[[str, int], None]
    ) -> None:
        """Begin to listen to a process that has been started.

        `show` is called with each line that the process prints, and how often it has printed it.
        """
        self._process = process
        self._pool = pool
        self._show = show
        self._numbers = itertools.count()  # of calls
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # for answers, by the call's number
        self._times_said = Counter[str]()  # how often it has printed each line
        self._lost = ""  # how it ended, once it has
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def started(cls, pool: LeasePool, show: Callable[[str, int], None]) -> "_Process":
        """Start a worker's process, and return it before it has loaded anything.

        Raises WorkerLost where the machine has no room for it.

        The process is in a session of its own: Ctrl-C, which a terminal sends to all processes of a
        session, reaches the driver alone. Keys come through a pipe: other users of the machine can
        read a command line.
        """
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from {__package__}.process_worker import"
            " main; main()"
        )
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=pipe, stdout=pipe, start_new_session=True
            )
        except OSError as error:
            await asyncio.sleep(0.5)  # the shortage may pass before the driver tries again
            raise WorkerLost(f"no process can be started: {error.strerror or error}") from None
        worker = cls(process, pool, show)
        worker._send("secrets", *learned())
        return worker

    async def begin(self, work: bytes) -> WorkError | None:
        wrong: WorkError | None = await self._answer("begin", work, __version__)
        return wrong

    async def work_on(self, shard: Shard) -> ShardOutcome:
        done: ShardOutcome = await self._answer("work_on", shard)
        return done

    async def now(self) -> Now | None:
        now: Now | None = await self._answer("now")
        return now

    def interrupt(self) -> None:
        self._send("interrupt")

    def end(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                # Process.kill would take the exit code away from asyncio, which then warns.
                os.kill(self._process.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Kill the process, wait until it is gone, for END_SECONDS at most, and close its pipe."""
        self.end()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        await self._close_stdin()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _close_stdin(self) -> None:
        """Close the worker's standard input.

        A last write to a worker that is gone has failed: that error is taken here, as asyncio would
        print it otherwise.
        """
        stdin = self._process.stdin
        assert stdin is not None
        stdin.close()
        with suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(stdin.wait_closed(), END_SECONDS)

    def _send(self, *message: Any) -> None:
        """Send the process a message; nothing happens where it is gone."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone, which _listen finds out
            self._process.stdin.write(framed(message))

    def _answer(self, method: str, *arguments: Any) -> Awaitable[Any]:
        """Call a method of the worker; return a future of what it returns.

        The future raises WorkerLost where the process ends before, or has ended.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._lost:
            future.set_exception(WorkerLost(self._lost))
            return future
        number = next(self._numbers)
        self._waiting[number] = future
        self._send(method, number, *arguments)
        return future

    async def _listen(self) -> None:
        """Take what the worker sends until it is gone; fail all calls that it leaves unanswered."""
        assert self._process.stdout is not None
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._process.stdout.readexactly(HEAD_BYTES)
                self._heed(*pickle.loads(await self._process.stdout.readexactly(size_of(head))))
        code = await self._process.wait()
        self._lost = f"ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerLost(self._lost))

    def _heed(self, what: str, *details: Any) -> None:
        """Do what a message from the worker asks for, `what` with these `details`.

        "renew", NUMBER, REPORT: send it the pool's grant for the report. "say", LINE: show the
        line. "answer", NUMBER, ANSWER: hand the answer to whoever made the call of this number.
        """
        if what == "renew":
            number, report = details
            self._send("grant", number, self._pool.renew(report))
        elif what == "say":
            [line] = details
            self._times_said[line] += 1
            self._show(line, self._times_said[line])
        else:
            number, answer = details
            future = self._waiting.pop(number)
            if not future.done():  # who asked may wait no longer
                future.set_result(answer)


def pickled(thing: Any) -> bytes:
    """Return an object as bytes for another process of this machine, keys included.

    Raises SpecError for what can't be pickled.
    """
    file = BytesIO()
    try:
        _Pickler(file).dump(thing)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        way = "what holds a lock, a file or a connection should make it when it is first asked"
        raise SpecError(f"the steps can't be sent to other processes: {error}; {way}") from None
    return file.getvalue()


class _Pickler(pickle.Pickler):
    """Pickles what pickle does, and two things more.

    These are servings with their keys, as nobody else reads the pipe, and functions that a
    decorator such as `operator` has replaced: see `_place_in_replacement`.
    """

    def reducer_override(self, thing: Any) -> Any:
        """Return how to make a serving or a replaced function anew, as `__reduce__` does.

        NotImplemented for everything else, and for servings with a `__getstate__` of their own:
        these are pickled as usual. Serving's own would leave out the keys.
        """
        if isinstance(thing, Serving) and type(thing).__getstate__ is Serving.__getstate__:
            return copyreg.__newobj__, (type(thing),), thing.__dict__  # type: ignore[attr-defined]
        if isinstance(thing, FunctionType):
            arguments = _place_in_replacement(thing)
            if arguments is not None:
                return _attribute_of, arguments
        return NotImplemented


def _place_in_replacement(function: FunctionType) -> tuple[str, str, str] | None:
    """Return where a function is that a decorator has replaced: the arguments of `_attribute_of`.

    Its name in its module then stands for what the decorator made, so that pickle can't find it
    there; but this may have the function as an attribute. None where it hasn't.
    """
    module = sys.modules.get(function.__module__)
    if module is None:
        return None
    replacement = vars(module).get(function.__qualname__)
    attributes = getattr(replacement, "__dict__", {})
    for attribute, value in attributes.items():
        if value is function:
            return function.__module__, function.__qualname__, attribute
    return None


def _attribute_of(module: str, name: str, attribute: str) -> Any:
    """Return an attribute of what has this name in a module, which is imported if need be."""
    __import__(module)
    return vars(vars(sys.modules[module])[name])[attribute]
