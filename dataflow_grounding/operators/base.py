"""What an operator is: a question about one record, and how it is run on a record, a list, a
DataFrame or a file.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from dataflow_grounding._util.errors import BrokenRow, InputError, PlanError
from dataflow_grounding._util.secrets import blotted_message, masked
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import ROW_OF_IMAGE, Record, Update, has_id, whole_number
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine import plan
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import Ask, Partial
from dataflow_grounding.images.display import ShownRecord
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.operators import _calling as calling
from dataflow_grounding.operators._calling import Annotated, OnError, Rows
from dataflow_grounding.serving.base import Serving

if TYPE_CHECKING:
    from pandas import DataFrame

C = TypeVar("C", bound=type[Any])
O = TypeVar("O", bound="Operator")  # noqa: E741


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


class Operator(plan.Annotator, ABC):
    """Turns a record into its update by asking a serving.

    A subclass names its columns in `input_keys` and `output_keys` (role → default column) and works
    in `annotate`, with no threads, files, retries or progress: those are the engine's. `self.keys`
    has the columns of the present run.

    Example:
        >>> from dataflow_grounding import Operator
        >>> class Shout(Operator):
        ...     input_keys = {"caption": "caption"}
        ...     output_keys = {"loud": "loud"}
        ...
        ...     async def annotate(self, record, ask):
        ...         return {self.keys.loud: record[self.keys.caption].upper()}
        >>> Shout()({"caption": "a dog"})["loud"]
        'A DOG'
    """

    name: ClassVar[str] = "operator"
    input_keys: ClassVar[Mapping[str, str]] = {}
    output_keys: ClassVar[Mapping[str, str]] = {}
    needs_image: ClassVar[bool] = True
    # what it does, by language; in English, as its docstring begins
    descriptions: ClassVar[Mapping[str, str]] = {}
    serving: Any = None
    """The Serving that it asks, None for one that asks nothing: Any, so that a subclass can count
    on its own.
    """

    if not TYPE_CHECKING:  # it takes what __init__ takes

        def __new__(cls, *args: Any, **settings: Any) -> "Operator":
            """An operator that can show what it was made with. Raises SpecError for a `serving`
            that is not one.
            """
            operator = super().__new__(cls)
            operator.__dict__["_made_with"] = calling.made_with(cls, args, settings)
            return operator

    def __repr__(self) -> str:
        known = inspect.signature(type(self).__init__).parameters
        given = masked(self.__dict__["_made_with"], ours=False)
        told = (
            f"{n}={v!r}"
            for n, v in given.items()
            if n not in known or repr(v) != repr(known[n].default)
        )
        return blotted_message(f"{type(self).__name__}({', '.join(told)})")

    @property
    def sees_all(self) -> bool:
        """Whether it names none, so that no step runs beside it."""
        return not (self.input_keys and self.output_keys)

    @property
    def keys(self) -> SimpleNamespace:
        """The column of each role."""
        bound: SimpleNamespace | None = self.__dict__.get("_keys")
        return (
            bound if bound is not None else SimpleNamespace(**self.input_keys, **self.output_keys)
        )

    def asks(self, record: Record) -> bool:
        """Whether `annotate` may ask about a record; where it does of none, nothing is found out of
        the model either.

        Raises RecordError for what is wrong with the record.
        """
        return True

    @abstractmethod
    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """The columns to add to `record`. `await ask(request)` gives what a reply says. Raises
        RecordError.
        """

    @calling.with_columns
    def run(self, storage: Any, **columns: str) -> str:
        """Work through a storage's step. While a pipeline is compiled, only note that the step is
        wanted.

        Args:
            storage: A FileStorage, pinned to its step: `storage.step()`.
            columns: `input_<role>_key=` and `output_<role>_key=` name columns.

        Returns:
            The (first) output column.

        Raises:
            PlanError, InputError, SpecError: Before anything is sent.
            RunStopped: The run could not be finished; what was paid for is stored.
        """
        # with all that running takes, where something is run
        from dataflow_grounding.engine.execute import execute

        operator = self.bound(**columns)
        if isinstance(storage, (Mapping, list, tuple)) or hasattr(storage, "iloc"):
            how = (
                "call the operator itself on records in memory, as in"
                f" {type(self).__name__}(…)(records)"
            )
            raise InputError(
                f"run() takes a FileStorage's step(), not {type(storage).__name__}: {how}"
            )
        step = plan.Step(operator, FileStorage.like(storage))
        steps, pipeline = plan.recorded_steps.get(), plan.current_pipeline.get()
        if steps is not None:
            steps.append(step)
        elif pipeline:
            ahead, pipeline.ahead = pipeline.ahead, []
            summary = execute(
                [step], current_options.get(), pipeline.name, pipeline.budget, ahead=ahead
            )
            pipeline.summaries.append(summary)
            if summary.failed and not summary.done:
                raise plan.NoRecordLeft
        elif (summary := execute([step], current_options.get())).failed:
            # nobody else tells it without a Pipeline
            say(
                f"{summary.failed} of {summary.records} rows failed in {self.name}: see"
                f" {summary.failures_file}"
            )
        return next(iter(operator.writes().values()), "")

    @overload
    def __call__(
        self, data: Mapping[str, Any], *, on_error: OnError = ..., **columns: str
    ) -> ShownRecord: ...

    @overload
    def __call__(self, data: Rows, *, on_error: OnError = ..., **columns: str) -> Annotated: ...

    @overload
    def __call__(
        self, data: "DataFrame", *, on_error: OnError = ..., **columns: str
    ) -> "DataFrame": ...

    def __call__(self, data: Any, *, on_error: OnError = "drop", **columns: str) -> Any:
        """Work on records in memory.

        Args:
            data: One record (a dict, or a row of a DataFrame), a list of records, or a DataFrame.
                The image's column may hold a path, the bytes of an image file, a PIL image, or a
                NumPy array of uint8 (H×W, H×W×3 RGB or H×W×4 RGBA).
            on_error: What becomes of rows that fail, in a list or DataFrame: "drop" leaves them out
                and says how many, "keep" keeps them with null in the columns that the operator
                fills, "raise" stops at the first.
            columns: As of `run`.

        Returns:
            The same kind, with the columns added: a list has `failures`, (place, error) each; a
                DataFrame, which keeps
            its index and all other columns as they are, has them in `.attrs["failures"]`, as JSON.

        Raises:
            InputError: No row has a column that it needs; for one record a RecordError.
            RecordError: What failed, of one record, or with on_error="raise".
            RunStopped: Nothing more could be sent.
        """
        operator = self.bound(**columns)
        row = calling.record_of(data)
        if row is None:
            return calling.annotated_rows(operator, data, on_error)
        from dataflow_grounding.engine.in_memory import annotate_all

        calling.check_columns(operator, [row], BrokenRow)
        record, error = annotate_all(operator, [row])[0]
        if error is not None:
            raise error
        return record

    def bound(self: O, **arguments: str) -> O:
        """This operator with its columns set by `input_<role>_key` and `output_<role>_key`. Raises
        PlanError.
        """
        operator = copy.copy(self)
        columns = {**self.input_keys, **self.output_keys}
        roles = calling.roles_of(self)
        for prefix, keys in (("input", self.input_keys), ("output", self.output_keys)):
            # the first role needs no name
            roles |= {f"{prefix}_key": role for role in list(keys)[:1]}
        for argument, column in arguments.items():
            if argument not in roles:
                raise PlanError(
                    f"{type(self).__name__} takes no {argument}; it has {', '.join(roles)}"
                )
            columns[roles[argument]] = column
        operator.__dict__["_keys"] = SimpleNamespace(**columns)
        return operator

    def reads(self) -> dict[str, str]:
        return {role: getattr(self.keys, role) for role in self.input_keys}

    def writes(self) -> dict[str, str]:
        return {role: getattr(self.keys, role) for role in self.output_keys}

    def lacking(self, there: Collection[str]) -> list[str]:
        """The roles that it needs whose columns are not among those that are there."""
        needed = {
            role: column for role, column in self.reads().items() if role not in self.optional_keys
        }
        return [
            role
            for role, column in needed.items()
            if column not in there and column not in plan.FACT_COLUMNS
        ]

    def settings(self) -> dict[str, Any] | None:
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, Operator)]
        source = [plan.source_digest(cls) for cls in classes]
        if None in source:
            return None
        own = {
            name: value
            for name, value in vars(self).items()
            if name not in ("_keys", "_made_with", "serving")
        }
        return {
            "class": type(self).__qualname__,
            "source": source,
            **{name: _plain(v) for name, v in own.items()},
        }

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it after a run, as JSON; `check_every`: requests after which it
        sends one more.
        """
        return {}

    def needs(self) -> list[str]:
        """What it lacks, or what is good to know of it, before a run: one line each,
        for `check`.
        """
        return []

    def look_over(self, record: Record) -> None:
        """Raise RecordError for what is wrong with a record before anything is sent: `check` does
        so with every row.
        """

    @classmethod
    def get_desc(cls, lang: str = "en") -> str:
        """What the operator does, in English or Chinese (`zh`)."""
        documented = (inspect.getdoc(cls) or cls.__name__).partition("\n\n")[0]
        return (
            cls.descriptions.get(lang) or cls.descriptions.get("en") or " ".join(documented.split())
        )


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool, type(None), list, tuple)):
        return value
    shows_too_little = isinstance(value, Operator) or hasattr(value, "answer")
    return object.__repr__(value) if shows_too_little else repr(value)


def facts_of(record: Record, image: Image, ask: Ask, serving: Serving | None) -> Update:
    """`image_id` where there is none, the file's size (noted where the row differs), and a non-VLM
    serving's name.
    """
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


__all__ = ["OPERATOR_REGISTRY", "Ask", "Image", "Operator", "facts_of", "open_image"]
