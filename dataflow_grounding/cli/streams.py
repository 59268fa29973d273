"""Standard streams that are closed, full, or no longer read: they end no run and change no exit code of one."""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from dataflow_grounding.terminal import say


class _Sink(io.FileIO):
    """What can't be written is dropped; the first reason is kept."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that is full and doesn't block
                select.select([], [self], [])
            return written
        except OSError as error:
            self.failed = self.failed or error
            return memoryview(data).nbytes


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes printing safe: exits with 130 where output couldn't be written; a reader that went away is fine."""
    if sys.stdout is not sys.__stdout__:  # a caller's own
        yield
        return
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file that is opened would be it, and take what others print
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    streams: list[Any] = [sys.stdout, sys.stderr]
    sinks = [_Sink(os.dup(stream.fileno()), "w") for stream in streams]
    os.dup2(streams[1].fileno(), streams[0].fileno())  # what user code starts prints there, not into the answer
    sys.stdout, sys.stderr = map(_over, sinks, streams)
    try:
        yield
    except SystemExit as leave:
        sys.stdout.flush()
        failed = sinks[0].failed
        if failed is None or failed.errno == errno.EPIPE:
            raise
        say(f"Error: can't write to standard output: {failed.strerror}")
        raise SystemExit(leave.code or 130) from None


def _over(sink: _Sink, stream: Any) -> TextIO:
    """The stream's text into the sink; what can't be encoded is written escaped."""
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    return io.TextIOWrapper(io.BufferedWriter(sink), stream.encoding, errors, line_buffering=stream.line_buffering)
