"""How much work a call is, counted instead of timed: the same however busy the machine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any

Tracer = Callable[[FrameType, str, Any], Any]
TOOL = 4  # a number that PEP 669 leaves to anybody


def instructions_of(call: Callable[[], object]) -> int:
    """Count the instructions of Python's bytecode that a call runs in this thread.

    A call does the same instructions each time, but for what it keeps from one to the next: make it
    once before. What a function in C does, as a regular expression's search, is one instruction
    however long it takes: where that is what may take long, a test gives it so much that it would
    not come to an end.

    Args:
        call: What to do, without arguments; what it raises goes on.

    Example:
        >>> instructions_of(lambda: [n for n in range(1000)]) > 1000
        True
    """
    return _count(call, "opcode", ["INSTRUCTION"])


def steps_of(call: Callable[[], object]) -> int:
    """Count the lines that a call begins in this thread, and its jumps back within a line.

    It grows as `instructions_of` does, and takes a third of the time.

    Args:
        call: What to do, without arguments; what it raises goes on.

    Example:
        >>> steps_of(lambda: [n for n in range(1000)]) > 1000
        True
    """
    return _count(call, "line", ["LINE", "JUMP"])


def _count(call: Callable[[], object], traced: str, monitored: Sequence[str]) -> int:
    count = _monitored(call, monitored) if sys.version_info >= (3, 12) else _traced(call, traced)
    assert count, "this Python tells nobody of its instructions"
    return count


def _traced(call: Callable[[], object], counted: str) -> int:
    """Count by a trace function, which from 3.12 on misses what a code object runs first."""
    count = 0

    def each(frame: FrameType, event: str, argument: Any) -> Tracer:
        nonlocal count
        count += event == counted
        return each

    def entered(frame: FrameType, event: str, argument: Any) -> Tracer:
        frame.f_trace_opcodes = counted == "opcode"
        frame.f_trace_lines = counted == "line"
        return each

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def _monitored(call: Callable[[], object], counted: Sequence[str]) -> int:
    """Count by the monitoring of 3.12 and later (PEP 669), which tells of all threads."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    thread = threading.get_ident()
    count = 0

    def each(code: CodeType, *where: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread

    events = [getattr(monitoring.events, name) for name in counted]
    monitoring.use_tool_id(TOOL, "steps_of")
    try:
        for event in events:
            monitoring.register_callback(TOOL, event, each)
        monitoring.set_events(TOOL, sum(events))
        call()
    finally:
        monitoring.set_events(TOOL, 0)
        for event in events:
            monitoring.register_callback(TOOL, event, None)
        monitoring.free_tool_id(TOOL)
    return count
