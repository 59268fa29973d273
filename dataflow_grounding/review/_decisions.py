"""Decisions of reviewers: lines of `reviews.jsonl`, and what holds after all of them.

A line is either a decision or a sample. A decision has `picture` (its name: `_names`), `acts` on
phrases and boxes of it (`_acts`), `who`, `when` and, where they apply, `comment`, on the picture,
and `undoes`, the `uid` of the decision that it takes back. `record` says where it was made. A
sample has `sample`, `who`, `when`.

Nothing in a decision is of a file of records: it holds wherever its names are.
"""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.files import open_log
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.expressions import Bbox, Expression
from dataflow_grounding.data.records import JsonObject, Record, dump_line, parse_line
from dataflow_grounding.data.results_folder import annotations_of
from dataflow_grounding.data.reviewed import reviewed_path
from dataflow_grounding.engine.keyed_log import append, storing
from dataflow_grounding.review._acts import Act, Review, named_acts
from dataflow_grounding.review._names import PictureName
from dataflow_grounding.review._overlay import version_of
from dataflow_grounding.review._record_view import expressions_of

MOST_CHARACTERS = 10_000  # of a comment


class ReviewFiles(NamedTuple):
    """Paths of the records, of the decisions on them, and of the records as reviewed."""

    annotations: str
    decisions: str
    reviewed: str


def review_files(results: str) -> ReviewFiles:
    """Return the files of a results folder, or of a file of records, which are next to it."""
    annotations = annotations_of(results)
    if not os.path.exists(annotations):  # it is at an address of a store
        raise InputError(
            f"decisions on {annotations} can't be kept there: copy it to this machine, and name the"
            " copy"
        )
    stem = annotations.removesuffix(".jsonl")
    if stem.endswith(".reviewed"):
        raise InputError(f"{annotations} is what `apply` wrote: name what it was made of instead")
    if os.path.basename(stem) == "annotations":
        decisions = os.path.join(os.path.dirname(stem), "reviews.jsonl")
    else:  # x.csv and x.jsonl have separate decisions: x.csv.reviews.jsonl, x.reviews.jsonl
        decisions = f"{stem}.reviews.jsonl"
    return ReviewFiles(annotations, decisions, reviewed_path(annotations))


@dataclass(frozen=True)
class Decision:
    """A line of the file."""

    picture: PictureName
    record: str  # the key of the record where it was made
    acts: list[Act]
    ids: list[str]  # of the expressions that it is on, in that record
    who: str
    uid: str = ""
    comment: str | None = None  # "" takes an earlier one back
    undoes: str = ""  # a uid

    @classmethod
    def from_json(cls, line: JsonObject) -> "Decision":
        """Read a line. Raises TypeError, KeyError, ValueError or BrokenRow for what is none."""
        return cls(
            PictureName.of_line(line),
            str(line.get("record")),
            [Act.from_json(act) for act in line["acts"]],
            list(line.get("ids", ())),
            str(line.get("who")),
            uid=str(line.get("uid") or ""),
            comment=str(line["comment"] or "") if "comment" in line else None,
            undoes=str(line.get("undoes") or ""),
        )

    def phrases(self) -> set[str]:
        return {phrase for act in self.acts for phrase in (act.phrase, act.text or act.phrase)}


class Sample(NamedTuple):
    """A sample that somebody has stated, as the file has it."""

    size: int  # 0 for one that no sample has
    seed: int
    of: dict[str, int]  # how many boxes, and phrases without boxes, the file of records had
    items: list[Any]  # of each the names of its picture and phrase, and its corners
    image_root: str | None
    who: str | None = None
    when: str | None = None

    @classmethod
    def from_json(cls, stated: JsonObject, line: JsonObject) -> "Sample":
        size, seed = stated.get("size"), stated.get("seed")
        return cls(
            max(size, 0) if type(size) is int else 0,
            seed if type(seed) is int else 0,
            stated.get("of") or {},
            stated.get("items") or [],
            stated.get("image_root"),
            line.get("who"),
            line.get("when"),
        )


