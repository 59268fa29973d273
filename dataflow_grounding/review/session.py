"""A review under way: what its page asks for, and the decisions that it hands over."""

from collections.abc import Iterator, Sequence

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    StorageFailed,
)
from dataflow_grounding.data.records import JsonObject, Update, dump_line, has_id
from dataflow_grounding.images.display import small_copy
from dataflow_grounding.images.files import decoding, read_file, read_header
from dataflow_grounding.review._acts import Review
from dataflow_grounding.review._door_html import door_html
from dataflow_grounding.review._index import items_of
from dataflow_grounding.review._names import PictureName
from dataflow_grounding.review._overlay import reviewer_verdict, version_of
from dataflow_grounding.review._record_view import (
    Phrases,
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
            stated, self.sample = reviewable.draw_sample(*sample)
            # Who stated it, and when, makes no other sample of it.
            before = [each._replace(who=None, when=None) for each in self.decisions.samples]
            if stated not in before:
                self.decisions.state_sample(stated, who)

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

    def news(self, since: int = 0) -> Update:
        """Return what was decided from line `since` on, and which line is the next."""
        decided = self.reviewable.decided(self.who, since)
        return {"decided": decided, "seen": len(self.decisions.lines)}

    def records(self, indices: Sequence[int], since: int = 0) -> Update:
        """Return views of records, and what was decided since."""
        if len(indices) > _MOST or not all(0 <= n < len(self.reviewable.keys) for n in indices):
            raise InputError(f"'places' should be up to {_MOST} numbers of records")
        news = self.news(since)  # first, so that the views are no older
        return {"views": {index: self.view(index) for index in indices}, **news}

    def view(self, index: int) -> Update:
        """Return a record for the page: what a `View` has, and what reviewers decided.

        - `verified` is a reviewer's word alone: None if only a check of the pipeline judged.
        - `box` is the index of a box among those that the pipeline wrote, also of one that was
          drawn in place of such a box. A box that a reviewer added has none.
        - `also` are the other boxes of a box's thing.
        - `written` are the ids of the expressions that the pipeline wrote.
        - `place` and `key` are those by which the page asks for the record, and decides on it.
        - `digest` is the picture's: decisions are refused if the file was replaced since.
        """
        record = self.reviewable.record(index)
        phrases = written = phrases_of(record)
        review = Review(record, written.rows)
        if not written.problem:  # else its view says why
            review = self.decisions.review_of(record, written.rows)
            phrases = Phrases.of(review.standing(), written.kind or "expressions")
        key = self.reviewable.keys[index]
        digest = PictureName.of_record(record).digest
        picture = self._picture_of(index, digest)
        view = view_of(record, picture, self.reviewable.index.classes, phrases=phrases)
        document = view.to_json()
        for columns, (id, row) in zip(document["expressions"], phrases.rows.items(), strict=True):
            columns["version"] = version_of(row)
            columns["reviewed_by"] = row.reviewed_by
            columns["verified"] = reviewer_verdict(row)
            outcome = review.outcomes.get(id)
            origins = outcome.origins if outcome else range(len(row.instances))
            boxes = zip(columns["instances"], row.instances, origins, strict=True)
            for box, instance, origin in boxes:
                box["verified"] = reviewer_verdict(instance)
                if origin is not None:
                    box["box"] = origin
                own = (id, -1 if origin is None else origin)
                box["also"] = [other for other in written.things.get(own, ()) if other != own]
        return {
            **document,
            "id": str(record.image_id) if has_id(record.image_id) else key,
            "place": index,
            "digest": digest,
            "key": key,
            "written": [*written.rows],
            "comment": review.comment or "",
        }

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

    def decide(self, decisions: Sequence[JsonObject], since: int = 0) -> Update:
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

    def _take(self, decision: JsonObject) -> Update:
        key = str(decision.get("record"))
        index = self.reviewable.index_of.get(key)
        if index is None:
            return {"error": f"there is no record {key!r}", "ids": []}
        record = self.reviewable.record(index)
        try:
            ids = self.decisions.decide(record, key, decision, self.who)
        except (InputError, BrokenRow, StorageFailed) as why:
            return {"error": str(why), "ids": []}
        return {"error": "", "ids": ids}
