"""What a spec names as `module:name`: pipelines, output formats and token providers of the user's
own.
"""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dataflow_grounding._util.errors import GroundingError, SpecError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.spec.problems import nearest


def named(
    name: str, key: str, shipped: Collection[str], folders: Sequence[str], *, quoting: bool = True
) -> Any:
    """What `name`, the value of `key`, means as `module:name`; `folders` come last. Raises
    SpecError as `described`.
    """
    module_name, _, attribute = name.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        known = f"one of {', '.join(shipped)}, nor " if shipped else ""
        raise SpecError(
            f"{key} {name!r} is not {known}of the form module:name{nearest(name, shipped)}"
        )
    folders = list(dict.fromkeys(map(os.path.abspath, folders)))
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = f"in {' or '.join(folders)} or among the installed packages"
            raise SpecError(f"{key}: no module {error.name!r} {where}") from None
        raise SpecError(
            f"{key}: module {module_name!r} needs {error.name!r}, which is not installed"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module that ends the process, too
        said = f"{key}: module {module_name!r} can't be imported: {described(error, quoting)}"
        raise SpecError(said) from (error if quoting else None)
    if not hasattr(module, attribute):
        where = getattr(module, "__file__", None) or module_name
        raise SpecError(
            f"{key}: there is no {attribute!r} in {where}{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Runs the user's code: whatever it raises, even to end the process, is a SpecError that begins
    with `what`.
    """
    try:
        yield
    except (GroundingError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise SpecError(f"{what}: {described(error)}") from error


def described(error: BaseException, quoting: bool = True) -> str:
    """An error of the user's code in one line, with its place; without `quoting`, not its words:
    they may be secret.
    """
    says_where = isinstance(error, SyntaxError)
    text = (
        f"{type(error).__name__}: {excerpt(str(error))}"
        if quoting or says_where
        else type(error).__name__
    )
    if says_where:
        return text
    *_, place = traceback.extract_tb(error.__traceback__)
    return f"{text} ({place.filename}, line {place.lineno})"
