"""Reads the package's docstrings as griffe wants them, for the API reference.

They say `Example:`, and name several parameters in one line where one sentence holds for all.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SEVERAL = re.compile(
    r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +.*)*)", re.MULTILINE
)


class Docstrings(griffe.Extension):
    """Rewrites each docstring before griffe parses it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = as_griffe_reads(obj.docstring.value)


def as_griffe_reads(docstring: str) -> str:
    """`docstring` with a section `Examples`, and a line for each parameter, attribute or error."""

    def one_each(found: re.Match[str]) -> str:
        names = found["names"].split(", ")
        return "\n".join(f"{found['indent']}{name}: {found['text']}" for name in names)

    return SEVERAL.sub(one_each, re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE))
