"""Reading boxes out of a model's reply, in any of the shapes that models write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..coordinates import BoxFormat, find_box_format, known_formats, to_xyxy
from ..errors import TruncatedReply, UnreadableReply
from ..geometry import Bbox, Size, area, clamp, ordered
from .answer_text import Answer, answer_of, without_control_tokens
from .json_marks import read_value
from .json_text import Scan, find_json
from .labels import equal_ids, matching_ids
from .marks import Mark, Marks, Said, number, says_none
from .native import read_tokens
from .plain_text import label_before, read_plain

# How far outside of its range a number may lie, in parts of the range, to be moved inside and not dropped.
TOLERANCE = 1 / 8
# The share of a reply's boxes that may lie further outside before the whole reply counts as written in another format.
OUT_OF_SCALE_SHARE = 1 / 10
# The share of a reply's boxes that may be dropped or moved before the reading counts as doubtful.
DOUBTFUL_SHARE = 1 / 3
STATUSES = ("ambiguous", "unsupported")


@dataclass(frozen=True)
class FoundBox:
    """One box: `bbox` in float xyxy pixels of the original image, inside it; `numbers` as the reply wrote them.

    `id` is the phrase's, None without phrases. `label`, `score` (in [0, 1]) and `evidence` (seen, inferred, region) are the
    reply's own words, None where it has none.
    """

    bbox: Bbox
    id: int | None
    label: str | None
    score: float | None
    numbers: tuple[float, ...]
    evidence: str | None


@dataclass(frozen=True)
class FoundPoint:
    """One point: `point` as x, y in float pixels of the original image, not clamped; the rest as in FoundBox."""

    point: tuple[float, float]
    label: str | None
    numbers: tuple[float, ...]


@dataclass
class Reading:
    """What a reply says. `boxes` is empty when the reply says that nothing is there.

    Each note begins with one of: truncated, repaired_json, clamped, swapped, dropped, matched_by_label, merged,
    score_ignored, labels_ignored, native_tokens. `statuses` and `reasons` are by phrase id.
    """

    boxes: list[FoundBox]
    notes: list[str] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def count(self, code: str) -> int:
        """Return how many notes begin with `code`."""
        return sum(note.partition(":")[0] == code for note in self.notes)

    @property
    def doubtful(self) -> bool:
        """Whether so many boxes were dropped, moved or turned round that the others deserve a look too."""
        touched = self.count("dropped") + self.count("clamped") + self.count("swapped")
        return touched > DOUBTFUL_SHARE * (len(self.boxes) + self.count("dropped"))


def read_boxes(
    reply: str,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
) -> Reading:
    """Read the boxes in a model's reply.

    `format` is the convention that the reply was asked for, or its name; `image_size` the original upright image's (width,
    height); `sent_size` the size of the picture that was sent, where it was another. `phrases` are those of the request, by
    id or in order from 1: then every box belongs to one of them, or is dropped with a note. Raises UnreadableReply, with a
    line that says what was wrong, when there is nothing to read or nothing that was read can be used.
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    marks = find_marks(reply, box_format.key)
    wanted = dict(phrases) if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    reader = _BoxReader(box_format, image_size, sent_size or image_size, wanted)
    reader.take(marks)
    return reader.reading


