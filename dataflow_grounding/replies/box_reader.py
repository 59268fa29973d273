"""Turning the boxes of a reply into boxes in pixels, each of one phrase."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat, to_xyxy
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp, ordered
from dataflow_grounding.replies._absence import denies_itself, negates
from dataflow_grounding.replies._conventions import fits, goes_first
from dataflow_grounding.replies._pictures import SEVERAL
from dataflow_grounding.replies._questions import Kept, Questions
from dataflow_grounding.replies._talk import affirmed, denial, takes_back
from dataflow_grounding.replies.json_values import score_of
from dataflow_grounding.replies.labels import alike, comparable, equal, surely_alike
from dataflow_grounding.replies.reading import (
    Dropped,
    FoundBox,
    Note,
    ParsedReply,
    RawBox,
    Reading,
    Said,
)

# How far outside its range a number may lie, in parts of the range, to be moved inside and not
# dropped.
TOLERANCE = 1 / 8
# The share of a reply's boxes that may lie further outside before the whole reply counts as written
# in another format.
OUT_OF_SCALE_SHARE = 1 / 10
_MOST_ABSENCES = 5000  # whose phrases are looked for
STATUSES = ("ambiguous", "unsupported")


def to_reading(
    parsed: ParsedReply, asked: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
) -> Reading:
    """Return what a reply says, its boxes in pixels of the original. Raises UnreadableReply,
    TruncatedReply.
    """
    return _BoxReader(asked, original, sent, phrases).read(parsed)


class _NoBox(Exception):
    """A box that can't be used; the message says why."""


class _NothingThere(Exception):
    """A box that says that nothing is there."""


