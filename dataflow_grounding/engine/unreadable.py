"""Replies that could not be read: counts by reason, and advice."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.errors import (
    ALL_THINKING,
    OTHER_SCALE,
    REPLY_CUT_OFF,
    NoCompletion,
    NothingUsable,
    TruncatedReply,
    UnreadableReply,
)
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.tasks.wording import WITH_FORMS

# Before a reason, and before the name of a form of asking, in keys of `Summary.requests`.
UNREADABLE_REASON = "unreadable: "
UNREADABLE_FORM = "unreadable, asked as "
_TOLERATED_SHARE = 0.02  # of the replies: below this, asking again makes up for it
MOST_UNUSABLE = 30
"""Replies to a task of which none can be read, after which the run stops: each is paid for."""
_FEWEST_TO_TELL = 3  # unreadable replies: one or two may be chance, however few came
_EARLY = 10  # first replies of a task in which a rule that refuses many is told of at once
_EARLY_REFUSED = 5  # of these
_LONGEST_RULE = 200  # characters of a rule in words
_MOST_REPLIES = 10**12  # that a file may state
_LONGEST_EXCERPT = 60  # characters of a reason, which a user's own operator may have written
_LINES = f"{WITH_FORMS}_lines"  # the prompts of two forms
_LISTS = f"{WITH_FORMS}_lists"
_ANOTHER_FORM = {
    "auto": "json",
    "json": "lines",
    "lines": "json",
    "lists": "json_lists",
    "json_lists": "lists",
    "no_thinking": "json_no_thinking",
    "json_no_thinking": "no_thinking",
}
"""The form that boxes were asked for in → the one to try next. The model thinks as much in both."""


class UnreadableReplies:
    """A run's replies that could not be read, by task; where none can be, the run stops."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts  # counted up for each, by its reason and by the form of asking
        self._keys: set[str] = set()  # of the requests whose replies were counted
        self._read_tasks: set[str] = set()  # of which some reply could be read
        self._count_by_task: Counter[str] = Counter()  # of replies that could not

    def note_read(self, request: Request[Any]) -> None:
        self._read_tasks.add(request.task)

    def add(
        self, request: Request[Any], key: str, error: UnreadableReply, kept_in: str = ""
    ) -> None:
        """Count a reply; raises NothingUsable after MOST_UNUSABLE to a task, if none is read."""
        if key in self._keys:  # equal requests of several records share a reply
            return
        self._keys.add(key)
        self.count(request, error)
        self._count_by_task[request.task] += 1
        if self._are_of_no_use(request):
            sentence = too_many_unreadable(unreadable_facts(self._counts))
            why = f"{self._none_could_be_used(request)}. {sentence}"
            if error.reply:
                why += f'. The last one begins "{excerpt(error.reply, _LONGEST_EXCERPT)}"'
            if kept_in:
                # The store is named, because a run that stops writes no failures file.
                why += f"; see all in {kept_in}. The same command goes on with the other records"
            raise NothingUsable(why)

    def _are_of_no_use(self, request: Request[Any]) -> bool:
        is_any_read = request.task in self._read_tasks
        return not is_any_read and self._count_by_task[request.task] >= MOST_UNUSABLE

    def _none_could_be_used(self, request: Request[Any]) -> str:
        return (
            f"none of {self._count_by_task[request.task]} replies to {request.task} could be used"
        )

    def add_no_completions(self, request: Request[Any], error: NoCompletion) -> None:
        """Count answers that were no replies at all, one for each try; raises as `add` does."""
        self._count_by_task[request.task] += error.attempts
        if self._are_of_no_use(request):
            raise NothingUsable(
                f"{self._none_could_be_used(request)}: {error}; the same command asks again"
            )

    def count(self, request: Request[Any], error: UnreadableReply) -> None:
        """Count a reply without its key, such as a check's, whose replies differ each time."""
        self._counts["unreadable"] += 1
        self._counts[f"{UNREADABLE_REASON}{error.reason}"] += 1
        if request.task == WITH_FORMS:
            self._counts[f"{UNREADABLE_FORM}{_form_of(request)}"] += 1


