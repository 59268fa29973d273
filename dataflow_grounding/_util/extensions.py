"""What hangs in from outside of the core: rooms of `extras`, and users' packages, by entry points.

An entry point of the group `dataflow_grounding.servings` (or `.commands`, `.engines`, `.formats`,
`.inputs`, `.stores`) has a name, and the module or `module:object` that it stands for; nothing is
imported before it is used.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from types import ModuleType
from typing import Any

from dataflow_grounding._util.errors import InputError, SpecError


@cache
def extension(group: str, name: str) -> Any:
    """Return what an entry point stands for, imported now; None where nobody has one of that name.

    A room of `extras` that was taken away counts as nobody. Raises what importing it raises.

    Args:
        group: The group's last part, such as `servings`.
        name: The entry point's name, such as `embedded`.

    Example:
        >>> extension("servings", "embedded").__name__
        'EmbeddedServing'
        >>> extension("servings", "nobody's") is None
        True
    """
    for point in _entry_points_of(group):
        if point.name != name:
            continue
        try:
            return point.load()
        except ModuleNotFoundError as error:
            # Rooms of extras may be taken away: this one, or one that it needs.
            if not (error.name or "").startswith("dataflow_grounding.extras"):
                raise
    return None


def required(group: str, name: str, what: str) -> Any:
    """Return what an entry point stands for. Raises SpecError where nobody has one of that name.

    `what` is who needs it, in the error's words: `--engine ray`.
    """
    part = extension(group, name)
    if part is None:
        raise SpecError(
            f"{what} needs a part that isn't installed (entry point dataflow_grounding.{group}:"
            f" {name}): install dataflow-grounding again"
        )
    return part


def store_part(name: str, doing: str, what: str) -> ModuleType:
    """Return an extension of the group `stores`, which work with addresses such as s3://.

    Args:
        name: The entry point's name, such as `mirrors`.
        doing: What it is needed for, in the error's words: `open s3://bucket/a.jpg`.
        what: What it works with, in the error's words: `addresses` or `results`.

    Raises:
        InputError: It isn't installed, or is no module.
    """
    module = extension("stores", name)
    if not isinstance(module, ModuleType):
        raise InputError(
            f"can't {doing}: no part for {what} elsewhere is installed: install dataflow-grounding"
            " again"
        )
    return module


def names_of(group: str) -> list[str]:
    """Return the names of a group's entry points, each once, in alphabetical order."""
    return sorted({point.name for point in _entry_points_of(group)})


def _entry_points_of(group: str) -> list[EntryPoint]:
    """Return a group's entry points, those of the package that is found first before others."""
    return _entry_points().get(group, [])


@cache
def _entry_points() -> dict[str, list[EntryPoint]]:
    """Return all entry points in groups of ours, by the last part of their group.

    They are looked for once: to do so opens a file of each package that is installed, which takes
    10 ms where there are 200. A package that is installed meanwhile is seen by the next process.
    """
    prefix = "dataflow_grounding."
    by_group: dict[str, list[EntryPoint]] = {}
    every: Any = entry_points()
    if isinstance(every, dict):  # up to Python 3.11: by group, whose own `values` warns
        every = chain.from_iterable(dict.values(every))
    for point in every:
        if point.group.startswith(prefix):
            by_group.setdefault(point.group.removeprefix(prefix), []).append(point)
    return by_group
