"""What hangs in from outside of the core: rooms of `extras`, and users' packages, by entry points.

An entry point of the group `dataflow_grounding.servings` (or `.commands`, `.engines`, `.formats`,
`.inputs`, `.stores`) has a name, and the module or `module:object` that it stands for; nothing is
imported before it is used.
"""

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from dataflow_grounding._util.errors import SpecError


@cache
def extension(group: str, name: str) -> Any:
    """What an entry point stands for; None where no installed package has it, or its room is gone.

    Args:
        group: The group's last part, such as `servings`.
        name: The entry point's name, such as `embedded`.

    Example:
        >>> extension("servings", "embedded").__name__
        'EmbeddedServing'
        >>> extension("servings", "nobody's") is None
        True
    """
    for point in entry_points(group=f"dataflow_grounding.{group}", name=name):
        try:
            return point.load()
        except ModuleNotFoundError as error:
            # a room that was taken away, or one that this one needs
            if not (error.name or "").startswith("dataflow_grounding.extras"):
                raise
    return None


def required(group: str, name: str, what: str) -> Any:
    """The same for what can't be done without. Raises SpecError where it isn't there.

    `what` needs it, as people call that: `--engine ray`.
    """
    part = extension(group, name)
    if part is None:
        raise SpecError(
            f"{what} needs a part that isn't installed (entry point dataflow_grounding.{group}:"
            f" {name}): install dataflow-grounding again"
        )
    return part


def names_of(group: str) -> list[str]:
    """The names of a group's entry points, in order."""
    return sorted({point.name for point in entry_points(group=f"dataflow_grounding.{group}")})
