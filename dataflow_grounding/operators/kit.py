"""What operators are written with: their registry, `ask`, a record's image, and what is added to a record besides."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images import Image, open_image
from dataflow_grounding.records import ROW_OF_IMAGE, Record, Update, has_id, whole_number
from dataflow_grounding.serving.base import Serving

C = TypeVar("C", bound=type[Any])


class Registry:
    """Classes by their names: `@OPERATOR_REGISTRY.register()` adds one."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}

    @overload
    def register(self, cls: None = None) -> Callable[[C], C]: ...

    @overload
    def register(self, cls: C) -> C: ...

    def register(self, cls: C | None = None) -> C | Callable[[C], C]:
        """Class decorator: `@OPERATOR_REGISTRY.register()`; or a call with the class."""
        if cls is None:
            return self.register
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


OPERATOR_REGISTRY = Registry()


def facts_of(record: Record, image: Image, ask: Ask, serving: Serving | None) -> Update:
    """`image_id` where there is none, the file's size (noted where the row differs), and a non-VLM serving's name."""
    size = dict(zip(("width", "height"), image.size, strict=True))
    update: Update = {}
    if record.occurrence:
        update[ROW_OF_IMAGE] = record.occurrence + 1
    if record.image_id is not None and not has_id(record.get("image_id")):
        update["image_id"] = record.image_id
    update |= size
    for name, value in size.items():
        stated = record.get(name)
        if stated is not None and whole_number(stated) != value and str(stated):
            ask.note("size_differs", "the row states another width or height than the file has")
    if serving is not None and not serving.is_vlm:
        update["model"] = serving.model
    return update


__all__ = ["OPERATOR_REGISTRY", "Ask", "Image", "facts_of", "open_image"]
