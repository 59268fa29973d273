"""The registry of operators, by class name."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

C = TypeVar("C", bound=type[Any])


class Registry:
    """Classes by their names: `@OPERATOR_REGISTRY.register()` adds one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._classes: dict[str, type[Any]] = {}

    @overload
    def register(self, cls: None = None) -> Callable[[C], C]: ...

    @overload
    def register(self, cls: C) -> C: ...

    def register(self, cls: C | None = None) -> C | Callable[[C], C]:
        """Class decorator: `@OPERATOR_REGISTRY.register()`; or a call with the class."""
        return self._add if cls is None else self._add(cls)

    def _add(self, cls: C) -> C:
        self._classes[cls.__name__] = cls
        return cls

    def get(self, name: str) -> type[Any]:
        """The class of this name. Raises KeyError."""
        return self._classes[name]

    def get_obj_map(self) -> dict[str, type[Any]]:
        """All classes by their names."""
        return dict(self._classes)

    def keys(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[tuple[str, type[Any]]]:
        return iter(sorted(self._classes.items()))


OPERATOR_REGISTRY = Registry("operators")
