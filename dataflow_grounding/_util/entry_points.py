"""Parts that other packages bring, by their entry points.

There are four groups: `dataflow_grounding.commands` (a click command), `.servings` (a class of
Serving), `.formats` (a class of Format), and `.stores` (named by the scheme of its addresses, a
class of fsspec's AbstractFileSystem). An entry point names `module:object`.
"""

from functools import cache
from importlib.metadata import entry_points


@cache
def targets_of(group: str) -> dict[str, str]:
    """Return `module:object` by the name of each entry point in a group, such as `servings`."""
    points = entry_points(group=f"dataflow_grounding.{group}")
    return {point.name: point.value for point in sorted(points, key=lambda point: point.name)}
