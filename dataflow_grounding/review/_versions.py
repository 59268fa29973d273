"""Versions of records next to each other: what a step changed, or where two runs differ."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import iou
from dataflow_grounding.data.records import ROW_OF_IMAGE, Record, Update, parse_line, path_of
from dataflow_grounding.review._record_view import (
    BoxView,
    ExpressionView,
    PageClasses,
    View,
    view_of,
)

# What a step leaves in a results folder: `step_1_grounding`, a folder of a spec's run, or
# `prefix_step1.jsonl`, a file of a script's. Groups: a folder's number, a file's prefix and number.
_STEP = re.compile(r"step_([0-9]+)_.+|(.*)_step([0-9]+)\.jsonl")
# An expression's text in lower case, and how many of that text come before it in its record.
_TextKey: TypeAlias = tuple[str, int]


class Version:
    """A file of records as an earlier step, or another run (`is_run`), wrote them."""

    def __init__(self, name: str, path: str, is_run: bool = False) -> None:
        self.name = name
        self.is_run = is_run
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115
        # Where a record's lines begin, by its key. `take` removes those that it returns.
        self._offsets_left: defaultdict[int, list[int]] = defaultdict(list)
        offset = 0
        for line in self._file:
            with suppress(BrokenRow):  # nothing can be compared with a line that can't be read
                self._offsets_left[_record_key(Record(parse_line(line)))].append(offset)
            offset += len(line)

    def take(self, record: Record) -> Record | None:
        """Return the record of the same image and row, None without one; each is returned once."""
        offsets = self._offsets_left.get(_record_key(record))
        return self._record_at(offsets.pop(0)) if offsets else None

    def not_taken(self) -> Iterator[Record]:
        offsets: list[int] = []
        for offsets_of_record in self._offsets_left.values():
            offsets += offsets_of_record
        for offset in sorted(offsets):  # in the file's order
            yield self._record_at(offset)

    def _record_at(self, offset: int) -> Record:
        self._file.seek(offset)
        return Record(parse_line(self._file.readline()))

    def close(self) -> None:
        self._file.close()


# Earlier versions of a record, each with its name, the oldest first; or, for a record that one of
# two runs alone has, the name of that run.
Earlier: TypeAlias = "list[tuple[str, Record]] | str"


def steps_of(results: str) -> list[tuple[str, str]]:
    """Return names and files of a run's steps: `("prefix_step1", "…/prefix_step1.jsonl")`."""
    steps: list[tuple[int, str, str]] = []  # number, name and file
    prefixes = set()  # of scripts' files; a spec's run has None
    for name in os.listdir(results):
        match = _STEP.fullmatch(name)
        if match is None:
            continue
        path = os.path.join(results, name)
        if os.path.isdir(path):
            path = os.path.join(path, "annotations.jsonl")
        if path.endswith(".jsonl") and os.path.isfile(path):
            number_of_folder, prefix, number_of_file = match.groups()
            number = int(number_of_folder or number_of_file)
            steps.append((number, name.removesuffix(".jsonl"), path))
            prefixes.add(prefix)
    if len(prefixes) != 1:  # of two scripts' steps nothing says which are this run's
        return []
    return [(name, path) for _, name, path in sorted(steps)]


def with_versions(
    records: Iterable[Record], versions: Sequence[Version], own_name: str
) -> Iterator[tuple[Record, Earlier]]:
    """Yield each record with its earlier versions, then the records that another run alone has.

    - in earlier steps, or in both runs: `record, [("ground", {…}), ("check", {…})]`
    - only in one of two runs: `record, "run_1"`, the name of that run
    """
    for record in records:
        earlier: list[tuple[str, Record]] = []
        is_only_here = False
        for version in versions:
            before = version.take(record)
            if before:
                earlier.append((version.name, before))
            elif version.is_run:  # a step without the record, though, is just left out
                is_only_here = True
        if is_only_here:
            yield record, own_name
        else:
            yield record, earlier
    for version in versions:
        if version.is_run:
            for record in version.not_taken():
                yield record, version.name


class Change(NamedTuple):
    """A difference to the version before: ("check", "a cup", "1 → 2 boxes")."""

    version: str
    text: str
    said: str


@dataclass
class Changes:
    """What `page.js` needs to show a record's earlier versions next to it.

    `versions` are the expressions of those that differ, by their names.
    """

    only: str = ""  # the run that alone has the record
    changes: list[Change] = field(default_factory=list)
    versions: dict[str, list[ExpressionView]] = field(default_factory=dict)

    def to_json(self) -> Update:
        if self.only:
            return {"only": self.only}
        if not self.changes:
            return {}
        versions = []
        for name, expressions in self.versions.items():
            versions.append({"name": name, "expressions": [each.to_json() for each in expressions]})
        return {"changes": [change._asdict() for change in self.changes], "versions": versions}


