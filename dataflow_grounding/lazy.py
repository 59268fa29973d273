"""Public names of a package whose modules are imported when one of them is used: else every start imports all."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def attached(
    package: str, names_of: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`; `names_of` its modules, `{"pairs": "Rules pair"}`."""
    homes = {name: module for module, names in names_of.items() for name in names.split()}

    def public_name(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return public_name, lambda: sorted({*homes, *vars(sys.modules[package])}), list(homes)
