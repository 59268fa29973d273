"""A review under way: what its page asks for, and the decisions that it hands over."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    StorageFailed,
)
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import Record, annotated_column, has_id
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header
from dataflow_grounding.review._door_html import page_file
from dataflow_grounding.review._names import PictureName
from dataflow_grounding.review._overlay import (
    Outcome,
    reviewer_verdict,
    standing_expressions,
    version_of,
)
from dataflow_grounding.review._record_view import (
    BoxPlace,
    Expression,
    Picture,
    boxes_of_same_thing,
    expressions_of,
    file_of_picture,
    known_classes,
    view_of,
    why_missing,
)
from dataflow_grounding.review.queues import SHOW_VALUES, Item, Queue, Reviewable

SIDES = {"small": 640, "large": 2048}
"""The most pixels of a picture's longer side, by the name of the copy that a page shows."""
_GRID = 60  # boxes on a page of the grid
_FILTERS = ("status", "text", "head", "below", "record", "show", "order")  # see `Queue`
_MOST = 100  # items that a page without a grid may ask for at once
MOST_DECISIONS = 1000
"""At once; the page sends 60. Other reviewers wait until all are taken."""


def page_files() -> dict[str, str]:
    page = page_file("review.html")
    files = {"review.html": page}
    for name in re.findall('(?:href|src)="([a-z]+[.](?:css|js))"', page):
        files[name] = page_file(name)
    return files


