"""How a command ends: an error is one line on standard error, and an exit code."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dataflow_grounding.errors import GroundingError, RunStopped
from dataflow_grounding.terminal import say

INTERRUPTED = "interrupted: run the same command again to go on"


@contextmanager
def as_command(*, debug: bool = False) -> Iterator[None]:
    """Let a script end as the command line does: Ctrl-C and GroundingErrors are told in a line, other errors pass.

    Args:
        debug: Show the traceback too.

    Raises:
        SystemExit: With 130 after Ctrl-C, the `exit_code` of a RunStopped, and 2 for another GroundingError.

    Example:
        >>> with as_command():
        ...     raise SystemExit(Pipeline().run().exit_code)
        Traceback (most recent call last):
        SystemExit: 0
    """
    try:
        yield
    except KeyboardInterrupt:
        say(f"Error: {INTERRUPTED}")
        raise SystemExit(130) from None
    except GroundingError as error:
        if debug:
            say(traceback.format_exc())
        for line in str(error).splitlines():
            say(f"Error: {line}")
        raise SystemExit(error.exit_code if isinstance(error, RunStopped) else 2) from None
