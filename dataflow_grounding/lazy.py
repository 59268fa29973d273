"""Public names of a package whose modules are imported when one of them is used: else every start imports all."""

import importlib
from collections.abc import Mapping
from typing import Any


def public_name(package: str, homes: Mapping[str, str], name: str) -> Any:
    """What a package's `__getattr__` returns, where `homes` has each name's module, `{"evaluate": "evaluating"}`."""
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
