"""Users' own code that a spec names as `module:name`: pipelines, servings, formats and the like.

It is imported here, and all that it raises becomes an error of one line.
"""

import filecmp
import importlib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from types import ModuleType
from typing import Any

from dataflow_grounding._util.entry_points import targets_of
from dataflow_grounding._util.errors import GroundingError, SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding._util.secrets import excerpt

# `module:name`, as `my_package.my_module:MyServing`.
_MODULE_AND_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def named(
    name: str,
    key: str,
    shipped: Collection[str],
    folders: Sequence[str],
    *,
    group: str = "",
) -> Any:
    """Import what a spec's `key` names. Raises SpecError.

    Args:
        name: `module:name`, or the name of an entry point of `group`.
        key: The spec's key, for messages.
        shipped: Names that the key may have as well, for messages.
        folders: Where modules are looked for, after all other places; they stay in sys.path.
        group: The group of entry points that `name` may be one of.
    """
    if group:
        name = targets_of(group).get(name, name)
    if not _MODULE_AND_NAME.fullmatch(name):
        known = f"one of {', '.join(shipped)}, nor " if shipped else ""
        raise SpecError(
            f"{key} {name!r} is not {known}of the form module:name{nearest(name, shipped)}"
        )
    module_name, _, attribute = name.partition(":")
    folders = list(dict.fromkeys(map(os.path.abspath, folders)))  # each once, in their order
    sys.path += [folder for folder in folders if folder not in sys.path]
    module = _imported(module_name, key, folders)
    _refuse_another_of_that_name(module, key, folders)
    if not hasattr(module, attribute):
        where = getattr(module, "__file__", None) or module_name
        raise SpecError(
            f"{key}: there is no {attribute!r} in {where}{nearest(attribute, vars(module))}"
        )
    return getattr(module, attribute)


def _imported(name: str, key: str, folders: Sequence[str]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name  # the module itself, its package, or a module that it imports
        is_itself_missing = name == missing or name.startswith(f"{missing}.")
        if missing and is_itself_missing:
            where = f"in {' or '.join(folders)} or among the installed packages"
            raise SpecError(f"{key}: no module {missing!r} {where}") from None
        raise SpecError(
            f"{key}: module {name!r} needs {missing!r}, which is not installed"
        ) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too: a module may end the process
        raise SpecError(f"{key}: module {name!r} can't be imported: {described(error)}") from error


def _refuse_another_of_that_name(module: ModuleType, key: str, folders: Sequence[str]) -> None:
    # Python imports each name once. If one spec names `mine:Pipeline`, and then a spec of another
    # folder names it, the second one would get the first folder's `mine` unnoticed.
    if not module.__file__:  # it is built in, or a folder without code
        return
    file = os.path.abspath(module.__file__)
    # Installed modules are found before those of the spec's folders, which `named` puts at the end
    # of sys.path. That is meant, so an installed one isn't refused.
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    folders_with_end = [os.path.join(folder, "") for folder in [*folders, *installed]]  # "/specs/"
    is_of_this_spec = file.startswith(tuple(folders_with_end))
    if is_of_this_spec:
        return
    # It is from the folder of another spec: do this spec's folders have one of the same name?
    name = module.__name__.replace(".", "/")
    for folder, suffix in product(folders, (".py", "/__init__.py")):  # a module, or a package
        candidate = within(folder, f"{name}{suffix}")
        # A copy does the same, whichever of the two is run.
        if os.path.exists(candidate) and not filecmp.cmp(candidate, file, shallow=False):
            raise SpecError(
                f"{key}: module {module.__name__!r} is {file} in this process, not {candidate}:"
                " give one of them another name, or start a new process"
            )


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turn what the user's code raises into a SpecError that begins with `what`."""
    try:
        yield
    except (GroundingError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, too
        raise SpecError(f"{what}: {described(error)}") from error


def described(error: BaseException) -> str:
    """Return an error in one line, with the file and line where it was raised."""
    in_words = f"{type(error).__name__}: {excerpt(str(error))}"
    if isinstance(error, SyntaxError):
        return in_words  # these are Python's own, which aren't secret and say where
    *_, innermost = traceback.extract_tb(error.__traceback__)
    return f"{in_words} ({innermost.filename}, line {innermost.lineno})"
