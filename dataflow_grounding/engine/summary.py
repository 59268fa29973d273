"""What a run did: counts for the user, `run.json` and scripts.

A probe picture has rectangles of known places, by which a run checks in what format the model's
boxes come. A note is a remark that is counted by its code, such as `bbox_cut`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import counted, shown
from dataflow_grounding.boxes.class_table import ClassTable, class_lines
from dataflow_grounding.data.expressions import Expression, read_expressions
from dataflow_grounding.data.records import STATUSES, VERDICTS, JsonObject, Record, path_of
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.plan import SUSPECT, UNSEEN
from dataflow_grounding.engine.senders.other_models import ANSWERED_BY
from dataflow_grounding.engine.unreadable import (
    counts_after,
    too_many_unreadable,
    unreadable_facts,
)

WARNINGS = {
    "over_max_boxes": ("box", "left out: only the largest max_boxes of an image are kept"),
    "unusable_bbox": ("box", "left out, of no use: see bbox_problems in the records"),
    "unanswered_check": (
        "check",
        "of the box format not answered, which vouches for no box: look at some in the report",
    ),
    "repeated_reply": (
        "reply",
        "of a gateway's cache that came before: no answer. Switch it off, and run again with"
        " --retry-failed",
    ),
    "input_changed": (
        "input",
        "changed while being read: run the same command again for what is new in it",
    ),
    "image_changed": (
        "image",
        "replaced during the run: run the same command again for its rows",
    ),
    SUSPECT: ("record", "with boxes that may be in another format: they have suspect_boxes: true"),
    UNSEEN: (
        "phrase",
        "not known to be absent: the endpoint found none of the rectangles in a probe picture, so"
        " they are ambiguous",
    ),
    "bbox_cut": ("box", "cut at the edge of the image"),
}
"""Notes that the user should read, by code: the noun of what is counted, and what about it."""

MAY_CHANGE = {"image_changed", "repeated_reply"}
"""Notes on what may come out differently when the same is done again."""

OF_CHECKS = {"probe_as_asked", "unanswered_check"}
"""Notes on checks of the endpoint, which are about the run and no row of it."""

REMARKS = {
    "unanswered": (
        "phrase",
        "without a box that the reply's not_found doesn't name: ambiguous, not absent",
    ),
    "dropped": ("answer", "dropped from replies: of no phrase that was asked for, or of no use"),
    "not_in_caption": ("phrase", "that the caption doesn't have: kept, with char_span null"),
    "not_in_cleaned_caption": (
        "phrase",
        "that the caption as given has, but not the cleaned one: kept, with char_span null",
    ),
}
"""Notes that are good to know of, in words as WARNINGS."""

ASKED_AGAIN = {
    "refused",
    "unreadable_reply",
    "truncated_reply",
    "repeated_reply",
}
"""The kinds of failures that `--retry-failed` asks about again; others need a mended row."""

PROBE_AS_ASKED = "probe_as_asked"
"""The note on a probe picture whose rectangles are where the run's format puts them."""

FEWEST_JUDGED = 20  # expressions: the share of undecided ones tells nothing of fewer
MUCH_DENIED = 0.9  # share of what was found; of a poor detector's boxes, a good judge denies less
USUALLY_ACCEPTED = 0.15  # share of false boxes, by a judge who is right in 85 of 100 answers
BY_CHANCE = 0.01  # below this likelihood, a number of accepted false boxes is no chance
SHOWN = 5  # lines with the first boxes that a summary shows
SHOWN_OF_EXPRESSION = 3  # boxes in such a line
MOST_CLASSES = 20  # that it shows


@dataclass
class Shown:
    """What a summary shows besides its counts."""

    # lines that show the first boxes, with the places of their records
    boxes: list[tuple[int, str]] = field(default_factory=list)
    classes: ClassTable = field(default_factory=ClassTable)
    remarks: Remarks = field(default_factory=Remarks)  # what replies say next to their answers
    # what failed first, in the input's order: the place of its row, and its line for people
    first_failure: tuple[int, str] | None = None
    report: str = ""  # path of the report; "" without one


@dataclass
class Handover:
    """What the next run, the other shards or the driver of a run go by."""

    passing_failures: int = 0  # that may not fail again: the next run asks again
    lasting_failures: Counter[str] = field(default_factory=Counter)  # all others, by kind
    seen: int = 0  # of a shard: the rows of the input that were read, of all shards
    digest: str = ""  # of a shard: that of these rows, which tells inputs apart

    def add(self, other: "Handover") -> None:
        """Take in what another run hands over: an earlier step's, or a shard's. All shards have
        read the same input, so that any of them says how it was.
        """
        self.passing_failures += other.passing_failures
        self.lasting_failures.update(other.lasting_failures)
        self.seen = other.seen or self.seen
        self.digest = other.digest or self.digest


