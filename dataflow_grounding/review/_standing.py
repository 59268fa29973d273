"""What holds after some decisions, by what they are of: a picture, a phrase, its boxes.

Equal content gets a decision, in any file, record or run; nothing else does.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding.data.records import Record, dump_line, read_expressions
from dataflow_grounding.review._judged_pictures import short_digest
from dataflow_grounding.review._overlay import (
    Outcome,
    judgement_of,
    reviewer_verdict,
    version_of,
    was_judged,
)
from dataflow_grounding.review._record_view import Expression, expressions_of


class Placed(NamedTuple):
    """What was decided on one record.

    Attributes:
        outcomes: By an expression's id, what it was and what it is now. An expression that is again
            as it was, and not judged, is not in it.
        added: Of the ids of expressions that reviewers added and that are called otherwise here, as
            the record's own took their ids: what the decisions call them.
        comment: The last comment; None without one.
        used: The keys under which a `Standing` has these outcomes.
    """

    outcomes: dict[str, Outcome]
    added: dict[str, str]
    comment: str | None
    used: set[str]


class Standing:
    """What holds after some decisions, by what they are of.

    Attributes:
        outcomes: By the key of a picture, a phrase and its boxes, the outcomes by record and id:
            where rows of one file are alike, each may have its own. By the key of a picture and its
            caption, the expressions that reviewers added, by id.
        comments: By the latter key the last comment; "" for one that was emptied.
    """

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, dict[str, Outcome]] = defaultdict(dict)
        self.comments: dict[str, str] = {}
        # By the key of a picture, a phrase and one box: the outcome's key, who judged it and how.
        self._verdicts: dict[str, tuple[str, str, dict[str, Any]]] = {}
        # Of lines of before `place` was kept, by record and id: where the last outcome is.
        self._earlier: dict[tuple[str, str], tuple[str, Outcome]] = {}

    def take(self, line: Mapping[str, Any], picture: str) -> None:
        """Add a decision, a line of the file, on the picture of this name.

        Raises BrokenRow, KeyError, TypeError or AttributeError, and adds nothing, for a line that
        is no decision.
        """
        _check_expressions(line["changes"])
        who = str(line.get("who"))
        place = _row_key(picture, line.get("place") or f"record {line['record']}")
        taken = []
        for change in line["changes"]:
            original = change.get("original", change["before"])
            key = _phrase_key(picture, original) if original else place
            if "place" not in line:
                key, original = self._of_earlier_line(line["record"], change, key)
            outcome = Outcome.between(change["after"], original, who)
            taken.append((key, str(change["id"]), outcome, str(change.get("was"))))
        for key, id, outcome, id_before in taken:
            self.outcomes[key].pop(id_before, None)
            name = id if outcome.before is None else _name_in(line["record"], id)
            self._put(key, name, outcome, bool(line.get("undoes")))
            if "place" not in line:
                self._earlier[line["record"], id] = key, outcome
        if "comment" in line:
            self.comments[place] = str(line["comment"] or "")

    def _of_earlier_line(
        self, record: str, change: Mapping[str, Any], key: str
    ) -> tuple[str, Expression | None]:
        before = change["before"]
        earlier = self._earlier.get((record, str(change["id"])))
        if earlier is not None and _content_of(earlier[1].after) == _content_of(before):
            return earlier[0], earlier[1].before
        return key, before

    def _put(self, key: str, name: str, outcome: Outcome, is_undo: bool) -> None:
        outcomes = self.outcomes[key]
        outcomes.pop(name, None)  # so that the last one comes last
        is_changed = version_of(outcome.after) != version_of(outcome.before)
        is_judged = was_judged(outcome.after) and not is_undo
        # An undone decision leaves what the pipeline wrote: it is as if nobody had judged it.
        if is_changed or is_judged:
            outcomes[name] = outcome
        if outcome.before is None:
            return
        picture = key.rpartition(" ")[0]
        for index, box in enumerate(outcome.before["instances"]):
            box_key = _box_key(picture, outcome.before["text"], box)
            after = outcome.box_after(index) if name in outcomes else None
            self._verdicts.pop(box_key, None)
            if after is not None and reviewer_verdict(after) is not None:
                self._verdicts[box_key] = key, outcome.who, judgement_of(after)

    def left_out(self, used: Collection[str]) -> list[Outcome]:
        """Return the outcomes that are under none of these keys, as no record has them."""
        left: list[Outcome] = []
        for key, outcomes in self.outcomes.items():
            if key not in used:
                left.extend(outcomes.values())
        return left

    def placed(self, record: Record, key: str, pictures: Sequence[str]) -> Placed:
        """Return what was decided on a record, whose key is `key`, and whose picture has the names.

        Raises BrokenRow where its expressions can't be read.
        """
        if not pictures:
            return Placed({}, {}, None, set())
        rows = [
            _row_key(picture, place)
            for picture in pictures
            for place in (place_of(record), f"record {key}")
        ]
        comments = [self.comments[row] for row in rows if row in self.comments]
        placed = Placed({}, {}, next(iter(comments), "") or None, set())
        expressions = expressions_of(record)
        contents = {id: _content_of(expression) for id, expression in expressions.items()}
        counts = Counter(contents.values())
        for id, expression in expressions.items():
            keys = [f"{picture} {contents[id]}" for picture in pictures]
            placed.used.update(keys)
            decided = [self.outcomes[key] for key in keys if key in self.outcomes]
            outcome = None
            if decided:  # an empty one, where all of it was taken back
                is_alone = counts[contents[id]] == 1
                outcome = _own_or_last(decided[0], _name_in(key, id), is_alone)
            else:
                outcome = self._by_boxes(expression, pictures, placed.used)
            if outcome is not None:
                placed.outcomes[id] = outcome.on(expression)
        for row in rows:
            self._place_added(placed, row, expressions)
        return placed

    def _by_boxes(
        self, expression: Expression, pictures: Sequence[str], used: set[str]
    ) -> Outcome | None:
        # The phrase counts as judged if all its boxes are. The keys of the outcomes are added to
        # `used`.
        instances = []
        reviewers = []
        for box in expression["instances"]:
            for picture in pictures:
                verdict = self._verdicts.get(_box_key(picture, expression["text"], box))
                if verdict is not None:
                    key, who, judgement = verdict
                    used.add(key)
                    reviewers.append(who)
                    box = {**box, **judgement}
                    break
            instances.append(box)
        if not reviewers:
            return None
        after = {**expression, "instances": instances}
        if len(reviewers) == len(instances):
            is_right = all(map(reviewer_verdict, instances))
            after.update(verified=is_right, reviewed_by=reviewers[-1])
        return Outcome.between(after, expression, reviewers[-1])

    def _place_added(self, placed: Placed, key: str, expressions: Mapping[str, Expression]) -> None:
        # What the record has by now, phrase and boxes, isn't added a second time.
        own = set(map(_content_of, expressions.values()))
        for id, outcome in self.outcomes.get(key, {}).items():
            placed.used.add(key)
            if _content_of(outcome.after) in own:
                continue
            here = id
            while here in expressions or here in placed.outcomes:
                here += "~2"
            if here != id:
                placed.added[here] = id
                after = {**(outcome.after or {}), "expression_id": here}
                outcome = outcome._replace(after=after)
            placed.outcomes[here] = outcome


def _own_or_last(outcomes: Mapping[str, Outcome], name: str, is_alone: bool) -> Outcome | None:
    # Return what was decided on an expression of this name, else the last on equal content. Of
    # several expressions alike in a record, which are not `is_alone`, each has its own alone.
    if name in outcomes or not is_alone:
        return outcomes.get(name)
    return [*outcomes.values()][-1] if outcomes else None


def _name_in(record: str, id: str) -> str:
    return f"{record} {id}"


def _content_of(expression: Expression | None) -> str:
    if expression is None:
        return ""
    boxes = [box["bbox"] for box in expression["instances"]]
    return short_digest(dump_line({"text": expression["text"], "boxes": boxes}))


def _phrase_key(picture: str, expression: Expression) -> str:
    return f"{picture} {_content_of(expression)}"


def _box_key(picture: str, text: str, box: Mapping[str, Any]) -> str:
    return _phrase_key(picture, {"text": text, "instances": [box]})


def place_of(record: Record) -> str:
    """Return what tells a row from others of its picture.

    That is the caption; without one, the row's number among those of its image.
    """
    caption = record.get("caption") or record.get("cleaned_caption")
    if isinstance(caption, str):
        return short_digest(caption)
    return f"row {record.occurrence}"


def _row_key(picture: str, place: str) -> str:
    return f"{picture} {short_digest(place)}"


def _check_expressions(changes: list[Mapping[str, Any]]) -> None:
    # Raise BrokenRow, KeyError or TypeError unless all sides of the changes are expressions. They
    # may be None, too: the expression wasn't there, or is there no longer.
    expressions = []
    for change in changes:
        for side in (change["before"], change["after"], change.get("original")):
            if isinstance(side, dict):
                expressions.append(side)
            elif side is not None:
                raise TypeError
    # For what it raises: an expression has a text, and boxes of four numbers.
    read_expressions(Record({"sides": expressions}), "sides")