class Decisions:
    """All decisions in a file, to which other processes may append at the same time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[Decision] = []  # in their order
        self.samples: list[Sample] = []
        # The numbers of lines that count for nothing, as a killed process or a full disk left them.
        self.damaged: list[int] = []
        self._lines_of_picture = defaultdict[str, list[int]](list)  # places in `lines`, by name
        self._taken_back = set[str]()  # the uids of decisions that don't hold
        self._line_of_uid: dict[str, Decision] = {}
        # What decisions name: a picture's bytes are only read for a record that has any of it.
        self._phrases = set[str]()
        self._boxes = set[tuple[str, Bbox]]()
        self._sizes = set[int | None]()  # of the pictures, in bytes
        self._sizes_of_whole = set[int | None]()  # of those with a comment, or a phrase that is new
        # how far the file was read; what others append later is read by `refresh`
        self._bytes_read = 0
        self._lines_read = 0
        self.refresh()

    def tell_damaged(self) -> None:
        for line in self.damaged:
            say(f"Note: {self.path}, line {line} can't be read and counts for nothing.")

    def refresh(self) -> None:
        """Read the lines that were appended since the last call. Raises StorageFailed."""
        if not os.path.exists(self.path):
            return
        with storing(self.path), open(self.path, "rb") as file:
            file.seek(self._bytes_read)
            for raw_line in file:
                is_taken = True
                try:
                    self._take(parse_line(raw_line))
                except (BrokenRow, KeyError, AttributeError, TypeError, ValueError):
                    is_taken = False
                is_whole = raw_line.endswith(b"\n")
                if not is_taken and not is_whole:
                    break  # somebody is still writing it: the next call begins with it
                # A blank line is no damage. The call before may have read the last line when its
                # line break wasn't there yet: then only the break is left for this call.
                if not is_taken and raw_line.strip():
                    self.damaged.append(self._lines_read + 1)
                self._bytes_read += len(raw_line)
                if is_whole:
                    self._lines_read += 1

    def _take(self, line: JsonObject) -> None:
        if isinstance(line.get("sample"), dict):
            sample = Sample.from_json(line["sample"], line)
            # Somebody may have appended a copy of the file to the file itself.
            if sample not in self.samples:
                self.samples.append(sample)
            return
        decision = Decision.from_json(line)
        if decision.uid and decision.uid in self._line_of_uid:
            return
        self._lines_of_picture[decision.picture.name].append(len(self.lines))
        self.lines.append(decision)
        self._line_of_uid[decision.uid] = decision
        if decision.undoes:
            self._set_held(decision.undoes, False)
        self._sizes.add(decision.picture.size)
        if decision.comment is not None or any(act.says == "added" for act in decision.acts):
            self._sizes_of_whole.add(decision.picture.size)
        for act in decision.acts:
            if act.box is not None:
                self._boxes.add((act.phrase, act.box))
            else:
                self._phrases.add(act.phrase)

    def _set_held(self, uid: str, is_held: bool) -> None:
        """Note whether a decision holds. An undo that holds no more brings back what it undid."""
        if is_held:
            self._taken_back.discard(uid)
        else:
            self._taken_back.add(uid)
        undoing = self._line_of_uid.get(uid)
        if undoing and undoing.undoes:
            self._set_held(undoing.undoes, not is_held)

    def review_of(
        self, record: Record, expressions: Mapping[str, Expression] | None = None
    ) -> Review:
        """Return what holds on a record. Raises BrokenRow for one that can't be read."""
        written = expressions_of(record) if expressions is None else expressions
        review = Review(record, written)
        for number in self._numbers_for(record, written):
            decision = self.lines[number]
            if decision.undoes or decision.uid in self._taken_back:
                review.decisions.append(number)
                continue
            taken = [review.take(act, decision.who) for act in decision.acts]
            if decision.comment is not None:
                review.comment = decision.comment or None
            if any(taken) or decision.comment is not None:
                review.decisions.append(number)
        return review

    def _numbers_for(self, record: Record, written: Mapping[str, Expression]) -> list[int]:
        """Return which lines are of a record's picture, in their order."""
        if not self.lines:
            return []
        has_any = False  # of what decisions name
        for row in written.values():
            has_any |= row.text in self._phrases
            has_any |= any((row.text, box.bbox) in self._boxes for box in row.instances)
        sizes = self._sizes if has_any else self._sizes_of_whole
        numbers: list[int] = []
        for name in PictureName.of_record(record, sizes).names:
            numbers += self._lines_of_picture.get(name, ())
        return sorted(numbers)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Lock the file, read what was appended, yield its descriptor. Raises StorageFailed."""
        import fcntl  # only on POSIX systems

        with storing(self.path), open(open_log(self.path, os.O_RDWR), "ab+", buffering=0) as file:
            with suppress(OSError):  # of a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            yield file.fileno()

    def sync(self) -> None:
        """Put all that was appended on disk. Raises StorageFailed."""
        with self._locked() as file:
            os.fsync(file)

    def _append(self, file: int, who: str, line: JsonObject) -> None:
        """Append a whole line; after `sync` it outlasts a loss of power, too."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = dump_line({**line, "who": who, "when": when}).encode()
        size = os.fstat(file).st_size
        ends_in_torn_line = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        if ends_in_torn_line:
            data = b"\n" + data
        append(file, data, size)  # a part that was written is cut off again, back to `size`
        self.refresh()

    def state_sample(self, sample: Sample, who: str) -> None:
        """Put a sample on disk: a certificate counts it even if its reviewer shows it nobody."""
        stated = sample._asdict()
        del stated["who"], stated["when"]
        with self._locked() as file:
            self._append(file, who, {"sample": stated})
        self.sync()

    def decide(self, record: Record, key: str, request: JsonObject, who: str) -> list[str]:
        """Check a reviewer's decision, append it, and return the ids of what it is on.

        After the last decision the caller calls `sync`. `request` has `undoes`, the uid of a
        decision, or `acts`, as `named_acts` takes them, and `versions`: by id, those of their
        expressions as the reviewer saw them. Raises InputError and StorageFailed.
        """
        about = _about_decision(request)
        with self._locked() as file:
            # A page sends a decision again if it got no answer: it is answered, and not appended.
            if about.get("uid") in self._line_of_uid:
                return self._of_record(about["uid"], key).ids
            picture = PictureName.of_record(record)
            shown_digest = request.get("digest")  # None if the picture couldn't be read then
            if shown_digest is not None and shown_digest != picture.digest:
                raise InputError("the picture was replaced since it was shown here: look again")
            acts: list[Act] = []
            if request.get("undoes"):
                ids = self._ids_to_undo(str(request["undoes"]), key)
            else:
                acts, ids = self._acts_for(record, request, who)
            rows = [act.to_json() for act in acts]
            line = {"picture": picture.to_json(), "record": key, "acts": rows, "ids": ids, **about}
            self._append(file, who, line)
            return ids

    def _of_record(self, uid: str, key: str) -> Decision:
        decision = self._line_of_uid.get(uid)
        if decision is None or decision.record != key:
            raise InputError("there is no such decision on this record")
        return decision

    def _acts_for(
        self, record: Record, request: JsonObject, who: str
    ) -> tuple[list[Act], list[str]]:
        """Return the acts that a request asks for, checked, and the ids of what they are on."""
        review = self.review_of(record)
        standing = review.standing()
        wanted = objects_under(request, "acts")
        versions = request.get("versions")
        for id in dict.fromkeys(str(each["id"]) for each in wanted if "id" in each):
            seen = versions.get(id) if isinstance(versions, Mapping) else None
            if version_of(standing.get(id)) != seen:
                outcome = review.outcomes.get(id)
                name = standing[id].text if id in standing else id
                reviewer = outcome.who if outcome else "somebody"
                raise InputError(f"{name}: {reviewer} changed it meanwhile")
        return named_acts(record, wanted, review, who)

    def _ids_to_undo(self, uid: str, key: str) -> list[str]:
        """Return the ids of what a decision is on.

        Raises InputError if there is no such decision, or a later one is on the same phrases.
        """
        undone = self._of_record(uid, key)
        at_last: Decision | None = undone
        while at_last and at_last.undoes:
            at_last = self._line_of_uid.get(at_last.undoes)
        phrases = at_last.phrases() if at_last else set()
        for number in reversed(self._lines_of_picture[undone.picture.name]):
            decision = self.lines[number]
            if decision is undone:
                break
            if decision.undoes or decision.uid in self._taken_back:
                continue
            for phrase in phrases & decision.phrases():
                raise InputError(f"{phrase}: {decision.who} changed it meanwhile")
        return undone.ids


def _about_decision(request: JsonObject) -> dict[str, str]:
    """Return the columns of a decision's line that come after its `acts`, checked."""
    about: dict[str, str] = {}
    for name in ("uid", "comment", "undoes"):
        value = request.get(name)
        removes_comment = name == "comment" and value == ""  # that of an earlier decision
        if not value and not removes_comment:
            continue
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise InputError("'uid' and 'comment' should be texts of at most 10,000 characters")
        about[name] = value
    return about


def objects_under(request: JsonObject, name: str) -> list[JsonObject]:
    """Return the list of objects under a name of a page's JSON. Raises InputError."""
    items = request.get(name)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise InputError(f"{name!r} should be a list of objects")
    return items
