"""Where rooms were up to version 0.1: imports of `dataflow_grounding.extras.…` go on from here.

A script that was copied from an earlier version finds the very modules of this one, under their
names of then.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_FORMER = f"{__name__}."
_RENAMED = {"formats.base": "formats.format"}  # modules that have another name by now, too
__path__: tuple[str, ...] = ()  # so that it counts as a package


class _FormerNames(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(_FORMER) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        name = spec.name.removeprefix(_FORMER)
        module = importlib.import_module(f"dataflow_grounding.{_RENAMED.get(name, name)}")
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own_spec  # which the import of the former name has replaced


sys.meta_path.insert(0, _FormerNames())  # else a module would be loaded twice
