"""A worker as a process of this machine.

It answers its driver's calls over pipes, and ends when the driver has gone. The main thread works
on shards, as signals and event loops want it; another reads what the driver sends.
"""

import gc
import io
import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any

from dataflow_grounding._util.secrets import learn
from dataflow_grounding.extras.scale.cluster._worker import Worker
from dataflow_grounding.extras.scale.cluster.link import HEAD_BYTES, framed, size_of
from dataflow_grounding.extras.scale.leases import Grant, Report

RENEW_SECONDS = 1.0  # the longest wait for a message with a grant


class Driver:
    """The driver, from its worker's side: what is sent to it, and what comes from it."""

    def __init__(self, commands: io.BufferedReader, answers: io.FileIO) -> None:
        self._commands = commands
        self._answers = answers
        self._sending = threading.Lock()
        self._grants: queue.SimpleQueue[tuple[int, Grant]] = queue.SimpleQueue()
        self._reports = 0

    def send(self, *message: Any) -> None:
        """Send a message whole, from any thread. Raises OSError where the driver has gone."""
        unsent = memoryview(framed(message))
        with self._sending:
            while unsent:
                written = self._answers.write(unsent)  # a pipe may take a part alone
                unsent = unsent[written:]

    def received(self) -> tuple[Any, ...] | None:
        """Wait for the driver's next message and return it; None when the driver has gone."""
        head = self._commands.read(HEAD_BYTES)
        if len(head) < HEAD_BYTES:
            return None
        data = self._commands.read(size_of(head))
        message: tuple[Any, ...] = pickle.loads(data)
        return message

    def granted(self, number: int, grant: Grant) -> None:
        """Hand the pool's answer to a report on to `renew`, which waits in another thread."""
        self._grants.put((number, grant))

    def renew(self, report: Report) -> Grant:
        """Take a report to the pool, and return the pool's grant for it.

        Raises:
            OSError: The driver has gone.
            queue.Empty: No grant comes for RENEW_SECONDS.
        """
        self._reports += 1
        self.send("renew", self._reports, report)
        while True:  # grants for earlier reports, which come late, are passed over
            number, grant = self._grants.get(timeout=RENEW_SECONDS)
            if number == self._reports:
                return grant


class _LinesToDriver(io.TextIOBase):
    """Standard error and output of a worker.

    Whole lines go to the driver, which shows them above its progress.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # print() writes a line and its end apart: what a thread has begun waits here for the end
        self._of_thread = threading.local()

    def write(self, text: str) -> int:
        """Send each whole line to the driver, to be shown there; return the length of `text`.

        What a thread has begun of a line waits for its end. Lines are lost once the driver has
        gone.
        """
        begun = getattr(self._of_thread, "begun", "")
        *whole_lines, rest = (begun + text).split("\n")
        self._of_thread.begun = rest
        for line in whole_lines:
            try:
                self._driver.send("say", line)
            except OSError:  # nobody listens any more
                break
        return len(text)

    def writable(self) -> bool:
        """Return True, as a stream that can be written to."""
        return True


def main() -> None:
    """Work for the process that has started this one, until it says no more."""
    # What is loaded by now stays: the garbage collector need not look through it again and again.
    gc.set_threshold(10_000, 10, 10)
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver heeds Ctrl-C, and says what to do
    driver = Driver(os.fdopen(os.dup(0), "rb"), io.FileIO(os.dup(1), "w"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    # What programs that user code starts print goes to standard error: it is no message.
    os.dup2(2, 1)
    lines = _LinesToDriver(driver)
    sys.stdout = lines
    sys.stderr = lines
    worker = Worker(driver.renew, together=True)
    calls: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[driver, worker, calls], daemon=True).start()
    while True:
        call = calls.get()
        if call is None:
            break
        number, method, arguments = call
        try:
            driver.send("answer", number, getattr(worker, method)(*arguments))
        except BrokenPipeError:
            break


def _listen(
    driver: Driver, worker: Worker, calls: "queue.SimpleQueue[tuple[Any, ...] | None]"
) -> None:
    """Read what the driver sends until it has gone, which interrupts the worker.

    These messages are dealt with at once, also while the worker works:

        "grant", NUMBER, GRANT       the pool's answer to the report of this number
        "interrupt"
        "now", NUMBER                asks how far the worker is
        "secrets", SECRET, …         what to blot out of texts

    Any other is a call of the worker, METHOD, NUMBER, ARGUMENT, …. It takes long, and is put into
    `calls` for the main thread, as (NUMBER, METHOD, ARGUMENTS). None is put there in the end.
    """
    try:
        while True:
            message = driver.received()
            if message is None:
                break
            what, *details = message
            if what == "grant":
                driver.granted(*details)
            elif what == "interrupt":
                worker.interrupt()
            elif what == "now":
                driver.send("answer", details[0], worker.now())
            elif what == "secrets":
                learn(*details)
            else:
                number, *arguments = details
                calls.put((number, what, arguments))
    except OSError:
        pass
    finally:  # the driver has gone: what is in flight is paid for, and kept
        worker.interrupt()
        calls.put(None)