def changes_of(
    view: View, earlier: Earlier, own_name: str, classes: PageClasses | None = None
) -> Changes:
    if isinstance(earlier, str):  # the name of the run that alone has the record
        return Changes(earlier)
    versions: list[tuple[str, View]] = []
    for title, record in earlier:
        version = view_of(record, classes=classes, each_thing_once=True)
        if _is_comparable(version, view):
            versions.append((title, version))
    versions.append((own_name, view))
    confirmed = _keys_confirmed([version.expressions for _, version in versions])
    found = Changes()
    for (old_title, old), (new_title, new) in pairwise(versions):
        differences = [
            *_differences_of_picture(old, new),
            *_differences(old.expressions, new.expressions, confirmed),
        ]
        found.changes += [Change(new_title, text, difference) for text, difference in differences]
        if differences:
            found.versions[old_title] = old.expressions
            found.versions[new_title] = new.expressions
    return found


def _is_comparable(earlier: View, view: View) -> bool:
    is_same_kind = view.kind == earlier.kind
    # A step that makes expressions of regions has them in place of these. Region captions aren't
    # compared with regions: a page shows both.
    if not is_same_kind and view.kind != "expressions":
        return False
    # In a version whose expressions are all pending, nothing was looked for yet.
    return any(expression.status != "pending" for expression in earlier.expressions)


def _differences_of_picture(old: View, new: View) -> Iterator[tuple[str, str]]:
    """Yield what differs, and how: ("size", "640 x 480 → 320 x 240")."""
    if old.caption != new.caption:
        yield "caption", f"“{old.caption}” → “{new.caption}”"
    old_size = (old.width, old.height)
    new_size = (new.width, new.height)
    are_known = all([*old_size, *new_size])  # a side that isn't known is 0
    if are_known and old_size != new_size:
        yield "size", f"{old_size[0]} x {old_size[1]} → {new_size[0]} x {new_size[1]}"


def _keys_confirmed(versions: Sequence[list[ExpressionView]]) -> set[_TextKey]:
    """Return the expressions that no check had judged at first, and that are verified at last."""
    # A check may take several steps: "", "undecided", "verified". What it merely confirmed in the
    # end is no difference to tell.
    first_checks: dict[_TextKey, str] = {}  # "" for an expression that no check had judged
    for expressions in versions:
        for key, expression in _by_text(expressions).items():
            first_checks.setdefault(key, expression.check)
    confirmed = set()
    for key, expression in _by_text(versions[-1]).items():
        was_unjudged = first_checks[key] == ""
        if was_unjudged and expression.check == "verified":
            confirmed.add(key)
    return confirmed


def _differences(
    old_expressions: Sequence[ExpressionView],
    new_expressions: Sequence[ExpressionView],
    confirmed: Collection[_TextKey],
) -> Iterator[tuple[str, str]]:
    """Yield an expression's text and how it differs: ("a cup", "1 → 2 boxes · score 0.9 → 0.8")."""
    old = _by_text(old_expressions)
    new = _by_text(new_expressions)
    for key, expression in old.items():
        if key not in new:
            yield expression.text, "left out"
            continue
        parts = list(_parts_of_difference(expression, new[key]))
        old_check = expression.check
        new_check = new[key].check
        if old_check != new_check and key not in confirmed:
            parts.append(f"{old_check or 'no check'} → {new_check or 'no check'}")
        if parts:
            yield expression.text, " · ".join(parts)
    for key, expression in new.items():
        if key not in old:
            yield expression.text, "added"


def _parts_of_difference(old: ExpressionView, new: ExpressionView) -> Iterator[str]:
    if old.text != new.text:
        yield f"now “{new.text}”"
    if old.class_name != new.class_name:
        yield f"class {old.class_name or '–'} → {new.class_name or '–'}"
    if old.status != new.status:
        yield f"{old.status} → {new.status}"
    old_boxes = [instance.bbox for instance in old.instances]
    new_boxes = [instance.bbox for instance in new.instances]
    if len(old_boxes) != len(new_boxes):
        yield f"{len(old_boxes)} → {len(new_boxes)} boxes"
    elif old_boxes != new_boxes:
        yield f"box moved, IoU {min(map(iou, old_boxes, new_boxes)):.2f}"
    # Not strict: the numbers of boxes may differ, as was said above.
    for old_box, new_box in zip(old.instances, new.instances, strict=False):
        if old_box.score != new_box.score:
            yield f"score {_score(old_box)} → {_score(new_box)}"
            break  # one is enough to say that scores differ


def _score(box: BoxView) -> str:
    return "–" if box.score is None else f"{box.score:.2g}"


def _by_text(expressions: Sequence[ExpressionView]) -> dict[_TextKey, ExpressionView]:
    """Return expressions by key: ("cup", 1) is the second one of a text "Cup"."""
    text_counts = Counter[str]()
    by_text: dict[_TextKey, ExpressionView] = {}
    for expression in expressions:
        text = expression.text.casefold()
        by_text[text, text_counts[text]] = expression
        text_counts[text] += 1
    return by_text


def _record_key(record: Record) -> int:
    """Return a hash, which takes little memory, of an image and of which row of it a record is."""
    return hash((str(record.get("image_id") or path_of(record)), record.get(ROW_OF_IMAGE) or 1))
