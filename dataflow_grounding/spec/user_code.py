"""What a spec names as `module:name`.

Pipelines, output formats and token providers of the user's own.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from dataflow_grounding._util.errors import GroundingError, SpecError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.spec.problems import nearest

_MODULE_AND_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def named(
    name: str, key: str, shipped: Collection[str], folders: Sequence[str], *, quoting: bool = True
) -> Any:
    """What `name`, the value of `key`, means as `module:name`.

    Args:
        name: The value.
        key: Its key, for messages.
        shipped: What the value may be besides, for messages.
        folders: Where modules are looked for, after all other folders.
        quoting: Whether a message may have the words of an error of the module.

    Raises SpecError as `described`.
    """
    module_name, _, attribute = name.partition(":")
    if not _MODULE_AND_NAME.fullmatch(name):
        known = ""
        if shipped:
            known = f"one of {', '.join(shipped)}, nor "
        raise SpecError(
            f"{key} {name!r} is not {known}of the form module:name{nearest(name, shipped)}"
        )
    # Each once, in their order.
    folders = list(dict.fromkeys(map(os.path.abspath, folders)))
    sys.path += [folder for folder in folders if folder not in sys.path]
    module = _imported(module_name, key, folders, quoting)
    if not hasattr(module, attribute):
        where = getattr(module, "__file__", None) or module_name
        raise SpecError(
            f"{key}: there is no {attribute!r} in {where}{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


def _imported(name: str, key: str, folders: Sequence[str], quoting: bool) -> ModuleType:
    """Import a user's module. Raises SpecError, also where the module itself raises.

    `key` is the spec's key that names it, `folders` where it was looked for. `quoting`: whether the
    module's own words may be shown.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        if missing and (name == missing or name.startswith(f"{missing}.")):
            where = f"in {' or '.join(folders)} or among the installed packages"
            raise SpecError(f"{key}: no module {missing!r} {where}") from None
        raise SpecError(
            f"{key}: module {name!r} needs {missing!r}, which is not installed"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that ends the process, too
        message = f"{key}: module {name!r} can't be imported: {described(error, quoting)}"
        # A cause would be shown, with its words.
        raise SpecError(message) from (error if quoting else None)


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Runs the user's code: whatever it raises is a SpecError that begins with `what`.

    Even what ends the process.
    """
    try:
        yield
    except (GroundingError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise SpecError(f"{what}: {described(error)}") from error


def described(error: BaseException, quoting: bool = True) -> str:
    """An error of the user's code in one line, with its place.

    Without `quoting`, not its words: they may be secret.
    """
    name = type(error).__name__
    in_words = f"{name}: {excerpt(str(error))}"
    if isinstance(error, SyntaxError):
        # Python's own words, which say where.
        return in_words
    *_, innermost = traceback.extract_tb(error.__traceback__)
    where = f"({innermost.filename}, line {innermost.lineno})"
    return f"{in_words if quoting else name} {where}"