@dataclass
class Summary:
    """What one run did, in counts."""

    records: int = 0  # rows, no matter what became of them
    done: int = 0  # that got through all steps
    failed: int = 0  # that didn't
    expressions: Counter[str] = field(default_factory=Counter)  # "total", by status, by verdict
    # what became of requests, and tokens by kind: "sent", "replayed" (stored replies that were
    # read), "kept" (replies of a gateway's cache), …, as Asking counts them
    requests: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)  # remarks by code
    failures: Counter[str] = field(default_factory=Counter)  # by kind of error
    seconds: float = 0.0
    cost_usd: float | None = None  # None where no prices are known
    models: list[str] = field(default_factory=list)
    annotations: str = ""  # path of the last step's file
    failures_file: str = ""
    already_complete: bool = False  # an earlier run had done just this: nothing was done now
    shown: Shown = field(default_factory=Shown)
    handover: Handover = field(default_factory=Handover)

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, else 1 if some record is done, and 4 if none is.

        What failed in part counts as well, though its record goes on and is done.
        """
        if not self.failed and not self.failures:
            return 0
        return 1 if self.done else 4

    def count_rows(self, path: str) -> None:
        """Count the rows of a last step's file, which are done."""
        for row in read_rows(path):
            self.done += 1
            self.count_expressions(Record(row.data or {}, place=row.line))

    def count_expressions(self, record: Record) -> None:
        """Add one finished record's expressions to the counts, the classes and the first boxes.

        What the model says next to its answers is counted, too.
        """
        self.shown.remarks.add(record)
        try:
            expressions = read_expressions(record, "expressions")
        except BrokenRow:  # it has none, or what an operator of the user's own has put there
            return
        self._show_boxes(record, expressions)
        self.shown.classes.add(_picture_of(record) or record.unique_id, expressions)
        self.expressions["total"] += len(expressions)
        for expression in expressions:
            if expression.status in STATUSES:
                self.expressions[expression.status] += 1
            if expression.was_checked:
                self.expressions[expression.verdict] += 1
                # `rejected` has the boxes that were found and that the judge said no to
                if expression.status == "none" and expression.rejected:
                    self.expressions["denied"] += 1

    def count_unseen(self, row: JsonObject, unseen: list[Expression]) -> None:
        """Count expressions of a row as ambiguous that were counted as absent."""
        self.notes[UNSEEN] += len(unseen)
        self.expressions["none"] -= len(unseen)
        self.expressions["ambiguous"] += len(unseen)
        if _picture_of(row):
            self.shown.classes.add(_picture_of(row), unseen)

    def _show_boxes(self, record: Record, expressions: list[Expression]) -> None:
        """Keep the first SHOWN lines with boxes, in the input's order."""
        # Records don't end in that order: a record may push out lines of one that comes after it.
        is_full = len(self.shown.boxes) >= SHOWN
        if is_full:
            last_place, _ = self.shown.boxes[-1]
            if record.place >= last_place:
                return
        lines = _box_lines(record.unique_id, expressions)
        of_record = [(record.place, line) for line in lines]
        # by place alone: the lines of a record stay in their order
        in_order = sorted(self.shown.boxes + of_record, key=lambda each: each[0])
        self.shown.boxes = in_order[:SHOWN]

    def tell_failure(self, place: int, line: str) -> None:
        """Keep the line of a row that failed, if none before it in the input did."""
        if self.shown.first_failure is None or place < self.shown.first_failure[0]:
            self.shown.first_failure = (place, line)

    def add_earlier(self, earlier: "Summary") -> None:
        """Take in what earlier steps did with the same rows. This summary is the last step's: which
        rows are done, and with what expressions, it alone can say.
        """
        self._add(earlier, "failed", "seconds")
        self.records = max(self.records, earlier.records)  # a row that failed earlier isn't here
        self.already_complete = self.already_complete and earlier.already_complete

    def add_part(self, part: "Summary") -> None:
        """Take in what another run did with other rows; its seconds aren't added."""
        self._add(part, "records", "done", "failed")
        self.expressions.update(part.expressions)
        self.shown.boxes = sorted([*self.shown.boxes, *part.shown.boxes])[:SHOWN]
        self.shown.classes.add_table(part.shown.classes)
        self.shown.remarks.add_all(part.shown.remarks)

    def _add(self, other: "Summary", *summed: str) -> None:
        """Take in what counts for earlier steps and other parts alike; sum the `summed` fields."""
        self.handover.add(other.handover)
        for name in summed:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.requests.update(other.requests)  # all three are Counters: this adds
        self.notes.update(other.notes)
        self.failures.update(other.failures)
        if other.shown.first_failure is not None:
            self.tell_failure(*other.shown.first_failure)
        # each once; the other run's come first, because it was first
        self.models = list(dict.fromkeys([*other.models, *self.models]))
        if other.cost_usd is not None:  # None: its cost isn't known, and is left out of the sum
            self.cost_usd = (self.cost_usd or 0.0) + other.cost_usd

    def to_json(self) -> dict[str, object]:
        """Return the counts as one JSON object, as `run.json` has them."""
        counts: dict[str, object] = {
            "images": self.records,
            "done": self.done,
            "failed": self.failed,
            "expressions": self.expressions["total"],
            **{status: self.expressions[status] for status in STATUSES},
            "requests": self.requests["sent"],
            "replayed": self.requests["replayed"],
            "probes": self.requests["probes"],
            "rate_limited": self.requests["rate_limited"],
            **unreadable_facts(self.requests),
            "kept_replies": self.requests["kept"],
            "repeated_replies": self.requests["repeated"],
            "answered_by": counts_after(ANSWERED_BY, self.requests),
            "tokens": {
                "input": self.requests["input_tokens"],
                "cached": self.requests["cached_tokens"],
                "output": self.requests["output_tokens"],
            },
            "cost_usd": self.cost_usd,
            "seconds": round(self.seconds, 2),
            "models": self.models,
            "notes": dict(sorted(self.notes.items())),
            "failures": dict(sorted(self.failures.items())),
            "already_complete": self.already_complete,
            "annotations": self.annotations,
            "failures_file": self.failures_file,
        }
        classes = self.shown.classes.rows()
        if classes:
            counts["classes"] = classes
        if self.shown.remarks.line():
            counts["remarks"] = self.shown.remarks.common()
            counts["remarks_rare"] = self.shown.remarks.rare
        return counts

    def __repr__(self) -> str:
        """Return it in one line."""
        sent = counted(self.requests["sent"], "request")
        file = self.annotations or "no results"
        return excerpt(f"Summary({self._done()}, {sent}, {self.seconds:.1f} s: {file})")

    def _done(self) -> str:
        return f"{counted(self.records, 'image')}: {self.done} done, {self.failed} failed"

    def __str__(self) -> str:
        """Return it in lines for people: counts, cost, warnings, failures, where results are."""
        lines = [
            self._done(),
            *self._expression_lines(),
            self._request_line(),
            *self._note_lines(),
            *self._failure_lines(),
        ]
        if self.done or self.already_complete:
            lines.append(f"results: {self.annotations}")
        else:
            lines.append("no results were written")
        if self.shown.report:
            lines.append(f"report: {self.shown.report}")
        return shown("\n".join(lines))

    def _request_line(self) -> str:
        """Return `12 requests sent, 3 replies read from the store, 0.0123 USD, in 4.2 s`."""
        if self.already_complete:
            line = "nothing to do: this run is complete, 0 requests sent"
        else:
            line = f"{counted(self.requests['sent'], 'request')} sent, "
            line += f"{counted(self.requests['replayed'], 'reply')} read from the store"
        if self.cost_usd is not None:
            line += f", {self.cost_usd:.4f} USD"
        line += f", in {self.seconds:.1f} s"
        if self.models:
            line += f" (model {', '.join(self.models)})"
        return line

    def _note_lines(self) -> Iterator[str]:
        """Yield warnings, how many checks went well, and what is good to know."""
        yield from self._counted_notes("Warning", WARNINGS)
        if self.notes[PROBE_AS_ASKED] and not self.notes[SUSPECT]:
            yield f"{counted(self.notes[PROBE_AS_ASKED], 'probe picture')} came as asked"
        kept = self.requests["kept"]
        if kept:
            yield f"{counted(kept, 'reply')} came from a gateway's cache"
        yield from self._judge_in_doubt()
        unreadable = too_many_unreadable(unreadable_facts(self.requests))
        if unreadable:
            yield f"Warning: {unreadable}"
        yield from self._counted_notes("Note", REMARKS)
        remarks = self.shown.remarks.line()
        if remarks:
            see = ": see them in the report" if self.shown.remarks.rare else ""
            yield f"said next to answers: {remarks}{see}"

    def _counted_notes(self, kind: str, words: Mapping[str, tuple[str, str]]) -> Iterator[str]:
        for code, (thing, what) in words.items():
            if self.notes[code]:
                yield f"{kind}: {counted(self.notes[code], thing)} {what}"

    def _failure_lines(self) -> Iterator[str]:
        if self.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
            yield f"failures: {kinds} (see {self.failures_file})"
        if self.shown.first_failure is not None:
            _, line = self.shown.first_failure
            yield f"  {line}"

    def _expression_lines(self) -> Iterator[str]:
        if self.expressions["total"]:
            yield self._expression_line()
        for line in class_lines(self.shown.classes.rows(), MOST_CLASSES):
            yield f"  {line}"
        # of tasks that look for classes of things: there, most expressions state a class
        if self.shown.classes.repeated and self.shown.classes.is_of_classes:
            times = counted(self.shown.classes.repeated, "box")
            yield f"  {times} on a thing that another box of its class has: counted once"
        for _, line in self.shown.boxes:
            yield f"  {line}"
        more = self.expressions["grounded"] - len(self.shown.boxes)
        if self.shown.boxes and more > 0:
            yield f"  … and {more:,} more with boxes"

    def _expression_line(self) -> str:
        """Return `12 expressions: 9 grounded, 3 none; 8 verified, 1 undecided`."""
        line = counted(self.expressions["total"], "expression")
        of_statuses = self._counts_of(STATUSES)
        of_verdicts = self._counts_of(VERDICTS)  # "" where nothing was checked
        parts = "; ".join(filter(None, [of_statuses, of_verdicts]))
        return f"{line}: {parts}" if parts else line

    def _judge_in_doubt(self) -> Iterator[str]:
        """Warn of a judge, the model that checks boxes, whose answers tell nothing."""
        shown_false_boxes = self.notes["false_boxes"]
        accepted = self.notes["false_boxes_accepted"]
        if _are_more_than_chance(accepted, shown_false_boxes):
            yield (
                f"Warning: the judge accepted {accepted} of {shown_false_boxes} false boxes that it"
                " was shown among the others: it may say yes to anything. Name another one as"
                " vlm.judge."
            )
        yield from self._judge_who_denies()
        yield from self._judge_who_guesses()

    def _judge_who_denies(self) -> Iterator[str]:
        denied = self.expressions["denied"]
        found = denied + self.expressions["grounded"]  # expressions for which some box was found
        if found >= FEWEST_JUDGED and denied > MUCH_DENIED * found:
            yield (
                f"Warning: the judge denied all boxes of {denied} of {found} expressions that had"
                " any: it may say no to anything. Look at some of them in `rejected`, or name"
                " another one as vlm.judge."
            )

    def _judge_who_guesses(self) -> Iterator[str]:
        undecided = self.expressions["undecided"]
        judged = undecided + self.expressions["verified"] + self.expressions["not verified"]
        # where answers differ as often as guesses do, more than half is left undecided
        if judged >= FEWEST_JUDGED and undecided > judged / 2:
            yield (
                f"Warning: the judge left {undecided} of {judged} undecided, as its answers differ:"
                " it may be guessing. Look at them in the report, or name another one as vlm.judge."
            )

    def _counts_of(self, words: Iterable[str]) -> str:
        return ", ".join(
            f"{self.expressions[word]} {word}" for word in words if self.expressions[word]
        )


def _are_more_than_chance(accepted: int, shown_count: int) -> bool:
    """Return whether a judge who is usually right would hardly ever accept that many."""
    if accepted == 0:
        return False
    # the tail of the binomial distribution: how likely that many or more are
    likelihood = 0.0
    for count in range(accepted, shown_count + 1):
        ways = math.comb(shown_count, count)
        others = shown_count - count
        likelihood += ways * USUALLY_ACCEPTED**count * (1 - USUALLY_ACCEPTED) ** others
    return likelihood < BY_CHANCE


def _picture_of(record: JsonObject) -> str:
    """Return what tells the record's picture from others; "" where it names none."""
    return path_of(record) or str(record.get("image_id") or "")


def _box_lines(record_id: str, expressions: list[Expression]) -> Iterator[str]:
    """Yield a line for each expression with boxes: `photo_1: the cup [12, 30, 80, 96]`."""
    for expression in expressions:
        boxes = [list(instance.bbox) for instance in expression.instances[:SHOWN_OF_EXPRESSION]]
        if boxes:
            first = ", ".join(map(str, boxes))
            yield shown(f"{record_id:.60}: {expression.text:.60} {first}", lines=False)