class FirstReplies:
    """The first replies to a task that this run has sent for: where one rule refuses many of them,
    the run says so at once, because each refused question is asked again.
    """

    def __init__(self) -> None:
        self._rules: dict[str, list[str]] = {}  # by task; "" for a reply that is read

    def add(self, request: Request[Any], error: UnreadableReply | None) -> None:
        """Note a reply; only those to first tries count."""
        if request.tries.unread:
            return
        rules = self._rules.setdefault(request.task, [])
        if len(rules) >= _EARLY:
            return
        rule = rule_of(error)
        rules.append(rule)
        if error is None or not rule or rules.count(rule) != _EARLY_REFUSED:
            return
        count_by_form: dict[str, int] = {}  # only questions about boxes have forms of asking
        if request.task == WITH_FORMS:
            count_by_form[_form_of(request)] = _EARLY_REFUSED
        advice = _advice(error.reason, _EARLY_REFUSED, count_by_form)
        in_words = excerpt(str(error), _LONGEST_RULE).rstrip(".")
        begins = excerpt(error.reply or "", _LONGEST_EXCERPT)
        say(
            f"Warning: {_EARLY_REFUSED} of the first {len(rules)} replies to {request.task} were"
            f' refused: {in_words}. One begins "{begins}". What to do: {advice}.'
        )


def rule_of(error: UnreadableReply | None) -> str:
    """Return a text that is the same for all replies that one rule has refused; "" for none."""
    # A cut-off reply has no rule: asking again may help, as these come by chance.
    if error is None or isinstance(error, TruncatedReply):
        return ""
    named = str(error) if error.reason == "other" else error.reason
    return excerpt(named, _LONGEST_RULE)


def unreadable_facts(counts: Counter[str]) -> JsonObject:
    """Return what `run.json` says of replies that could not be read."""
    return {
        "answered": counts["answered"],
        "unreadable": counts["unreadable"],
        "unreadable_reasons": counts_after(UNREADABLE_REASON, counts),
        "unreadable_forms": counts_after(UNREADABLE_FORM, counts),
    }


def counts_after(prefix: str, counts: Counter[str]) -> dict[str, int]:
    """Return the counts whose names begin with a prefix, by what follows it."""
    found = {}
    for name in sorted(counts):
        if name.startswith(prefix):
            found[name.removeprefix(prefix)] = counts[name]
    return found


def has_unreadable_counts(facts: JsonObject) -> bool:
    """Return whether a `run.json`, perhaps a damaged one, has what `too_many_unreadable` needs."""
    counts: list[Any] = [facts.get("answered"), facts.get("unreadable")]
    for name in ("unreadable_reasons", "unreadable_forms"):
        by_name = facts.get(name)
        if not isinstance(by_name, dict):
            return False
        counts += by_name.values()
    return all(type(count) is int and 0 <= count <= _MOST_REPLIES for count in counts)


def too_many_unreadable(facts: JsonObject) -> str:
    """Return a sentence if more than 2% of the replies could not be read; else ""."""
    unreadable = facts["unreadable"]  # all tries of the run, also those to calibrate and to check
    answered = facts["answered"]
    if unreadable < _FEWEST_TO_TELL or unreadable <= _TOLERATED_SHARE * answered:
        return ""
    # Unreadable ones may outnumber replies: of equal checks that are under way at once, one is
    # sent, but each of them counts its reply as unreadable.
    share = min(1.0, unreadable / max(answered, 1))
    reason = _most_frequent(facts["unreadable_reasons"])
    advice = _advice(reason, unreadable, facts["unreadable_forms"])
    most = ""
    if reason not in ("", "other"):
        most = f" (most: {excerpt(reason, _LONGEST_EXCERPT)})"
    return f"{share:.0%} of replies could not be read as asked{most}: {advice}"


def _advice(reason: str, unreadable: int, count_by_form: Mapping[str, int]) -> str:
    if reason == REPLY_CUT_OFF:
        return "raise max_tokens"
    if reason == ALL_THINKING:
        return f"set {setting('vlm.asking', '{thinking: off}')}, or raise max_tokens"
    if reason == OTHER_SCALE:
        return f"check {setting('vlm.box_format')}, or have it found out (calibrate)"
    # Only questions about boxes can be asked in another form.
    count_about_boxes = sum(count_by_form.values())
    if count_about_boxes < unreadable / 2:
        return "try a stronger model"
    form = _ANOTHER_FORM.get(_most_frequent(count_by_form), "json")
    return f"try {setting('vlm.asking', form)}"


def _form_of(request: Request[Any]) -> str:
    """Return the form of asking as `vlm.asking` names it, by what it has put into the request."""
    is_json_by_words = request.form.is_free
    if request.prompt.name == _LINES:
        return "lines"
    if request.prompt.name == _LISTS:
        return "json_lists" if is_json_by_words else "lists"
    if request.form.thinking == "off":
        return "json_no_thinking" if is_json_by_words else "no_thinking"
    return "json" if is_json_by_words else "auto"


def _most_frequent(counts: Mapping[str, int]) -> str:
    return max(counts, key=lambda name: counts[name], default="")
