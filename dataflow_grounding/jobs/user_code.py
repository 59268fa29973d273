"""What a spec names as `module:name`: pipelines and output formats of the user's own."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from typing import Any

from dataflow_grounding.errors import SpecError
from dataflow_grounding.operators import Operator
from dataflow_grounding.secrets import excerpt
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec.problems import nearest


def named(name: str, key: str, shipped: Collection[str], folders: Sequence[str]) -> Any:
    """What `name`, the value of `key`, means as `module:name`; `folders` count last. Raises SpecError."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        known = f"{', '.join(shipped)}, nor of the form module:Name{nearest(name, shipped)}"
        raise SpecError(f"{key} {name!r} is not one of {known}")
    sys.path += [folder for folder in map(os.path.abspath, folders) if folder not in sys.path]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = "beside the spec or among the installed packages"
            raise SpecError(f"{key}: no module {error.name!r} {where}") from None
        raise SpecError(f"{key}: module {module_name!r} needs {error.name!r}, which is not installed") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that ends the process, too
        raise SpecError(f"{key}: module {module_name!r} can't be imported: {described(error)}") from error
    if not hasattr(module, attribute):
        where = getattr(module, "__file__", None) or module_name
        raise SpecError(f"{key}: there is no {attribute!r} in {where}{nearest(attribute, vars(module))}")
    return getattr(module, attribute)


def told(what: Operator | Serving) -> dict[str, Any]:
    """The `facts()` of an operator or a serving, whoever wrote it: `error` where they can't be had."""
    try:
        return what.facts()
    except Exception as error:
        return {"error": described(error)}


def needed(what: Operator | Serving) -> list[str]:
    """The `needs()` of an operator or a serving, whoever wrote it."""
    try:
        return what.needs()
    except Exception as error:
        return [f"needs() of {type(what).__name__} raised {described(error)}"]


def described(error: BaseException) -> str:
    """An error of the user's code in one line, with the place where it was raised."""
    text = f"{type(error).__name__}: {excerpt(str(error))}"
    if isinstance(error, SyntaxError):  # says where by itself
        return text
    *_, place = traceback.extract_tb(error.__traceback__)
    return f"{text} ({place.filename}, line {place.lineno})"
