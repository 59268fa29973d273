"""Which files this process opens."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_watching: list[set[str]] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        for names in _watching:
            names.add(os.path.basename(arguments[0]))


sys.addaudithook(_note)  # it stays: a hook can't be taken away


@contextmanager
def opened() -> Iterator[set[str]]:
    """Give a set that gets the names, without folders, of all files opened in the block."""
    names: set[str] = set()
    _watching.append(names)
    try:
        yield names
    finally:
        _watching.remove(names)
