"""How much work a call is, counted instead of timed: the same however busy the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

Tracer = Callable[[FrameType, str, Any], Any]


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
    count = 0

    def each(frame: FrameType, event: str, argument: Any) -> Tracer:
        nonlocal count
        count += event == "opcode"
        return each

    def entered(frame: FrameType, event: str, argument: Any) -> Tracer:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return each

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    finally:
        sys.settrace(before)
    assert count, "this Python tells no tracer of its instructions"
    return count
