"""What is made when it is first used: modules, tables and regular expressions.

A start would otherwise make all of it.
"""

import importlib
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property:
        """That of Python 3.12: before, all instances share a lock, and threads may deadlock."""

        def __init__(self, function):
            self.function = function
            self.__doc__ = function.__doc__

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = instance.__dict__[self.name] = self.function(instance)
            return value


async def load_aside(module: str) -> None:
    """Import a large module in a thread, so that the event loop goes on meanwhile."""
    import asyncio

    if module not in sys.modules:
        await asyncio.to_thread(importlib.import_module, module)


@cache
def load_table(package: str, name: str) -> Any:
    """Return what a YAML file next to a package's modules holds: one object, not to be changed."""
    import yaml

    text = files(package).joinpath(name).read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def lazy_pattern(text: str | Callable[[], str], flags: int = 0) -> re.Pattern[str]:
    """Return a pattern that is compiled at its first use: few of the readers' are needed."""
    return cast("re.Pattern[str]", _LazyPattern(text, flags))


class _LazyPattern:
    def __init__(self, text: str | Callable[[], str], flags: int) -> None:
        self._text = text
        self._flags = flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        text = self._text if isinstance(self._text, str) else self._text()
        return re.compile(text, self._flags)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._compiled, name)
        setattr(self, name, method)  # the next use finds it without coming here
        return method
