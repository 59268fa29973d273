"""A model that knows the gold: answers every task from annotated records, in the box format of the
model it plays.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Bbox, Size, iou
from dataflow_grounding.testing.answers import (
    IMAGES,
    agreed,
    answer_to_probe,
    described,
)
from dataflow_grounding.testing.received import BadRequest, ReceivedRequest

Gold = Mapping[str, Any]
DESCRIPTION = ("type", "color", "description")
SAME = 0.5


class GoldAnswers:
    """Answers from gold annotations: records of the package's schema.

    `box_format` is a name that `find_box_format` knows; gold boxes (pixels of the gold's `width` x
    `height`) are converted to it for the image size that really came. A record is known by its
    image file's digest (files found under `image_root`, or seen before with its caption), else by
    its caption, its phrases or its regions. A phrase that the gold doesn't have, or has without
    instances, is left out. Probe pictures are answered right.
    """

    reads = IMAGES

    def __init__(
        self,
        gold: Iterable[Gold],
        *,
        image_root: Path,
        box_format: str = "xyxy_px",
    ) -> None:
        self.box_format = box_format
        self.records = list(gold)
        self._by_caption: dict[str, list[Gold]] = defaultdict(list)
        self._by_phrase: dict[str, list[Gold]] = defaultdict(list)
        self._by_digest: dict[str, list[Gold]] = defaultdict(list)
        self._claimed: set[int] = set()
        for record in self.records:
            for caption in dict.fromkeys(
                _plain(record.get(key)) for key in ("caption", "cleaned_caption")
            ):
                if caption:
                    self._by_caption[caption].append(record)
            for phrase in {
                _plain(expression["text"]) for expression in record.get("expressions") or []
            }:
                self._by_phrase[phrase].append(record)
            path = image_root / str(record.get("image_path", ""))
            if path.is_file():
                self._claim(hashlib.sha256(path.read_bytes()).hexdigest(), record)

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """Answer by task; raises BadRequest for a caption that the gold does not know."""
        answers = {
            "expression_extraction": self._extract,
            "phrase_grounding": self._ground,
            "region_expression": self._descriptions,
            "image_caption": self._caption,
            "grounding_expression": self._merge,
            "double_check": self._check,
        }
        return answers[request.task](request)

    def _extract(self, request: ReceivedRequest) -> dict[str, Any]:
        caption = request.input["caption"]
        digest = request.image_digests[0] if request.images else ""
        known = self._by_caption.get(_plain(caption), [])
        here = _seen_with(known, self._by_digest.get(digest, ()))
        if not known:
            raise BadRequest(f"no gold record has the caption {caption!r}")
        # Rows that share a caption: take one whose picture has this shape and that no other picture
        # has claimed.
        record = (
            here[0]
            if here
            else min(known, key=lambda gold: (id(gold) in self._claimed, _shape_gap(gold, request)))
        )
        if digest and not here:
            self._claim(digest, record)
        expressions = [
            {
                "text": expression["text"],
                "noun_chunk": expression.get("noun_chunk") or expression["text"],
            }
            for expression in record.get("expressions") or []
        ]
        return {
            "cleaned_caption": record.get("cleaned_caption") or caption,
            "expressions": expressions,
        }

    def _claim(self, digest: str, record: Gold) -> None:
        self._by_digest[digest].append(record)
        self._claimed.add(id(record))

    def _ground(self, request: ReceivedRequest) -> dict[str, Any]:
        probe = answer_to_probe(request, find_box_format(self.box_format, request.model))
        if probe is not None:
            return probe
        phrases = request.input["phrases"]
        record = self._with_phrases(request, [_plain(phrase["text"]) for phrase in phrases])
        if record is None:
            return {"objects": []}
        box_format = find_box_format(self.box_format, request.model)
        original, sent = self._sizes(record, request)
        left: dict[str, list[Gold]] = defaultdict(list)
        for expression in record.get("expressions") or []:
            left[_plain(expression["text"])].append(expression)
        objects = []
        for phrase in phrases:
            found = left[_plain(phrase["text"])]
            # A phrase that is twice in the caption: the first one asked for is the first in the
            # gold.
            expression = found.pop(0) if len(found) > 1 else found[0] if found else {}
            for instance in expression.get("instances") or []:
                numbers = box_format.from_pixels(instance["bbox"], original=original, sent=sent)
                objects.append(
                    {"id": phrase["id"], "label": phrase["text"], box_format.key: numbers}
                )
        return {"objects": objects}

    def _with_phrases(self, request: ReceivedRequest, phrases: Sequence[str]) -> Gold | None:
        """The record with most of the phrases: among those seen with this very image, else among
        all.
        """
        seen = [
            record for digest in request.image_digests for record in self._by_digest.get(digest, ())
        ]
        everywhere = [
            record
            for phrase in dict.fromkeys(phrases)
            for record in self._by_phrase.get(phrase, ())
        ]
        for candidates in (seen, everywhere):
            if candidates:
                return max(
                    candidates,
                    key=lambda gold: (_shared(gold, phrases), -_shape_gap(gold, request)),
                )
        return None

    def _caption(self, request: ReceivedRequest) -> dict[str, Any]:
        for digest in request.image_digests:
            for record in self._by_digest.get(digest, ()):
                return {
                    "caption": record.get("caption")
                    or record.get("cleaned_caption")
                    or "A picture."
                }
        return {"caption": "A picture."}

    def _merge(self, request: ReceivedRequest) -> dict[str, Any]:
        regions, record = request.input["regions"], self._with_regions(request)
        found = []
        for expression in (record or {}).get("expressions") or []:
            if ids := self._region_ids(request, record, expression):
                found.append({"text": expression["text"], "region_ids": ids})
        for region in [] if found else regions:
            text = region.get("description") or described(region)["description"]
            found.append({"text": text, "region_ids": [region["id"]]})
        return {"expressions": found}

    def _check(self, request: ReceivedRequest) -> dict[str, Any]:
        record = self._with_regions(request)
        known = {
            _plain(expression["text"]): expression
            for expression in (record or {}).get("expressions") or []
        }
        checks = []
        for asked in request.input["expressions"]:
            check = agreed(asked)
            gold = known.get(_plain(asked["text"]))
            ids = self._region_ids(request, record, gold) if gold else []
            if ids and sorted(ids) != sorted(asked["region_ids"]):
                check |= {
                    "matches": False,
                    "region_ids": ids,
                    "reason": "the expression means other regions",
                }
            checks.append(check)
        return {"checks": checks}

    def _descriptions(self, request: ReceivedRequest) -> dict[str, Any]:
        record, found = self._with_regions(request), []
        for region in request.input["regions"]:
            fits = [
                (self._fit(request, record, gold["bbox"], region), gold)
                for gold in _gold_regions(record)
            ]
            fit, gold = max(fits, key=lambda pair: pair[0], default=(0.0, {}))
            invented = described(
                {"id": region["id"], "type": region.get("type") or gold.get("type")}
            )
            found.append(
                invented | {key: gold[key] for key in DESCRIPTION if fit > SAME and gold.get(key)}
            )
        return {"regions": found}

    def _with_regions(self, request: ReceivedRequest) -> Gold | None:
        """The record seen with this image, else the one whose boxes fit the request's
        regions best.
        """
        seen = [
            record for digest in request.image_digests for record in self._by_digest.get(digest, ())
        ]
        regions = request.input.get("regions") or []

        def fit(record: Gold) -> float:
            boxes = [gold["bbox"] for gold in _gold_regions(record)]
            return sum(
                max((self._fit(request, record, bbox, region) for bbox in boxes), default=0.0)
                for region in regions
            )

        return max(seen or self.records, key=fit, default=None)

    def _region_ids(
        self, request: ReceivedRequest, record: Gold | None, expression: Gold
    ) -> list[int]:
        boxes = [instance["bbox"] for instance in expression.get("instances") or []]
        regions = request.input["regions"]
        return [
            region["id"]
            for region in regions
            if any(self._fit(request, record, bbox, region) > SAME for bbox in boxes)
        ]

    def _fit(
        self, request: ReceivedRequest, record: Gold | None, bbox: Bbox, region: Gold
    ) -> float:
        """IoU of a gold bbox and a region of the request, in pixels of the gold."""
        box_format = find_box_format(self.box_format, request.model)
        original, sent = self._sizes(record or {}, request)
        numbers = region.get(box_format.key)
        return (
            iou(bbox, box_format.to_pixels(numbers, original=original, sent=sent))
            if numbers
            else 0.0
        )

    def _sizes(self, record: Gold, request: ReceivedRequest) -> tuple[Size, Size]:
        """(width, height) of the gold and of the picture that came."""
        sent = request.image_sizes[0] if request.images else _size(request.input["image"])
        return (_size(record) if record.get("width") else sent), sent


def _gold_regions(record: Gold | None) -> list[Gold]:
    expressions = (record or {}).get("expressions") or []
    instances = [
        instance for expression in expressions for instance in expression.get("instances") or []
    ]
    return list((record or {}).get("regions") or instances)


def _plain(text: Any) -> str:
    return " ".join(str(text or "").split()).casefold()


def _size(of: Any) -> Size:
    return int(of["width"]), int(of["height"])


def _shared(record: Gold, phrases: Sequence[str]) -> int:
    have = Counter(_plain(expression["text"]) for expression in record.get("expressions") or [])
    return sum((have & Counter(phrases)).values())


def _seen_with(known: Sequence[Gold], seen: Sequence[Gold]) -> list[Gold]:
    return [record for record in known if any(record is other for other in seen)]


def _shape_gap(record: Gold, request: ReceivedRequest) -> float:
    """How far the picture that came is from the gold's shape and size; 0 for the very same size."""
    if not (request.images and record.get("width")):
        return 0.0
    (width, height), (gold_width, gold_height) = request.image_sizes[0], _size(record)
    return (
        abs(width / height - gold_width / gold_height)
        + abs(width * height - gold_width * gold_height) / 1e9
    )
