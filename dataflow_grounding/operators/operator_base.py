"""What an operator is: a question about one record, asked of records, lists, frames or files."""

import copy
import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar, overload

from dataflow_grounding._util.errors import (
    GroundingError,
    InputError,
    NothingDone,
    PlanError,
    SpecError,
)
from dataflow_grounding._util.secrets import blotted_message, masked
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.users_code import UsersValue
from dataflow_grounding.data.records import JsonObject, Record, Update
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.engine import plan
from dataflow_grounding.engine.execute import execute
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import Ask, Partial
from dataflow_grounding.images.image import Image, open_image
from dataflow_grounding.operators import _calling as calling
from dataflow_grounding.operators import _in_memory as in_memory
from dataflow_grounding.operators._calling import Columns, OnError, Rows
from dataflow_grounding.serving.serving import Serving, check_can_think, check_serving
from dataflow_grounding.tasks.ways_to_ask import form_of
from dataflow_grounding.tasks.wording import Wording

if TYPE_CHECKING:
    from pandas import DataFrame

    from dataflow_grounding.images.display import ShownRecord
    from dataflow_grounding.operators._in_memory import Annotated

# Attributes that are no settings: the columns, on which answers don't depend, and who answers.
_NO_SETTINGS = ("_keys", "serving")

C = TypeVar("C", bound=type)
S = TypeVar("S", bound=Serving)

O = TypeVar("O", bound="Operator")  # noqa: E741