def read_points(
    reply: str, *, format: BoxFormat | str, image_size: Size, sent_size: Size | None = None
) -> list[FoundPoint]:
    """Read the points in a reply of a model that points; arguments as in `read_boxes`.

    Raises UnreadableReply when there is no point and the reply does not say that there is none.
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    marks = find_marks(reply, box_format.key)
    if not marks.points and not marks.absent:
        raise UnreadableReply("there is no point in the reply")
    found = []
    for mark in marks.points:
        meant = replace(box_format, order=mark.order) if mark.order else box_format
        point = meant.point_to_pixels(mark.numbers, original=image_size, sent=sent_size)
        found.append(FoundPoint(point, mark.said.labels[0] if mark.said.labels else None, mark.numbers))
    return found


class _NoBox(Exception):
    """One mark is no box that can be used; the text says why."""


class _BoxReader:
    """Turns marks into boxes in pixels, each of one phrase, and writes down what it had to do to them."""

    def __init__(self, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]) -> None:
        self.format, self.original, self.sent, self.phrases = box_format, original, sent, phrases
        self.reading = Reading([])
        self.taken: dict[str, int] = {}
        self.out_of_scale: list[float] = []
        self.out_of_scale_boxes = 0
        self.empty = False

    def take(self, marks: Marks) -> None:
        reading = self.reading
        reading.notes += [*marks.notes, *(f"dropped: {reason}" for reason in marks.dropped)]
        self.statuses(marks)
        if marks.points and not marks.boxes:
            raise UnreadableReply("the reply has points where boxes were asked for")
        if marks.points:
            self.note("dropped", f"{len(marks.points)} points, which are no boxes")
        for mark in marks.boxes:
            try:
                self.keep(mark, self.pixels(mark))
            except _NoBox as reason:
                self.note("dropped", str(reason))
        if self.out_of_scale_boxes > OUT_OF_SCALE_SHARE * len(marks.boxes):
            raise UnreadableReply(self.scale_complaint())
        if reading.boxes or reading.statuses:
            return
        if reading.count("truncated"):
            raise TruncatedReply("the reply is cut off before its first whole box")
        if reading.count("dropped") and not self.empty:
            raise UnreadableReply(next(note for note in reading.notes if note.startswith("dropped")))

    def note(self, code: str, what: str) -> None:
        self.reading.notes.append(f"{code}: {what}")

    def statuses(self, marks: Marks) -> None:
        for i, status in marks.statuses.items():
            if (i in self.phrases or not self.phrases) and status in STATUSES:
                self.reading.statuses[i] = status
                if i in marks.reasons:
                    self.reading.reasons[i] = marks.reasons[i]
            else:
                self.note("dropped", f"status {status[:40]!r} of phrase {i}")

    def meaning(self, mark: Mark) -> BoxFormat:
        meant = self.format
        if mark.family is not None and mark.family != meant.name:
            meant = known_formats()[mark.family]
            if not self.reading.count("native_tokens"):
                self.note("native_tokens", f"read as {mark.family}, whose tokens these are")
        return replace(meant, order=mark.order) if mark.order else meant

    def pixels(self, mark: Mark) -> Bbox:
        """Return the box that a mark means, inside the image; raises _NoBox when it means none."""
        meant, written = self.meaning(mark), _shown(mark.numbers)
        numbers = mark.numbers
        if meant.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < 1024:
                raise _NoBox(f"grid cells {written}")
        else:
            numbers = self.in_scale(numbers, meant)
        drawn = meant.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(drawn)
        if upright != drawn:
            self.note("swapped", f"{written}: the corners were the wrong way round")
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise _NoBox(f"{written} has no area in the image")
        if max(abs(a - b) for a, b in zip(inside, upright)) > 1e-6 * max(self.original):
            self.note("clamped", f"{written} reached out of the image")
        return inside

    def in_scale(self, numbers: tuple[float, ...], meant: BoxFormat) -> tuple[float, ...]:
        written = _shown(numbers)
        if not any(numbers):
            self.empty = True
            raise _NoBox("an all-zero box, which says that nothing is there")
        mended = _without_runaway(numbers, meant)
        if mended != numbers:
            self.note("clamped", f"{written}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(mended, meant.order), meant.limits(self.sent)):
            self.out_of_scale += mended
            self.out_of_scale_boxes += 1
            raise _NoBox(f"{written} does not fit the box format {self.format.name}")
        return mended

    def scale_complaint(self) -> str:
        x, y = self.format.limits(self.sent)
        asked = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        low, high = min(self.out_of_scale), max(self.out_of_scale)
        return f"the coordinates go from {low:g} to {high:g}, where {asked} was asked for"

    def keep(self, mark: Mark, bbox: Bbox) -> None:
        said = mark.said
        label = said.labels[0] if said.labels else None
        phrase_id = self.phrase_of(said) if self.phrases else said.id
        if self.phrases and phrase_id is None:
            what = f"label {label[:60]!r} is none of the phrases" if label else "a box without an id or a label"
            raise _NoBox(what)
        if self.phrases and any(found.id == phrase_id and found.bbox == bbox for found in self.reading.boxes):
            self.note("merged", f"a second box {_shown(mark.numbers)} of phrase {phrase_id}")
            return
        score = _score(said.score)
        if score is None and said.score is not None:
            self.note("score_ignored", f"{str(said.score)[:40]!r} is no score from 0 to 1")
        self.reading.boxes.append(FoundBox(bbox, phrase_id, label, score, mark.numbers, said.evidence))

    def phrase_of(self, said: Said) -> int | None:
        """Return the phrase that a box belongs to: by id, unless its label is another phrase; by label; or the only one."""
        if said.id in self.phrases:
            equal = [i for label in said.labels for i in equal_ids(label, self.phrases)]
            if not equal or said.id in equal:
                return said.id
        ids = next((ids for label in said.labels if (ids := matching_ids(label, self.phrases))), [])
        if ids:
            # Phrases that read the same get the boxes in turn, the last one the rest.
            key = self.phrases[ids[0]]
            turn = self.taken.get(key, 0)
            self.taken[key] = turn + 1
            self.note("matched_by_label", f"{said.labels[0][:60]!r} is phrase {ids[min(turn, len(ids) - 1)]}")
            return ids[min(turn, len(ids) - 1)]
        return next(iter(self.phrases)) if len(self.phrases) == 1 and not said.labels else None


def find_marks(reply: str, key: str = "bbox_2d") -> Marks:
    """Return all boxes and points in a reply with their numbers as written; `key` is the box key that was asked for.

    Empty only for a reply that says that there is nothing. Raises UnreadableReply when the reply holds neither.
    """
    answer = answer_of(reply)
    best: Marks | None = None
    for read in (_tokens, _blocks, _json, _plain):
        marks = read(answer, key)
        if marks.boxes or marks.points or marks.absent or marks.statuses:
            return marks
        best = best or (marks if marks.dropped else None)
    if best is not None:
        return best
    text = without_control_tokens(answer.text).strip()
    if says_none(text):
        return Marks(absent=1)
    raise UnreadableReply(f"there is no box in the reply: it begins {' '.join(text[:200].split())[:60]!r}")


def _tokens(answer: Answer, key: str) -> Marks:
    marks = Marks()
    read_tokens(answer.text, marks)
    return marks


def _blocks(answer: Answer, key: str) -> Marks:
    marks = Marks()
    for block in answer.blocks:
        _read_scan(find_json(block), marks, key)
    return marks


def _json(answer: Answer, key: str) -> Marks:
    marks = Marks()
    _read_scan(find_json(answer.text), marks, key)
    return marks


def _plain(answer: Answer, key: str) -> Marks:
    marks = Marks()
    read_plain(without_control_tokens(answer.text), marks)
    return marks


def _read_scan(scan: Scan, marks: Marks, key: str) -> None:
    end = 0
    found = iter(scan.found)
    for item in found:
        label = label_before(scan.text[end : item.start]) if isinstance(item.value, list) else None
        read_value(item.value, marks, key, Said((label,) if label else ()))
        end = item.end
    if scan.truncated:
        marks.notes.append("truncated: the reply ends inside of its JSON")
    elif scan.repaired and scan.found:
        marks.notes.append("repaired_json: what the reply has is not quite JSON")


def _without_runaway(numbers: tuple[float, ...], meant: BoxFormat) -> tuple[float, ...]:
    # DeepSeek-VL2 writes 9999 or 99999 for the edge at 999 (deepseek-ai/DeepSeek-VL2 issue 123).
    if meant.scale not in (999, 1000):
        return numbers
    return tuple(999.0 if value > 1000 and set(f"{value:.0f}") == {"9"} else value for value in numbers)


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    if any(not -TOLERANCE <= value / limits[i % 2] <= 1 + TOLERANCE for i, value in enumerate(corners)):
        return True
    fractions = all(0 <= value <= 1 for value in corners) and any(value != int(value) for value in corners)
    return min(limits) > 10 and fractions


def _score(value: Any) -> float | None:
    if isinstance(value, str):
        per_cent = value.strip().endswith("%")
        as_number = number(value.strip().rstrip("%"))
        as_number = as_number / 100 if per_cent and as_number is not None else as_number
    else:
        as_number = number(value)
    return as_number if as_number is not None and 0 <= as_number <= 1 else None


def _shown(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in numbers) + "]"