class _BoxReader:
    def __init__(
        self, box_format: BoxFormat, original: Size, sent: Size, phrases: dict[int, str]
    ) -> None:
        self.format, self.original, self.sent, self.phrases = box_format, original, sent, phrases
        self.reading = Reading([])
        self.questions = Questions(phrases)
        self.kept: list[Kept] = []
        self.seen: dict[tuple[int, int | None, Bbox], int] = {}
        self.noted: set[str] = set()
        self.out_of_scale: list[RawBox] = []
        self.zeros: list[Said] = []

    def read(self, parsed: ParsedReply) -> Reading:
        reading = self.reading
        reading.notes += parsed.notes
        if parsed.truncated:
            self.note("truncated", "the reply ends in the middle")
        self.take_statuses(parsed)
        self.questions.learn(parsed)
        self.take_boxes(parsed)
        if parsed.points:
            self.note("dropped", f"{len(parsed.points)} points, which are not boxes")
            reading.unread += [
                i for point in parsed.points for i in self.questions.about(point.said)[:1]
            ]
        kept, notes = self.questions.last_answers(self.kept, parsed)
        self.check_scale(parsed, {parsed.answer, *(one.answer for one in kept)})
        self.check_talk(parsed, kept)
        reading.notes += notes
        reading.boxes = [one.box for one in kept]
        found = {box.id for box in reading.boxes}
        for dropped in parsed.dropped:
            self.note("dropped", dropped.reason)
            reading.unread += self.questions.about(dropped.said)[:1]
        reading.unread = sorted(set(reading.unread) - found)
        if reading.boxes or reading.statuses:
            return reading
        self.check_none(parsed)
        return reading

    def check_none(self, parsed: ParsedReply) -> None:
        """Raise UnreadableReply, or TruncatedReply, unless a reply without boxes says that nothing
        is there.
        """
        if parsed.truncated:
            raise TruncatedReply("the reply is cut off before its first complete box")
        if parsed.dropped:
            raise UnreadableReply(f"no box of the reply can be used: {parsed.dropped[0].reason}")
        if parsed.missing is not None and not parsed.missing.answers_for(self.phrases):
            raise UnreadableReply(
                f"the reply says only that {parsed.missing.thing[:60]!r} is not there"
            )
        if parsed.missing is None:
            self.check_list(parsed)

    def check_list(self, parsed: ParsedReply) -> None:
        """Raise UnreadableReply unless empty lists say of every phrase that it is not there, and no
        words deny it.
        """
        for talk in parsed.talk:
            words = affirmed(talk.text, self.phrases) if talk.answer == parsed.answer else None
            if words is not None:
                raise UnreadableReply(
                    f"the reply has no box, and says {' '.join(words.split())[:60]!r}"
                )
        absences = [*(said for said, _ in parsed.absences), *self.zeros]
        left = set(self.phrases)
        for said in absences[:_MOST_ABSENCES]:
            left -= self.questions.lacking(said)
            if not left:
                return
        if left:
            raise UnreadableReply(
                f"the reply has no box, and doesn't say that phrase {min(left)} is not there"
            )

    def take_boxes(self, parsed: ParsedReply) -> None:
        self.check_pictures(parsed)
        if self.format.scale == "grid_32":
            _take_cells(parsed)
        if parsed.points and not parsed.boxes:
            raise UnreadableReply("the reply has points where boxes were asked for")
        unusable: list[tuple[RawBox, str]] = []
        for raw in parsed.boxes:
            try:
                self.keep(raw, self.pixels(raw))
            except _NothingThere as nothing:
                self.note("dropped", str(nothing))
                self.zeros.append(raw.said)
            except _NoBox as error:
                unusable.append((raw, str(error)))
        again = {raw.numbers for raw, _ in unusable if not raw.said.labels} == {
            one.box.numbers for one in self.kept
        }
        for raw, reason in unusable:
            if raw.said.labels or not again:  # else all boxes once more, without their labels
                parsed.dropped.append(Dropped(reason, raw.said, raw.answer))

    def check_pictures(self, parsed: ParsedReply) -> None:
        """Raise UnreadableReply if the boxes of phrases may be those of a crop, or of several
        pictures.
        """
        elsewhere = parsed.elsewhere or (SEVERAL if len(parsed.pictures) > 1 else None)
        if elsewhere and self.phrases and parsed.boxes:
            raise UnreadableReply(elsewhere)

    def check_scale(self, parsed: ParsedReply, counted: set[int]) -> None:
        """Raise UnreadableReply if an answer that counts is in another scale; one that was taken
        back may be.
        """
        boxes = Counter(raw.answer for raw in parsed.boxes)
        outside = Counter(raw.answer for raw in self.out_of_scale)
        if all(outside[answer] <= OUT_OF_SCALE_SHARE * boxes[answer] for answer in counted):
            return
        numbers = [
            number for raw in self.out_of_scale if raw.answer in counted for number in raw.numbers
        ]
        x, y = self.format.limits(self.sent)
        asked = f"0 to {x:g}" if x == y else f"0 to {x:g} for x and 0 to {y:g} for y"
        go = f"the coordinates go from {min(numbers):g} to {max(numbers):g}"
        raise UnreadableReply(f"{go}, where {asked} was asked for")

    def check_talk(self, parsed: ParsedReply, kept: list[Kept]) -> None:
        others = bool(self.phrases.keys() - {one.box.id for one in kept})
        things: dict[int, dict[int, str]] = {}
        for box, answer, _ in kept:
            things.setdefault(answer, {})[box.id or 0] = self.phrases.get(
                box.id or 0, box.label or ""
            )
        for talk in parsed.talk:
            words = (
                denial(talk, things[talk.answer], others=others) if talk.answer in things else None
            )
            if words is not None:
                raise UnreadableReply(
                    f"the reply gives boxes and takes them back: {' '.join(words.split())[:60]!r}"
                )

    def note(self, code: str, what: str) -> None:
        self.reading.notes.append(Note(code, what))

    def note_once(self, code: str, what: str) -> None:
        if what not in self.noted:
            self.noted.add(what)
            self.note(code, what)

    def take_statuses(self, parsed: ParsedReply) -> None:
        for i, status in parsed.statuses.items():
            if (i in self.phrases or not self.phrases) and status in STATUSES:
                self.reading.statuses[i] = status
            else:
                self.note("dropped", f"status {status[:40]!r} of phrase {i}")
        self.reading.reasons = {
            i: why for i, why in parsed.reasons.items() if i in self.reading.statuses
        }

    def meaning(self, raw: RawBox) -> BoxFormat:
        meant = self.format
        if raw.family is not None and raw.family != meant.name:
            family = known_formats()[raw.family]
            if goes_first(meant, family):
                self.note_once(
                    "native_tokens", f"read as {meant.name}, as asked, and not as {raw.family}"
                )
                return meant
            meant = family
            self.note_once("native_tokens", f"read as {raw.family}, whose tokens these are")
        if raw.corners and meant.order in ("xywh", "cxcywh"):
            return replace(meant, order="xyxy")
        return replace(meant, order=raw.order) if raw.order else meant

    def pixels(self, raw: RawBox) -> Bbox:
        """Return the box that a raw one means, inside the image; raises _NoBox when
        it means none.
        """
        meant, numbers = self.meaning(raw), raw.numbers
        if meant.scale == "grid_32":
            if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] < 1024:
                raise _NoBox(f"grid cells {_shown(raw.numbers)}")
        elif raw.family is None and set(numbers) in ({0}, {-1}):
            raise _NothingThere(f"{_shown(raw.numbers)}, which says that nothing is there")
        else:
            numbers = self.in_scale(raw, meant)
        drawn = meant.to_pixels(numbers, original=self.original, sent=self.sent)
        upright = ordered(drawn)
        if upright != drawn:
            self.note("swapped", f"{_shown(raw.numbers)}: the corners were the wrong way round")
        inside = clamp(upright, self.original)
        if area(inside) <= 0:
            raise _NoBox(f"{_shown(raw.numbers)} has no area in the image")
        if max(abs(a - b) for a, b in zip(inside, upright, strict=True)) > 1e-6 * max(
            self.original
        ):
            self.note("clamped", f"{_shown(raw.numbers)} reached outside the image")
        return inside

    def in_scale(self, raw: RawBox, meant: BoxFormat) -> tuple[float, ...]:
        if raw.unit is not None and not fits(
            raw.unit, meant.scale, raw.numbers, (self.original, self.sent)
        ):
            said = f"{_shown(raw.numbers)} is said to be in {raw.unit}"
            raise _NoBox(f"{said}, and the box format {self.format.name} was asked for")
        # DeepSeek-VL2 writes 9999 or 99999 for the far edge at 999 (deepseek-ai/DeepSeek-VL2 issue
        # 123); elsewhere no number that far out is a slip.
        repaired = raw.numbers
        if meant.scale in (999, 1000) and meant.order in ("xyxy", "yxyx"):
            far = (999.0 if n > 1000 and set(f"{n:.0f}") == {"9"} else n for n in repaired[2:])
            repaired = (*repaired[:2], *far)
        if repaired != raw.numbers:
            self.note("clamped", f"{_shown(raw.numbers)}: a row of nines means the far edge")
        if _out_of_scale(to_xyxy(repaired, meant.order), meant.limits(self.sent)):
            self.out_of_scale.append(replace(raw, numbers=repaired))
            raise _NoBox(f"{_shown(raw.numbers)} does not fit the box format {self.format.name}")
        return repaired

    def keep(self, raw: RawBox, bbox: Bbox) -> None:
        said = raw.said
        label = said.labels[0] if said.labels else None
        phrase_id = self.phrase_of(raw, label) if self.phrases else said.id
        score = score_of(said.score)
        if score is None and said.score is not None:
            self.note_once("score_ignored", f"{str(said.score)[:40]!r} is not a score from 0 to 1")
        box = FoundBox(bbox, phrase_id, label, score, raw.numbers, said.evidence)
        one = Kept(box, raw.answer, phrase_id if self.phrases else self.questions.of(said))
        place = (
            self.seen.setdefault((raw.answer, phrase_id, bbox), len(self.kept))
            if self.phrases
            else len(self.kept)
        )
        if place == len(self.kept):
            self.kept.append(one)
            return
        self.note_once(
            "merged", f"{_shown(raw.numbers)} is given more than once for phrase {phrase_id}"
        )
        if score is not None and score > (self.kept[place].box.score or -1):
            self.kept[place] = one

    def phrase_of(self, raw: RawBox, label: str | None) -> int:
        """Return the phrase that a box belongs to, and note what speaks against it. Raises _NoBox
        if there is none.
        """
        said, phrase_id = raw.said, self.questions.id_of(raw)
        if phrase_id is None:
            thing = f"label {label[:60]!r}" if label else repr(said.talk[:60])
            known = label or said.talk
            raise _NoBox(
                f"{thing} is not one of the phrases" if known else "a box without an id or a label"
            )
        if self.questions.names_several(said):
            raise _NoBox(f"{(label or said.talk)[:60]!r} names several phrases")
        if label and label != self.phrases[phrase_id] and not equal(label, self.phrases[phrase_id]):
            self.check_label(said, phrase_id)
        if label and phrase_id != said.id:
            self.note_once("matched_by_label", f"{label[:60]!r} is phrase {phrase_id}")
        self.check_words(said, phrase_id)
        return phrase_id

    def check_words(self, said: Said, phrase_id: int) -> None:
        """Raise _NoBox for a box of which its object, or words of another language, say that it
        isn't the phrase's.
        """
        name = said.labels[0] if said.labels else said.talk
        if name in self.questions.translations:
            if negates(name):
                raise _NoBox(f"{name[:60]!r} may say that it isn't there")
            if not said.labels:
                self.note(
                    "unlike_label", f"{name[:60]!r} can't be compared with phrase {phrase_id}"
                )
        for remark in said.remarks:
            if takes_back(remark, self.phrases[phrase_id]):
                raise _NoBox(f"a box that its object takes back: {remark[:60]!r}")

    def check_label(self, said: Said, phrase_id: int) -> None:
        """Raise _NoBox for a label that says that the phrase is not there, and note one that may be
        another thing.
        """
        label, phrase = said.labels[0], self.phrases[phrase_id]
        if denies_itself(label) and not denies_itself(phrase):
            raise _NoBox(f"label {label[:60]!r} says that it isn't there")
        if said.id is not None:
            known = alike(label, phrase) or not comparable(label, phrase)
        else:
            known = any(surely_alike(name, phrase) for name in (label, said.talk))
        if not known:
            self.note(
                "unlike_label", f"{label[:60]!r} may be something other than phrase {phrase_id}"
            )


def _take_cells(parsed: ParsedReply) -> None:
    # Two numbers are two cells of the grid, and no point.
    parsed.boxes += [replace(raw, kind="box") for raw in parsed.points if raw.order is None]
    parsed.points = [raw for raw in parsed.points if raw.order is not None]


def _out_of_scale(corners: Sequence[float], limits: tuple[float, float]) -> bool:
    if any(
        not -TOLERANCE <= value / limits[i % 2] <= 1 + TOLERANCE for i, value in enumerate(corners)
    ):
        return True
    # [0, 0, 1, 1] too, which is the whole picture in these
    fractions = all(0 <= value <= 1 for value in corners)
    return min(limits) > 10 and fractions


def _shown(numbers: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in numbers) + "]"
