"""What a run did: counts for the user, `run.json` and scripts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import counted, shown
from dataflow_grounding.data.records import STATUSES, VERDICTS, Record
from dataflow_grounding.engine.plan import SUSPECT

WARNINGS = {
    "over_max_boxes": ("box", "left out: only the largest max_boxes of an image are kept"),
    "unusable_bbox": ("box", "left out, of no use: see bbox_problems in the records"),
    "unanswered_check": (
        "check",
        "of the box format not answered: see docs/calibration.md, The standing check",
    ),
    "input_changed": (
        "input",
        "changed while being read: run the same command again for what is new in it",
    ),
    "image_changed": (
        "image",
        "replaced by one of the same size and time: run the same command again for its rows",
    ),
    SUSPECT: ("record", "with boxes that may be in another format: they have suspect_boxes: true"),
    "bbox_cut": ("box", "cut at the edge of the image"),
}
"""Notes that the user should read, in words: of what there are so many, and what about it."""

SHOWN = 5
"""How many of the first boxes a summary shows."""


@dataclass
class Summary:
    """Counts of one run; `expressions` has the total and a count per status."""

    records: int = 0
    done: int = 0
    failed: int = 0
    passing_failures: int = 0
    expressions: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cost_usd: float | None = None
    models: list[str] = field(default_factory=list)
    annotations: str = ""
    failures_file: str = ""
    report: str = ""
    # of the first records with any, by place: for people
    boxes: list[tuple[int, str]] = field(default_factory=list)
    already_complete: bool = False
    seen: int = 0  # of a shard: the rows of the input that were read, of all shards
    digest: str = ""  # what tells these rows from others

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed (also those that go on without a check), 4 none done."""
        if not self.failed and not self.failures:
            return 0
        return 1 if self.done else 4

    def count_expressions(self, record: Record) -> None:
        """Add one finished record's expressions."""
        given = record.get("expressions")
        if not isinstance(given, list):
            return
        expressions = [expression for expression in given if isinstance(expression, dict)]
        if len(self.boxes) < SHOWN or record.place < self.boxes[-1][0]:
            lines = _boxes(record.unique_id, expressions)
            self.boxes = sorted([*self.boxes, *((record.place, line) for line in lines)])[:SHOWN]
        self.expressions["total"] += len(given)
        for expression in expressions:
            if expression.get("status") in STATUSES:
                self.expressions[expression["status"]] += 1
            if "verified" in expression:
                verified = expression["verified"]
                self.expressions[VERDICTS[verified if isinstance(verified, bool) else None]] += 1

    def add_earlier(self, earlier: "Summary") -> None:
        """Take in what the steps before this summary's did: their requests, time, and records that
        failed.
        """
        self._add(earlier, "failed", "seconds")
        self.records = max(self.records, earlier.records)
        self.seen, self.digest = earlier.seen or self.seen, earlier.digest or self.digest
        self.already_complete = self.already_complete and earlier.already_complete

    def add_part(self, part: "Summary") -> None:
        """Take in what another run did with other rows."""
        self._add(part, "records", "done", "failed")
        self.expressions.update(part.expressions)
        self.boxes = sorted([*self.boxes, *part.boxes])[:SHOWN]

    def _add(self, other: "Summary", *names: str) -> None:
        for name in ("passing_failures", *names):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("requests", "notes", "failures"):
            getattr(self, name).update(getattr(other, name))
        self.models = list(dict.fromkeys([*other.models, *self.models]))
        if other.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + other.cost_usd

    def to_json(self) -> dict[str, Any]:
        """The counts as one JSON object."""
        return {
            "images": self.records,
            "done": self.done,
            "failed": self.failed,
            "expressions": self.expressions["total"],
            **{status: self.expressions[status] for status in STATUSES},
            "requests": self.requests["sent"],
            **{
                name: self.requests[name]
                for name in ("replayed", "probes", "rate_limited", "unreadable")
            },
            "tokens": {
                name: self.requests[f"{name}_tokens"] for name in ("input", "cached", "output")
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

    def __repr__(self) -> str:
        sent, file = counted(self.requests["sent"], "request"), self.annotations or "no results"
        return excerpt(f"Summary({self._done()}, {sent}, {self.seconds:.1f} s: {file})")

    def _done(self) -> str:
        return f"{counted(self.records, 'image')}: {self.done} done, {self.failed} failed"

    def __str__(self) -> str:
        lines = [self._done(), *self._found()]
        sent = f"{counted(self.requests['sent'], 'request')} sent, "
        sent += f"{counted(self.requests['replayed'], 'reply')} read from the store"
        if self.already_complete:
            sent = "nothing to do: this run is complete, 0 requests sent"
        if self.cost_usd is not None:
            sent += f", {self.cost_usd:.4f} USD"
        lines.append(
            f"{sent}, in {self.seconds:.1f} s"
            + (f" (model {', '.join(self.models)})" if self.models else "")
        )
        told = ((self.notes[note], *words) for note, words in WARNINGS.items())
        lines += [
            f"Warning: {counted(count, thing)} {what}" for count, thing, what in told if count
        ]
        if self.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failures.items()))
            lines.append(f"failures: {kinds} (see {self.failures_file})")
        there = self.done or self.already_complete
        lines.append(f"results: {self.annotations}" if there else "no results were written")
        if self.report:
            lines.append(f"report: {self.report}")
        return shown("\n".join(lines))

    def _found(self) -> Iterator[str]:
        if self.expressions["total"]:
            counts = [
                f"{self.expressions[word]} {word}" for word in STATUSES if self.expressions[word]
            ]
            checks = [
                f"{self.expressions[word]} {word}"
                for word in VERDICTS.values()
                if self.expressions[word]
            ]
            parts = "; ".join(filter(None, [", ".join(counts), ", ".join(checks)]))
            yield counted(self.expressions["total"], "expression") + (f": {parts}" if parts else "")
        for _, line in self.boxes:
            yield f"  {line}"


def _boxes(of: str, expressions: list[dict[str, Any]]) -> Iterator[str]:
    for expression in expressions:
        instances = expression.get("instances")
        instances = instances if isinstance(instances, list) else []
        found = [i["bbox"] for i in instances if isinstance(i, dict) and "bbox" in i]
        if found:
            line = f"{of:.60}: {expression.get('text')!s:.60} {', '.join(map(str, found[:3]))}"
            yield shown(line, lines=False)
