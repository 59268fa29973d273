"""What an operator is: a question about one record, and how it is run on a record, a list, a DataFrame or a file."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dataflow_grounding.dataframes import from_dataframe, to_dataframe
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import NoRecordLeft, Step, current_pipeline, recorded_steps, source_digest
from dataflow_grounding.errors import PlanError, RecordError
from dataflow_grounding.records import Record, Update
from dataflow_grounding.storage import FileStorage
from dataflow_grounding.terminal import say

if TYPE_CHECKING:
    from dataflow_grounding.engine.options import RunStart
    from dataflow_grounding.engine.plan import Ask, Partial
    from dataflow_grounding.serving.base import Serving

O = TypeVar("O", bound="Operator")  # noqa: E741


class Annotated(list[dict[str, Any]]):
    """The records that an operator finished, in order; `failures` has (place, error) of the others."""

    def __init__(self, records: list[dict[str, Any]], failures: list[tuple[int, RecordError]]) -> None:
        super().__init__(records)
        self.failures = failures


class Operator(ABC):
    """Turns a record into its update by asking a serving.

    A subclass names its columns in `input_keys` and `output_keys` (role → default column) and works in `annotate`, with
    no threads, files, retries or progress: those are the engine's. `self.keys` has the columns of the present run.

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
    optional_keys: ClassVar[Collection[str]] = ()
    """Input roles whose column a record may lack."""
    needs_image: ClassVar[bool] = True
    """Whether each record has one image in the column of the role `image`, not a list of any number, or none."""
    descriptions: ClassVar[Mapping[str, str]] = {}
    """What it does, by language."""
    serving: Serving | None = None

    @property
    def sees_all(self) -> bool:
        """Whether it may read or write columns that it doesn't name: no step then runs beside it."""
        return not (self.input_keys and self.output_keys)

    @property
    def keys(self) -> SimpleNamespace:
        """The column of each role."""
        bound: SimpleNamespace | None = self.__dict__.get("_keys")
        return bound if bound is not None else SimpleNamespace(**self.input_keys, **self.output_keys)

    def prepare(self, start: RunStart) -> Counter[str]:
        """Called before the first record of a run; what it asks, it counts."""
        return Counter()

    @abstractmethod
    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """The columns to add to `record`. `await ask(request)` gives what a reply says. Raises RecordError."""

    async def conclude(self, ask: Ask) -> None:  # noqa: B027
        """Called after a run's last record, before its files are put in place. A RunStopped from here prevents that."""

    def run(self, storage: Any, **keys: str) -> str:
        """Work through a storage's step. While a pipeline is compiled, only note that the step is wanted.

        Args:
            storage: A FileStorage, pinned to its step: `storage.step()`.
            keys: `input_<role>_key=` and `output_<role>_key=` name columns.

        Returns:
            The (first) output column.

        Raises:
            PlanError, InputError, SpecError: Before anything is sent.
            RunStopped: The run could not be finished; what was paid for is stored.
        """
        from dataflow_grounding.engine.execute import execute  # with all that running takes, where something is run

        operator = self.bound(**keys)
        step = Step(operator, FileStorage.like(storage))
        steps = recorded_steps.get()
        if steps is not None:
            steps.append(step)
        else:
            pipeline = current_pipeline.get()
            name, budget = (pipeline.name, pipeline.budget) if pipeline else (None, None)
            summary = execute([step], current_options.get(), name, budget)
            if pipeline:
                pipeline.summaries.append(summary)
                if summary.failed and not summary.done:
                    raise NoRecordLeft
            elif summary.failed:  # nobody else tells it in a script without a Pipeline
                told = f"{summary.failed} of {summary.records} rows failed in {self.name}: see {summary.failures_file}"
                say(told)
        return next(iter(operator.writes().values()), "")

    def __call__(self, data: Any, **keys: str) -> Any:
        """Work on records in memory.

        Args:
            data: One record, a list of records, or a DataFrame.
            keys: As of `run`.

        Returns:
            The same kind with the columns added; of a list, an Annotated. A list or DataFrame omits failed records.

        Raises:
            RecordError: What failed, of one record.
            RunStopped: Nothing more could be sent.
        """
        from dataflow_grounding.engine.in_memory import annotate_all

        operator = self.bound(**keys)
        if isinstance(data, Mapping):
            [(record, error)] = annotate_all(operator, [data])
            if error is not None:
                raise error
            return record
        rows: list[Mapping[str, Any]] = list(from_dataframe(data) if hasattr(data, "to_dict") else data)
        results = annotate_all(operator, rows)
        done = Annotated(
            [record for record, error in results if error is None],
            [(place, error) for place, (_, error) in enumerate(results) if error is not None],
        )
        if not hasattr(data, "to_dict"):
            return done
        if done.failures:  # a DataFrame has no place for them
            place, error = done.failures[0]
            say(f"Warning: {len(done.failures)} of {len(rows)} rows failed and are left out. Row {place}: {error}")
        return to_dataframe(done)

    def bound(self: O, **keys: str) -> O:
        """This operator with its columns set. Raises PlanError for a role that it doesn't have."""
        operator = copy.copy(self)
        columns = {**self.input_keys, **self.output_keys}
        for argument, column in keys.items():
            columns[self._role(argument)] = column
        operator.__dict__["_keys"] = SimpleNamespace(**columns)
        return operator

    def _role(self, argument: str) -> str:
        """`input_<role>_key` or `output_<role>_key`; `input_key` and `output_key` mean the first role."""
        arguments: dict[str, str] = {}
        for prefix, roles in (("input", self.input_keys), ("output", self.output_keys)):
            arguments |= {f"{prefix}_{role}_key": role for role in roles if role != prefix}
            arguments |= {f"{prefix}_key": role for role in list(roles)[:1]}
        if argument not in arguments:
            raise PlanError(f"{type(self).__name__} takes no {argument}; it has {', '.join(arguments)}")
        return arguments[argument]

    def reads(self) -> dict[str, str]:
        """Role → column that it reads."""
        return {role: getattr(self.keys, role) for role in self.input_keys}

    def writes(self) -> dict[str, str]:
        """Role → column that it fills in."""
        return {role: getattr(self.keys, role) for role in self.output_keys}

    def settings(self) -> dict[str, Any] | None:
        """All that its updates depend on besides record and replies, as JSON; None when that can't be told."""
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, Operator)]
        source = [source_digest(cls) for cls in classes]
        if None in source:
            return None
        own = {name: value for name, value in vars(self).items() if name not in ("_keys", "serving")}
        return {"class": type(self).__qualname__, "source": source, **{name: _plain(v) for name, v in own.items()}}

    def facts(self) -> dict[str, Any]:
        """What `run.json` says of it after a run, as JSON; `check_every`: requests after which it sends one more."""
        return {}

    def needs(self) -> list[str]:
        """What it lacks, or what is good to know of it, before a run: one line each, for `check`."""
        return []

    def look_over(self, record: Record) -> None:  # noqa: B027
        """Raise RecordError for what is wrong with a record before anything is sent: `check` does so with every row."""

    @classmethod
    def get_desc(cls, lang: str = "en") -> str:
        """What the operator does, in English or Chinese (`zh`)."""
        return cls.descriptions.get(lang) or cls.descriptions.get("en") or inspect.getdoc(cls) or cls.__name__


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None), list, tuple)) else repr(value)


__all__ = ["Annotated", "Operator"]
