"""How a run goes: attempts, budget, order, what to ask again."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_args

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.keyed_log import store_path

if TYPE_CHECKING:
    from dataflow_grounding.boxes.geometry import Size
    from dataflow_grounding.engine.budget import Budget, Prices
    from dataflow_grounding.engine.shard import Shard


# The types of options that are checked.
_TYPES_IN_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a path, as text",
}


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run; every one has a default that asks for nothing twice.

    Args:
        max_attempts: Tries per request, for replies that can't be read and for server faults.
        max_wait: Seconds for which rate limits and outages are waited for while no answer comes;
            then the run stops. None is 600, or twice the serving's timeout where that is more.
        max_requests: Most requests of the run, tries included; None is without limit.
        budget_usd: Most USD of the run, which needs `prices`; None is without limit.
        prices: What the model's tokens cost.
        force_reprocess: Ask everything again, even where replies are stored.
        retry_failed: Ask again where a stored reply refuses, can't be read or is cut off. What the
            endpoint refused by an error is asked again by any run.
        stream: Records flow through all steps of a compiled pipeline; False finishes a step for all
            records first.
        pilot: How many records to take, evenly spread over the input; None takes all.
        shard: Only the rows of this part of the input; None takes all.
        replies: File of replies to records in memory, which a later call reads; None keeps none.
        progress: Show progress; None does so on a terminal, and else writes a line now and then to
            standard error.
    """

    max_attempts: int = 3
    max_wait: float | None = None
    max_requests: int | None = None
    budget_usd: float | None = None
    prices: "Prices | None" = None
    force_reprocess: bool = False
    retry_failed: bool = False
    stream: bool = True
    pilot: int | None = None
    shard: "Shard | None" = None
    replies: str | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Raise SpecError for a value of a wrong type, and for options that exclude each other."""
        self._check_types()
        if self.shard is not None and self.pilot is not None:
            raise SpecError("a pilot tries records of the whole input: leave the shard out")
        if self.prices is not None and not hasattr(self.prices, "cost"):
            raise SpecError(
                f"RunOptions(prices=…) should be Prices(input, output), not {self.prices!r:.40}"
            )

    def _check_types(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            alternatives = get_args(option.type)  # of `int | None` these are int and NoneType
            stated_type = alternatives[0] if alternatives else option.type
            is_left_out = value is None and option.default is None
            if is_left_out or stated_type not in _TYPES_IN_WORDS:
                continue
            # a whole number will do for a float; a bool is an int in Python, but means no number
            types = (int, float) if stated_type is float else stated_type
            is_misplaced_bool = isinstance(value, bool) and stated_type is not bool
            if is_misplaced_bool or not isinstance(value, types):
                wanted = _TYPES_IN_WORDS[stated_type]
                raise SpecError(
                    f"RunOptions({option.name}=…) should be {wanted}, not {value!r:.40}"
                )


# The options of the run that operators belong to: `operator(record)` and DataFlow's
# `operator.run(storage, …)` leave no argument for them.
current_options: ContextVar[RunOptions] = ContextVar("current_options", default=RunOptions())  # noqa: B039


@dataclass
class SideRequests:
    """Counts requests that a run's steps don't make through the engine. An operator of another
    library, such as DataFlow's, calls a serving's methods by itself. These requests count against
    the budget of the run that calls the operator, and in its summary.
    """

    budget: "Budget"
    requests: Counter[str] = field(default_factory=Counter)  # and tokens, as Asking counts them
    models: list[str] = field(default_factory=list)
    cost_usd: float | None = None  # None also while the operator is at work

    def add(self, counts: Counter[str], model: str) -> None:
        """Add counts of requests to a model."""
        self.requests.update(counts)
        if model not in self.models:
            self.models.append(model)


# The counter of the run that is calling another library's operator, else None. The operator calls
# a serving's methods, which have no argument for the run.
side_requests: ContextVar[SideRequests | None] = ContextVar("side_requests", default=None)


def counter_for_memory(options: RunOptions) -> SideRequests:
    """Return the run's counter while it calls another library's operator, else a new one."""
    return side_requests.get() or SideRequests(budget_of(options))


def budget_of(options: RunOptions) -> "Budget":
    """Return a new budget with the options' limits."""
    return Budget(options.max_requests, options.budget_usd, options.prices)


@dataclass(frozen=True)
class OwnPictures:
    """The sizes and media types of a run's own pictures."""

    sizes: "Sequence[Size]" = ()  # upright: each once, the commonest first
    media_types: Sequence[str] = ()  # in the same way
    counts: Sequence[int] = ()  # of the pictures of each size
    examples: Sequence[str] = ()  # the path of the first picture of each size


@dataclass(frozen=True)
class RunStart:
    """What an operator can know before the first record."""

    options: RunOptions
    budget: "Budget"
    folder: str | None  # for what the run finds out; None without files
    pictures: Callable[[], OwnPictures]  # looks at the run's first pictures
    shared: dict[Hashable, Any] = field(default_factory=dict)  # by any key, for all operators

    async def own_pictures(self) -> OwnPictures:
        """Return what is to be known of the run's pictures, which a run of files looks at now."""
        if self.folder is None:  # a caller's pictures were looked at before
            return self.pictures()
        return await asyncio.to_thread(self.pictures)

    @property
    def replies(self) -> str | None:
        """The file that keeps the run's replies: the folder's, else the options'; None without."""
        return store_path(self.folder) if self.folder else self.options.replies
