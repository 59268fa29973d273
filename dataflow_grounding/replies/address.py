"""Whose a box is: the phrase with its id, else the phrase that its label equals."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from dataflow_grounding.replies.json_boxes import NoBox
from dataflow_grounding.replies.labels import fits_phrase, ids_of, shares_all_words
from dataflow_grounding.replies.reading import Dropped, ParsedReply, RawBox, Reading, note_once


class Owner(NamedTuple):
    """The phrase that a box is of; without one, why that can't be told."""

    phrase_id: int | None
    why_none: str = ""


class Address:
    """Finds the phrases of a reply's boxes, and notes in its reading what is doubtful."""

    def __init__(self, parsed: ParsedReply, phrases: Mapping[int, str], reading: Reading) -> None:
        self.parsed = parsed
        self.phrases = phrases
        self.reading = reading
        self.cached_owners: dict[tuple[int | None, str | None], Owner] = {}  # by id and label

    def phrase_of(self, raw: RawBox) -> int:
        if raw.id is not None and raw.label and raw.label == self.phrases.get(raw.id):
            return raw.id  # as in most replies, which then need no search
        phrase_id, why = self.owner_of(raw)
        if phrase_id is None:
            phrase_id = self.phrase_like_label(raw)
        if phrase_id is None:
            raise NoBox(why)
        return phrase_id

    @cached_property
    def label_counts(self) -> Counter[str | None]:
        return Counter(box.label for box in self.parsed.boxes)

    @cached_property
    def named_ids(self) -> set[int | None]:
        return {self.owner_of(box).phrase_id for box in self.parsed.boxes}

    def phrase_like_label(self, raw: RawBox) -> int | None:
        """Return the only phrase that a box without an id may be of, and doubt it."""
        label = raw.label or ""
        # Of two boxes of a "man", nobody knows which is "the man in blue". Heads are known of
        # English. With a bracket it is a label without its quotation mark.
        is_plain = label.isascii() and not any(bracket in label for bracket in "[]{}")
        if raw.id is not None or self.label_counts[label] > 1 or not is_plain:
            return None
        like = [own_id for own_id, text in self.phrases.items() if shares_all_words(label, text)]
        if len(like) != 1 or not fits_phrase(label, self.phrases[like[0]]):
            return None
        if like[0] in self.named_ids:  # an "old cat" next to "cat" is another cat
            return None
        note_once(self.reading, "unlike_label", f"{label[:60]!r} for phrase {like[0]}")
        self.reading.doubts[like[0]] = f"the model calls it {label[:60]!r}, without its id"
        return like[0]

    def owner_of(self, item: RawBox | Dropped) -> Owner:
        key = (item.id, item.label)
        if key not in self.cached_owners:
            self.cached_owners[key] = self.find_owner(item.id, item.label)
        return self.cached_owners[key]

    def find_owner(self, own_id: int | None, label: str | None) -> Owner:
        """Find a box's phrase by its id, else by its label."""
        if own_id is not None:
            return self.find_owner_by_id(own_id, label)
        if label is not None:
            return self.find_owner_by_label(label)
        has_names = any(box.label or box.id is not None for box in self.parsed.boxes)
        if len(self.phrases) == 1 and not has_names:
            return Owner(next(iter(self.phrases)))
        return Owner(None, "a box without an id or a label")

    def find_owner_by_id(self, own_id: int, label: str | None) -> Owner:
        phrase = self.phrases.get(own_id)
        if phrase is None:
            return Owner(None, f"id {own_id} is of no phrase")
        if label is None:
            return Owner(own_id)
        ids_by_label = ids_of(label, self.phrases)
        if own_id in ids_by_label:
            return Owner(own_id)
        if ids_by_label:  # a label in other words ("mug" for "a cup") makes the box doubtful
            return Owner(None, f"label {label[:60]!r} is not that of phrase {own_id}")
        return Owner(own_id)

    def find_owner_by_label(self, label: str) -> Owner:
        ids_by_label = ids_of(label, self.phrases)
        if len(ids_by_label) > 1:
            return Owner(None, f"label {label[:60]!r} means several phrases")
        if not ids_by_label:
            return Owner(None, f"label {label[:60]!r} is not one of the phrases")
        phrase_id = ids_by_label[0]
        if label != self.phrases[phrase_id]:
            note_once(self.reading, "matched_by_label", f"{label[:60]!r} is phrase {phrase_id}")
        return Owner(phrase_id)

    def doubt_unlike_label(self, label: str, phrase_id: int) -> None:
        """Doubt the box of a phrase if its label names another thing: "mug" for "a cup"."""
        phrase = self.phrases.get(phrase_id)
        if phrase is None or label == phrase or fits_phrase(label, phrase):
            return
        note_once(self.reading, "unlike_label", f"{label[:60]!r} for phrase {phrase_id}")
        self.reading.doubts[phrase_id] = f"the model calls it {label[:60]!r}"