class Session:
    """What one reviewer is shown of RESULTS, and the decisions that this reviewer hands over.

    `sample` is a size and a seed. Then only the items that these draw are shown, and reviews.jsonl
    states them.
    """

    def __init__(
        self,
        reviewable: Reviewable,
        who: str,
        sample: tuple[int, int] | None = None,
        order: str = "doubt",
    ) -> None:
        self.reviewable = reviewable
        self.who = who
        self.order = order
        self.decisions = reviewable.decisions
        self._classes = known_classes(reviewable.files.annotations)
        # A copy: classes of records, which aren't listed, are added to `names`.
        self._listed_classes = list(self._classes.names)
        self.sample: list[Item] | None = None
        if sample is not None:
            size, seed = sample
            self.sample = self._draw_and_state(size, seed)
        # Filters that a reviewer goes back to, and each page of one list, share a queue.
        self._cached_queue = lru_cache(16)(self._make_queue)

    def _draw_and_state(self, size: int, seed: int) -> list[Item]:
        stated, items = self.reviewable.draw_sample(size, seed)
        stated["image_root"] = self.reviewable.stated_root
        # A line has also who stated the sample, and when. These aren't compared: the same sample
        # needn't be stated twice.
        lines = self.decisions.samples
        stated_before = [{name: line.get(name) for name in stated} for line in lines]
        if stated not in stated_before:
            self.decisions.state_sample(stated, self.who)
        return items

    def _make_queue(self, *values: str) -> Queue:
        """Make a queue from values of _FILTERS, in that order."""
        wanted = dict(zip(_FILTERS, values, strict=True))
        if wanted["show"] not in SHOW_VALUES:
            names = ", ".join(name for name in SHOW_VALUES if name)
            raise InputError(f"'show' should be one of {names}, not {wanted['show']!r}")
        try:
            return Queue(self.reviewable, wanted, self.sample, self.who)
        except ValueError:
            raise InputError(
                f"'below' should be a score from 0 to 1, not {wanted['below']!r}"
            ) from None

    def next(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Return the next items that are shown, with their records.

        `wanted` has the `mode` (`grid` for a page of boxes), the filters that a `Queue` takes, and
        the `place` in the queue that the answer before had.
        """
        self.reviewable.refresh()  # others may have decided meanwhile
        order = wanted.get("order") or self.order
        filters = {**wanted, "order": order}
        queue = self._cached_queue(*[filters.get(name) or "" for name in _FILTERS])
        place = _number_in(wanted, "place")
        most = _number_in(wanted, "most")
        if wanted.get("mode") == "grid":
            items, next_place = queue.page_after(place, _GRID)
        else:
            items, next_place = queue.items_after(place, min(most, _MOST))
        left = queue.count_undecided()
        indices = dict.fromkeys(item.record for item in items)  # each once, in their order
        return {
            "items": queue.as_json(items),
            "records": {index: self.view(index) for index in indices},
            "place": next_place,
            "left": left.boxes + left.phrases,
            "progress": left._asdict(),
            "shown": queue.count_shown(),
            "to_mend": queue.count_to_mend(),
            "who": self.who,
            "order": order if self.sample is None else None,
            "classes": self._boxes_by_class,
        }

    @cached_property
    def _boxes_by_class(self) -> list[tuple[str, int]]:
        """Return the listed classes, which the page offers, each with the number of its boxes."""
        items = self.reviewable.items if self.sample is None else self.sample
        # The `head` of an item is its class, if it has one.
        counts = Counter(class_key(item.head) for item in items if item.box is not None)
        return [(name, counts[class_key(name)]) for name in self._listed_classes]

    def view(self, index: int) -> dict[str, Any]:
        """Return a record for the page: what `view_of` gives, and what reviewers decided.

        - `verified` is a reviewer's word alone: None if only a check of the pipeline judged.
        - `box` is the index of a box among those that the pipeline wrote, also of one that was
          drawn in place of such a box. A box that a reviewer added has none.
        - `also` are the other boxes of a box's thing.
        """
        record = self.reviewable.record(index)
        review = self.reviewable.review_of(index)
        rows: dict[str, Expression] = {}
        same_thing: dict[BoxPlace, list[BoxPlace]] = {}
        shown = record
        with suppress(BrokenRow):  # then the record is shown as it is, and `view_of` says why
            written = expressions_of(record)
            same_thing = boxes_of_same_thing(written)
            rows = standing_expressions(record, written, review.outcomes)
            shown = record.updated({"expressions": list(rows.values())})
        view = self._view_without_verdicts(index, record, shown)
        view["comment"] = review.comment or ""
        for expression, (id, row) in zip(view["expressions"], rows.items(), strict=True):
            expression["id"] = id  # by which decisions name it
            # A phrase without boxes has no `color`; a box that a reviewer draws gets this one.
            if "class" in expression:
                expression["classColor"] = self._classes.color_of(expression["class"])
            _add_verdicts(expression, row)
            _number_boxes(expression["instances"], review.outcomes.get(id))
            _name_same_things(expression, same_thing)
        return view

    def _view_without_verdicts(self, index: int, record: Record, shown: Record) -> dict[str, Any]:
        """Return a view of `shown`, the record with the decisions on its expressions."""
        key = self.reviewable.keys[index]
        digest = PictureName.of_record(record).digest
        view = view_of(shown, self._picture_of(index, digest), self._classes)
        view["place"] = index  # by which the page asks for the record and its picture
        # The page's decisions state it: they are refused if the file was replaced since.
        view["digest"] = digest
        view["key"] = key
        view["id"] = str(record.image_id) if has_id(record.image_id) else key
        # `shown` may have `expressions` that were made of the record's regions.
        view["kind"] = annotated_column(record) or view["kind"]
        return view

    def _picture_of(self, index: int, digest: str | None) -> Picture:
        try:
            path = file_of_picture(self.reviewable.record(index)).path
            size = read_header(path).size
        except GroundingError as error:
            return Picture(missing=why_missing(error))
        # Browsers keep what is at an address: a file that was replaced has another one.
        version = digest or ""
        small = f"picture/{index}-small.jpg?{version}"
        large = f"picture/{index}-large.jpg?{version}"
        return Picture(size, small, large)

    def picture(self, index: int, name: str) -> bytes:
        """Return an upright JPEG of one of SIDES, without metadata. Raises RecordError."""
        path = file_of_picture(self.reviewable.record(index)).path
        side = SIDES[name]
        with decoding(read_file(path), path, (side, side)) as picture:
            return small_copy(picture, side, "JPEG", quality=85)

    def decide(self, decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Take decisions one by one, and put on disk all but those that are refused.

        Each answer has the `error`, "" for none. The last answer on a record has the record's
        `view` after all decisions; the `view` of the others is None.
        """
        if len(decisions) > MOST_DECISIONS:
            raise InputError(
                f"{len(decisions):,} decisions at once: send at most {MOST_DECISIONS:,}"
            )
        answers: list[dict[str, Any]] = []
        last_answer: dict[int, dict[str, Any]] = {}  # by the index of the record that it is on
        for decision in decisions:
            error = self._take(decision)
            answers.append({"uid": decision.get("uid"), "error": error, "view": None})
            index = self.reviewable.index_of.get(str(decision.get("record")))
            if index is not None:
                last_answer[index] = answers[-1]
        # The page needs a record once, as it is after all decisions.
        for index, answer in last_answer.items():
            answer["view"] = self.view(index)
        self.decisions.sync()
        return answers

    def _take(self, decision: Mapping[str, Any]) -> str:
        """Take a decision, or return why it is refused; "" if it was taken."""
        key = str(decision.get("record"))
        index = self.reviewable.index_of.get(key)
        if index is None:
            return f"there is no record {key!r}"
        record = self.reviewable.record(index)
        try:
            self.decisions.decide(record, key, decision, self.who)
        except (InputError, BrokenRow, StorageFailed) as why:
            return str(why)
        return ""


def _number_in(wanted: Mapping[str, str], name: str) -> int:
    number = wanted.get(name, "0")
    if not number.isdecimal() or len(number) > 9:  # int() refuses thousands of digits
        raise InputError("'place' and 'most' should be numbers")
    return int(number)


def _add_verdicts(view: dict[str, Any], expression: Expression) -> None:
    view["version"] = version_of(expression)
    view["reviewed_by"] = expression.get("reviewed_by")
    view["verified"] = reviewer_verdict(expression)
    for box, instance in zip(view["instances"], expression["instances"], strict=True):
        box["verified"] = reviewer_verdict(instance)


def _number_boxes(boxes: Sequence[dict[str, Any]], outcome: Outcome | None) -> None:
    """Set `box`: its index among those of the pipeline; none for one that a reviewer added."""
    if outcome is None:
        for index, box in enumerate(boxes):
            box["box"] = index
        return
    for box, origin in zip(boxes, outcome.origins, strict=True):
        if origin is not None:
            box["box"] = origin


def _name_same_things(
    expression: Mapping[str, Any], same_thing: Mapping[BoxPlace, list[BoxPlace]]
) -> None:
    """Set `also`: the other boxes of each box's thing."""
    for box in expression["instances"]:
        own_box = (expression["id"], box.get("box"))
        box["also"] = [other for other in same_thing.get(own_box, ()) if other != own_box]
