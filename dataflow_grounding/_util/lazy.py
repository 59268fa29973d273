"""What is made when it is first used, as a start would otherwise make all of it: modules and
regular expressions.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast


def attached(
    package: str, names_of: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`; `names_of` its modules,
    `{"pairs": ["Rules", "pair"]}`.
    """
    homes = {name: module for module, names in names_of.items() for name in names}

    def public_name(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return public_name, lambda: sorted({*homes, *vars(sys.modules[package])}), list(homes)


async def load_aside(module: str) -> None:
    """Import a large module in a thread, so that the event loop goes on meanwhile; whoever uses it
    imports it then.
    """
    import asyncio

    if module not in sys.modules:
        await asyncio.to_thread(importlib.import_module, module)


def lazy_pattern(text: str | Callable[[], str], flags: int = 0) -> re.Pattern[str]:
    """A regular expression that is compiled when one of its methods is first used; `text` may be a
    function for it.

    The replies' readers have two hundred, of which a reply that comes as asked takes ten.
    """
    return cast("re.Pattern[str]", _LazyPattern(text, flags))


class _LazyPattern:
    def __init__(self, text: str | Callable[[], str], flags: int) -> None:
        self._text, self._flags = text, flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._text if isinstance(self._text, str) else self._text(), self._flags)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._compiled, name)
        setattr(self, name, method)  # the next use finds it without coming here
        return method
