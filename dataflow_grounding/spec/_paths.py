"""Paths in a spec, which start from the folder of the file that states them."""

import os
from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.addresses import is_elsewhere
from dataflow_grounding._util.paths import has_scheme, joined, plain_path
from dataflow_grounding.spec.problems import block_with

# Keys of `data` whose texts are no paths.
_NO_PATHS = ("split", "allow_http", "allow_hosts", "proposals")


def make_absolute(values: dict[str, Any], sources: Sequence[tuple[str, Any]]) -> None:
    """Make a spec's paths absolute, in place; a `~` at their beginning is the user's folder.

    Args:
        values: The spec's keys and values.
        sources: The folder from which paths of a file, or of overrides, start, and what that one
            states. Of several that state a path, the last counts.
    """
    locations: list[tuple[str, ...]] = [("results_dir",)]
    for name, block in values.items():
        data = block.get("data") if isinstance(block, dict) else None
        if isinstance(data, dict):
            locations += [(name, "data", key) for key in data]
        if isinstance(block, dict) and isinstance(block.get("prompts"), dict):
            locations.append((name, "prompts", "dir"))
    for location in locations:
        name = location[-1]
        block = block_with(values, location)
        if block is None or not _is_path(name, block[name]):
            continue
        folder = "."
        for source_folder, stated in sources:
            if block_with(stated, location) is not None:
                folder = source_folder
        path = joined(folder, os.path.expanduser(plain_path(str(block[name]))))
        block[name] = path if is_elsewhere(path) else os.path.abspath(path)


def _is_path(name: str, value: Any) -> bool:
    # Return whether the value of a key is a path without a scheme, which starts from some folder.
    # False for an address, also `file://…`, for a data set (`datasets:…`), for an empty text, and
    # for keys of `data` that hold no path. A number is one: a folder may be called 2024.
    if name in _NO_PATHS:
        return False
    if isinstance(value, str):
        return bool(value) and not value.startswith("datasets:") and not has_scheme(value)
    return isinstance(value, int)
