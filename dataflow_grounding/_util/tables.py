"""The tables, in YAML, that lie beside the modules which read them."""

from functools import cache
from importlib.resources import files
from typing import Any


@cache
def load_table(package: str, name: str) -> Any:
    """Return what a YAML file of a package holds, the same object each time."""
    import yaml

    text = files(package).joinpath(name).read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
