"""The exit codes of the runs in this process, for a script that ends as the command line does.

It is a module of its own so that the command line needn't import the engine to begin.
"""

from collections.abc import Iterator
from contextlib import contextmanager

# Those of `exit_codes` that are open. Threads of a script note their runs here, too, which a
# context variable would miss.
_open: list[dict[str, int]] = []


@contextmanager
def exit_codes() -> Iterator[dict[str, int]]:
    """Yield the exit codes of runs that end in the block, under the file that each run wrote."""
    codes: dict[str, int] = {}
    _open.append(codes)
    try:
        yield codes
    finally:
        # `remove` could take the dict of another block: two empty ones are equal.
        _open[:] = [other for other in _open if other is not codes]


def note_exit_code(path: str, code: int) -> None:
    for codes in _open:
        codes[path] = code
