"""A review under way: what its page asks for, and the decisions that it hands over."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    StorageFailed,
)
from dataflow_grounding.data.records import Record, annotated_column, dump_line, has_id
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header
from dataflow_grounding.review._door_html import door_html
from dataflow_grounding.review._index import items_of
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
    file_of_picture,
    phrases_of,
    view_of,
    why_missing,
)
from dataflow_grounding.review.reviewable import Place, Reviewable

SIDES = {"small": 640, "large": 2048, "full": 16_384}
"""The most pixels of a picture's longer side, by the name of the copy that a page shows."""
_MOST = 100  # records that a page may ask for at once
MOST_DECISIONS = 1000
"""At once; the page sends 60. Other reviewers wait until all are taken."""


class Session:
    """What one reviewer is shown of RESULTS, and the decisions that this reviewer hands over.

    `sample` is a size and a seed. Then only the items that these draw are shown, and reviews.jsonl
    states them.
    """

    def __init__(
        self, reviewable: Reviewable, who: str, sample: tuple[int, int] | None = None
    ) -> None:
        self.reviewable = reviewable
        self.who = who
        self.decisions = reviewable.decisions
        self.sample: list[Place] | None = None
        if sample is not None:
            size, seed = sample
            self.sample = self._draw_and_state(size, seed)

    def _draw_and_state(self, size: int, seed: int) -> list[Place]:
        stated, items = self.reviewable.draw_sample(size, seed)
        stated["image_root"] = self.reviewable.stated_root
        # A line has also who stated the sample, and when. These aren't compared: the same sample
        # needn't be stated twice.
        lines = self.decisions.samples
        stated_before = [{name: line.get(name) for name in stated} for line in lines]
        if stated not in stated_before:
            self.decisions.state_sample(stated, self.who)
        return items

    def page(self) -> Iterator[str]:
        """Yield the page in HTML."""
        about = {**self.reviewable.index.facts(), "review": {"who": self.who}, "kinds": {}}
        return door_html(about, title="Review")

    def index(self) -> str:
        """Return, in JSON, rows of the index, decisions by now, and the sample where there is one.

        Items of the sample are those of a record, by their number in it.
        """
        sample = None
        if self.sample is not None:
            sample = []
            for place in self.sample:
                items = [*items_of(phrases_of(self.reviewable.record(place.record)))]
                sample.append([place.record, items.index(place.item)])
        facts = dump_line({**self.news(), "sample": sample})
        return f'{facts.rstrip()[:-1]}, "rows": [{",".join(self.reviewable.rows)}]}}'

    def news(self, since: int = 0) -> dict[str, Any]:
        """Return what was decided from line `since` on, and which line is the next."""
        decided = self.reviewable.decided(self.who, since)
        return {"decided": decided, "seen": len(self.decisions.lines)}

    def records(self, indices: Sequence[int], since: int = 0) -> dict[str, Any]:
        """Return views of records, and what was decided since."""
        if len(indices) > _MOST or not all(0 <= n < len(self.reviewable.keys) for n in indices):
            raise InputError(f"'places' should be up to {_MOST} numbers of records")
        news = self.news(since)  # first, so that the views are no older
        return {"views": {index: self.view(index) for index in indices}, **news}

    def view(self, index: int) -> dict[str, Any]:
        """Return a record for the page: what `view_of` gives, and what reviewers decided.

        - `verified` is a reviewer's word alone: None if only a check of the pipeline judged.
        - `box` is the index of a box among those that the pipeline wrote, also of one that was
          drawn in place of such a box. A box that a reviewer added has none.
        - `also` are the other boxes of a box's thing.
        - `written` are the ids of the expressions that the pipeline wrote.
        """
        record = self.reviewable.record(index)
        review = self.reviewable.review_of(index)
        written = phrases_of(record)
        rows: dict[str, Expression] = {}
        shown = record
        if not written.problem:  # else the record is shown as it is, and `view_of` says why
            rows = standing_expressions(record, written.rows, review.outcomes)
            shown = record.updated({"expressions": list(rows.values())})
        view = self._view_without_verdicts(index, record, shown)
        view["written"] = [*written.rows]
        view["comment"] = review.comment or ""
        for expression, (id, row) in zip(view["expressions"], rows.items(), strict=True):
            expression["id"] = id  # by which decisions name it
            _add_verdicts(expression, row)
            _number_boxes(expression["instances"], review.outcomes.get(id))
            _name_same_things(expression, written.things)
        return view

    def _view_without_verdicts(self, index: int, record: Record, shown: Record) -> dict[str, Any]:
        """Return a view of `shown`, the record with the decisions on its expressions."""
        key = self.reviewable.keys[index]
        digest = PictureName.of_record(record).digest
        view = view_of(shown, self._picture_of(index, digest), self.reviewable.index.classes)
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
        full = f"picture/{index}-full.jpg?{version}"
        return Picture(size, small, full)

    def picture(self, index: int, name: str) -> bytes:
        """Return an upright JPEG of one of SIDES, without metadata. Raises RecordError."""
        path = file_of_picture(self.reviewable.record(index)).path
        side = SIDES[name]
        with decoding(read_file(path), path, (side, side)) as picture:
            return small_copy(picture, side, "JPEG", quality=85)

    def decide(self, decisions: Sequence[Mapping[str, Any]], since: int = 0) -> dict[str, Any]:
        """Take decisions one by one, and put on disk all but those that are refused.

        Each of the `answers` has the `error`, "" for none, and the ids of the expressions that it
        is on. `views` are those of the decisions' records, after all of them.
        """
        if len(decisions) > MOST_DECISIONS:
            raise InputError(
                f"{len(decisions):,} decisions at once: send at most {MOST_DECISIONS:,}"
            )
        answers = [self._take(decision) for decision in decisions]
        self.decisions.sync()
        indices = {self.reviewable.index_of.get(str(each.get("record"))) for each in decisions}
        news = self.news(since)
        views = {index: self.view(index) for index in indices if index is not None}
        return {"answers": answers, "views": views, **news}

    def _take(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        key = str(decision.get("record"))
        index = self.reviewable.index_of.get(key)
        if index is None:
            return {"error": f"there is no record {key!r}", "ids": []}
        record = self.reviewable.record(index)
        try:
            changes = self.decisions.decide(record, key, decision, self.who)
        except (InputError, BrokenRow, StorageFailed) as why:
            return {"error": str(why), "ids": []}
        return {"error": "", "ids": [change["id"] for change in changes]}


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