class Registry:
    """Classes by their names: `@OPERATOR_REGISTRY.register()` adds one.

    Args:
        package: Where shipped classes are. They register themselves when they are imported, which
            is before this is first looked into.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._classes: dict[str, type] = {}

    @overload
    def register(self, cls: None = None) -> Callable[[C], C]: ...

    @overload
    def register(self, cls: C) -> C: ...

    def register(self, cls: C | None = None) -> C | Callable[[C], C]:
        """Add a class under its name, in place of an earlier one of that name, and return it.

        A user's class stays where a shipped one has the same name. The shipped one may be imported
        later, and would replace it otherwise.

        Without a class, return the decorator that does so: `@OPERATOR_REGISTRY.register()`.
        """
        if cls is None:
            return self.register
        former = self._classes.get(cls.__name__)
        has_users_class = former is not None and not self._is_shipped(former)
        if not (has_users_class and self._is_shipped(cls)):
            self._classes[cls.__name__] = cls
        return cls

    def _is_shipped(self, cls: type) -> bool:
        return cls.__module__.partition(".")[0] == self._package.partition(".")[0]

    def get(self, name: str) -> type:
        """Return the class of this name. Raises KeyError where there is none."""
        return self.get_obj_map()[name]

    def get_obj_map(self) -> dict[str, type]:
        """Return all classes by their names, in a new dict.

        The shipped ones are imported first, which registers them.
        """
        package = importlib.import_module(self._package)
        for name in package.__all__:
            getattr(package, name)  # imports the module of this name's class
        return dict(self._classes)

    def keys(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self.get_obj_map())

    def __contains__(self, name: str) -> bool:
        return name in self.get_obj_map()

    def __repr__(self) -> str:
        """Return the names of all classes."""
        return f"<Registry: {', '.join(self.keys())}>"

    def __iter__(self) -> Iterator[tuple[str, type]]:
        """Yield (name, class) of all classes, sorted by name."""
        return iter(sorted(self.get_obj_map().items()))


OPERATOR_REGISTRY = Registry("dataflow_grounding.operators")
"""The operators' classes, shipped ones and the user's own, by the classes' names."""


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
    looks_at_image: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ()
    """The tasks that it asks a model, which are the names of their prompts."""
    # what it does, by language; in English, as its docstring begins
    descriptions: ClassVar[Mapping[str, str]] = {}
    uncounted: str = ""
    """What it may send beyond `requests_for` and `pictures`, by the boxes that a model finds."""
    serving: UsersValue = None
    """The Serving that it asks; None for one that asks nothing.

    Of any type, so that a subclass can count on its own.
    """

    def __repr__(self) -> str:
        """Return the class's name and its settings, without secrets.

        Settings are the attributes that have names of `__init__`'s arguments. Those with their
        default value are left out.
        """
        parameters = inspect.signature(type(self).__init__).parameters
        values = {name: value for name, value in vars(self).items() if name in parameters}
        settings = []
        # ours=False: a user's operator has names of its own for secrets, such as `token`. So each
        # value is blotted out whose name sounds like a secret's.
        for name, value in masked(values, ours=False).items():
            if repr(value) != repr(parameters[name].default):
                settings.append(f"{name}={value!r}")
        return blotted_message(f"{type(self).__name__}({', '.join(settings)})")

    def checked_serving(self, serving: S) -> S:
        """Return a serving as it is. Raises SpecError for what can't answer."""
        check_serving(serving, type(self).__name__)
        return serving

    @property
    def sees_all(self) -> bool:
        """Whether it names no columns to read or none to write: then no step runs next to it."""
        return not (self.input_keys and self.output_keys)

    @property
    def keys(self) -> Columns:
        """The columns of the present run by role: `self.keys.caption`."""
        bound: Columns | None = self.__dict__.get("_keys")
        if bound is not None:
            return bound
        return Columns({**self.input_keys, **self.output_keys})

    def asks(self, record: Record) -> bool:
        """Whether `annotate` may ask the model about a record.

        Where no record of a run is asked about, the model's box format isn't found out either.
        Raises RecordError where the record can't be read.
        """
        return True

    def requests_for(self, record: Record) -> int:
        """Return how many requests it sends for a record at least, for `estimate`; 1 by default.

        Columns that an earlier step fills may be missing. Raises RecordError where the record can't
        be read.
        """
        return 1

    def pictures(self, image: Image) -> Sequence[Image]:
        """Return what its questions about a record's image show, for `estimate`; the image by
        default.
        """
        return (image,)

    @abstractmethod
    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Return the columns to add to `record`. Raises RecordError.

        `await ask(request)` returns what the model's reply says. The engine adds the image's size
        and what tells the row.
        """

    def run(self, storage: UsersValue, **columns: str) -> str:
        """Run this step over the records of a storage.

        In a pipeline's `forward()` the step is checked and noted down, and runs when `forward()`
        is through. Outside of a pipeline it runs at once, and the rows that failed are counted on
        the terminal.

        Args:
            storage: A FileStorage, pinned to its step: `storage.step()`.
            columns: `input_<role>_key=` and `output_<role>_key=` name columns.

        Returns:
            The (first) output column; "" where the operator names none.

        Raises:
            PlanError, InputError, SpecError: Before anything is sent.
            RunStopped: The run could not be finished; what was paid for is stored. Outside of a
                pipeline also where all rows failed (NothingDone).
        """
        operator = self.bound(**columns)
        self._refuse_records(storage)
        step = plan.Step(operator, FileStorage.like(storage))
        if not plan.note_step(step):  # no `forward()` is running
            self._run_alone(step)
        return next(iter(operator.writes().values()), "")

    def _refuse_records(self, storage: UsersValue) -> None:
        """Raise InputError for records in memory, which `run` doesn't take."""
        is_frame = hasattr(storage, "iloc")  # told so without importing pandas
        if is_frame or isinstance(storage, (Mapping, list, tuple)):
            how = (
                "call the operator itself on records in memory, as in"
                f" {type(self).__name__}(…)(records)"
            )
            raise InputError(
                f"run() takes a FileStorage's step(), not {type(storage).__name__}: {how}"
            )

    def _run_alone(self, step: plan.Step) -> None:
        summary = execute([step], current_options.get())
        if summary.failed > 0 and summary.done == 0:
            raise NothingDone(
                f"all {summary.failed} rows failed in {self.name}: {summary.failures_file} says why"
            )
        if summary.failed:
            say(
                f"{summary.failed} of {summary.records} rows failed in {self.name}: see"
                f" {summary.failures_file}"
            )
        say(f"results: {summary.annotations}")

    @overload
    def __call__(
        self, data: JsonObject, *, on_error: OnError = ..., **columns: str
    ) -> "ShownRecord": ...

    @overload
    def __call__(self, data: Rows, *, on_error: OnError = ..., **columns: str) -> "Annotated": ...

    @overload
    def __call__(
        self, data: "DataFrame", *, on_error: OnError = ..., **columns: str
    ) -> "DataFrame": ...

    def __call__(
        self, data: UsersValue, *, on_error: OnError = "drop", **columns: str
    ) -> UsersValue:
        """Work on records in memory.

        Args:
            data: One record (a dict, or a row of a DataFrame), a list of records, or a DataFrame.
                The image's column may hold a path, the bytes of an image file, a PIL image, or a
                NumPy array of uint8 (H×W, H×W×3 RGB or H×W×4 RGBA).
            on_error: What becomes of rows that fail, in a list or DataFrame: "drop" leaves them
                out, and says how many; "keep" keeps them, with null in the columns that the
                operator fills; "raise" begins no row more, and raises the first failure.
            columns: As of `run`.

        Returns:
            The same kind, with the columns added. A DataFrame keeps its index, and all other
            columns as they are. Rows that failed, in this operator or one before it, are in a
            list's `failures`, as (place in the first operator's list, error), and in a DataFrame's
            `.attrs["failures"]`, as JSON with the row's `index`.

        Raises:
            InputError: No row has a column that it needs (for one record, a RecordError), or
                `data` is none of these.
            PlanError: There is no such role, or no such `on_error`.
            RecordError: The one record failed; or, of several, the first failure: with
                on_error="raise", and with "drop" where all rows failed.
            RunStopped: Nothing more could be sent.
        """
        operator = self.bound(**columns)
        row = in_memory.record_of(data)
        try:
            if row is None:
                return in_memory.annotated_rows(operator, data, on_error)
            return in_memory.annotated_record(operator, row)
        except GroundingError as error:
            # Its text says what to do, which twenty frames of the engine would bury.
            raise error.with_traceback(None) from error.__cause__

    def bound(self: O, **arguments: str) -> O:
        """Return a copy of this operator with other columns.

        Roles that aren't named have their default columns, also where this operator was bound to
        others.

        Args:
            **arguments: `input_<role>_key=` and `output_<role>_key=` name columns, also with the
                default column in place of the role; `input_key=` names that of an only input,
                `output_key=` that of the first output.

        Raises:
            PlanError: There is no such role, or `input_key=` doesn't say which of several is meant.
            SpecError: Its serving is none.
        """
        # An operator of the user's may have taken its serving unchecked. `run` and a call both go
        # through here, so that it is checked before anything is sent.
        if self.serving is not None:
            check_serving(self.serving, type(self).__name__)
        column_of_role = {**self.input_keys, **self.output_keys}
        # `input_image_path_key` names a default column, and `input_image_key` a role. Where one
        # operator's argument is both, it means the role that it names: these come second.
        role_of_argument = {
            **calling.roles_by_column_argument(self),
            **self._roles_by_role_argument(),
        }
        for argument, column in arguments.items():
            if argument not in role_of_argument:
                raise self._no_such_argument(argument)
            column_of_role[role_of_argument[argument]] = column
        operator = copy.copy(self)
        operator.__dict__["_keys"] = Columns(column_of_role)  # `keys` reads it
        return operator

    def _no_such_argument(self, argument: str) -> PlanError:
        role_of_argument = self._roles_by_role_argument()
        # an operator with one input takes `input_key`: this one has several, or none
        if argument == "input_key" and self.input_keys:
            inputs = [name for name, role in role_of_argument.items() if role in self.input_keys]
            return PlanError(
                f"{type(self).__name__} reads several columns, and input_key doesn't say which:"
                f" name it by {' or '.join(inputs)}"
            )
        return PlanError(
            f"{type(self).__name__} takes no {argument}; it has {', '.join(role_of_argument)}"
        )

    def _roles_by_role_argument(self) -> dict[str, str]:
        """Return {"input_caption_key": "caption", …}, with `input_key` and `output_key`."""
        # `input_key` also means an only input, and `output_key` the first output.
        roles = calling.roles_by_role_argument(self)
        if len(self.input_keys) == 1:
            roles["input_key"] = next(iter(self.input_keys))
        if self.output_keys:
            roles["output_key"] = next(iter(self.output_keys))
        return roles

    def with_words(
        self: O,
        *,
        prompt: str | None = None,
        guidance: str = "",
        prompts: Mapping[str, str] | None = None,
        definitions: Mapping[str, str] | None = None,
        asking: str | JsonObject | None = None,
    ) -> O:
        """Return a copy of this operator that puts its questions in the user's own words.

        What is left out, or empty, is as it was before; `prompts` and `definitions` are added to
        those stated before. Other words are another question: replies to the former ones are
        kept, and don't count.

        Args:
            prompt: The prompt of its task, with `<input>` where the data go; for an operator of
                one task. `dataflowgrounding prompts show` prints the shipped one.
            guidance: Sentences that every question has after its instructions.
            prompts: Task → prompt, for one of several tasks and for the system messages.
            definitions: Term or phrase → what counts as it, sent as data if a question has the
                term.
            asking: The form in which boxes are asked for: a name of the table in
                `tasks/asking_forms.yaml`, or parts, as in {"reply": "json", "thinking": "off"}.

        Raises:
            SpecError: A prompt lacks what its replies can't be read without, or is for no task; a
                form isn't known, or the model can't be told how much to think.

        Example:
            >>> from dataflow_grounding import EmbeddedServing, ExpressionExtractor
            >>> extractor = ExpressionExtractor(EmbeddedServing())
            >>> extractor.with_words(guidance="Leave out the sky.").wording.guidance
            'Leave out the sky.'
        """
        before = self.wording or Wording()
        form = before.asking if asking is None else form_of(asking)
        own_prompts = dict(prompts or {})
        if prompt is not None:
            own_prompts[self._only_task()] = prompt
        operator = copy.copy(self)
        operator.wording = Wording(
            prompts={**before.prompts, **own_prompts},
            guidance=guidance or before.guidance,
            definitions={**before.definitions, **(definitions or {})},
            asking=form,
        )
        check_can_think(operator.serving, form)
        return operator

    def _only_task(self) -> str:
        if len(self.tasks) != 1:
            raise SpecError(
                f"{type(self).__name__} asks {' and '.join(self.tasks) or 'nothing'}: name the"
                " task of the prompt, as in prompts={'phrase_grounding': …}"
            )
        return self.tasks[0]

    def reads(self) -> dict[str, str]:
        """Return the columns that it reads, by role."""
        columns = self.keys.by_role
        return {role: columns[role] for role in self.input_keys}

    def writes(self) -> dict[str, str]:
        """Return the columns that it adds, by role."""
        columns = self.keys.by_role
        return {role: columns[role] for role in self.output_keys}

    def lacking(self, columns: Collection[str]) -> list[str]:
        """Return the roles that it needs and whose columns are not among `columns`, in order.

        Optional roles, and columns that the run itself knows (FACT_COLUMNS), aren't needed.
        """
        lacking: list[str] = []
        for role, column in self.reads().items():
            if role in self.optional_keys or column in plan.FACT_COLUMNS:
                continue
            if column not in columns:
                lacking.append(role)
        return lacking

    def settings(self) -> dict[str, object] | None:
        """Return all that its answers depend on, as JSON, to tell whether it has changed.

        That is the source of its classes, their plain attributes, and its own attributes, but not
        its columns and its serving. Code and values of other modules aren't looked at. None where
        nobody can tell: the source of a class can't be read, or an attribute can't be compared.
        """
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, Operator)]
        source_digests = [plan.source_digest(cls) for cls in classes]
        if None in source_digests:  # a source can't be read
            return None
        attributes = _plain_attributes_of(classes)
        for name, value in vars(self).items():
            if name not in _NO_SETTINGS:
                attributes[name] = value
        # imported here, because that module imports this one
        from dataflow_grounding.operators._settings import CantTell, distinct_setting

        try:
            stated = {name: distinct_setting(value) for name, value in attributes.items()}
        except CantTell:
            return None
        return {
            "class": type(self).__qualname__,
            "source": source_digests,
            "attributes": stated,
        }

    def facts(self) -> JsonObject:
        """Return what `run.json` says of it after a run, as JSON.

        `check_every`: requests after which it sends one more.
        """
        return {}

    def needs(self) -> list[str]:
        """Return what it lacks, or what is good to know of it before a run, a line each.

        `check` prints them.
        """
        return []

    def look_over(self, record: Record) -> None:
        """Raise RecordError for what is wrong with a record before anything is sent.

        `check` does so with every row.
        """

    @classmethod
    def get_desc(cls, lang: str = "en") -> str:
        """Return what the operator does, in English or Chinese (`zh`)."""
        description = cls.descriptions.get(lang) or cls.descriptions.get("en")
        if description:
            return description
        first_paragraph = (inspect.getdoc(cls) or cls.__name__).partition("\n\n")[0]
        return " ".join(first_paragraph.split())


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(item is None or isinstance(item, (str, int, float)) for item in value)
    return value is None or isinstance(value, (str, int, float))


def _plain_attributes_of(classes: list[type]) -> dict[str, object]:
    """Return plain attributes by name: a program may have set them since the source."""
    values: dict[str, object] = {}
    for cls in reversed(classes):  # bases first, so that a subclass's value replaces its base's
        for name, value in vars(cls).items():
            if not name.startswith("__") and _is_plain(value):
                values[name] = value
    return values


def facts_of(record: Record, image: Image, ask: Ask, serving: Serving | None) -> Update:
    """Return {}: the engine adds the image's size, and what tells the row."""
    return {}


__all__ = ["OPERATOR_REGISTRY", "Ask", "Image", "Operator", "facts_of", "open_image"]
