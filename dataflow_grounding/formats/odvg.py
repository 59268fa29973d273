"""ODVG: JSON lines of one picture each with the regions of its caption.

It has four dialects; readers of one don't read another. Boxes are `[x1, y1, x2, y2]` in pixels.
A line's `grounding` says what is in the picture: a caption with its regions, or an expression.
Sources: Open-GroundingDino's data_format.md and datasets/odvg.py; mmdetection's
mmdet/datasets/odvg.py and transforms/text_transformers.py; tao_pytorch's
cv/grounding_dino/dataloader/odvg.py and cv/mask_grounding_dino/dataloader/odvg.py.
"""

from collections.abc import Iterator
from itertools import count, groupby
from typing import Any, ClassVar
from unicodedata import normalize

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.data.records import JsonObject, Update, is_number
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Format, Phrase, Sample, place_of_parts
from dataflow_grounding.formats.reading import (
    check_expression,
    entry_errors,
    read_lines,
    unite,
)
from dataflow_grounding.formats.rotated import degrees_in


class _Odvg(Format):
    """Base of the dialects, which differ in the `grounding` of a line."""

    picture_key: ClassVar[str] = "filename"
    numbered: ClassVar[bool] = False  # whether pictures have an `image_id`, from 0

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with out.lines(self.data_file) as put:
            for number, sample in enumerate(samples):
                picture = {
                    self.picture_key: sample.file_name,
                    "height": sample.size[1],
                    "width": sample.size[0],
                }
                if self.numbered:
                    picture["image_id"] = number
                for grounding in self.groundings(sample):
                    put({**picture, "grounding": grounding})

    def groundings(self, sample: Sample) -> Iterator[JsonObject]:
        """Yield the `grounding` of each line of a sample, here of one line."""
        regions = []
        for phrase in sample.phrases:
            regions += self.regions(phrase)
        yield {"caption": sample.caption, "regions": regions}

    def regions(self, phrase: Phrase) -> list[JsonObject]:
        return [{"bbox": list(box), "phrase": phrase.text} for box in phrase.boxes]

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        for where, line in read_lines(path, self.data_file, self.bad):
            with entry_errors(where, self.bad):  # at an error the line is left out
                row = {
                    "image_path": line[self.picture_key],
                    "width": line.get("width"),
                    "height": line.get("height"),
                    "caption": None,
                    **self.record(line["grounding"], where),
                }
                yield row

    def record(self, grounding: JsonObject, where: str) -> Update:
        """Return the `caption` and `expressions` of a line's `grounding`; `where` is its place."""
        keyed_expressions = []  # by their text
        for number, region in enumerate(_regions_of(grounding), 1):
            with entry_errors(f"{where}, region {number}"):
                expression = _expression(region["phrase"], [region])
                check_expression(expression)
                keyed_expressions.append((expression["text"], expression))
        expressions = unite(keyed_expressions)
        return {"caption": grounding.get("caption"), "expressions": expressions}


def _regions_of(grounding: JsonObject) -> list[Any]:
    regions = grounding["regions"]
    if not isinstance(regions, list):
        raise BrokenRow("'regions' should be a list")
    return regions


def _expression(phrase: str | list[str], regions: list[JsonObject]) -> dict[str, Any]:
    """Return an expression with the boxes of all of the regions.

    In mmdetection's files a phrase may be a list of words, and a region's `bbox` a list of boxes.
    """
    instances: list[dict[str, Any]] = []
    for region in regions:
        if degrees_in(region):
            raise BrokenRow("'rotation' turns the box, and ODVG's boxes are upright")
        instances += [{"bbox": box} for box in _boxes_of(region["bbox"])]
    text = " ".join(phrase if isinstance(phrase, list) else [phrase])
    return {"text": text, "instances": instances}


def _boxes_of(bbox: Any) -> list[Any]:
    is_one_box = isinstance(bbox, list) and bbox and is_number(bbox[0])
    return [bbox] if is_one_box else list(bbox)


class OpenGroundingDino(_Odvg):
    """ODVG as Open-GroundingDino reads it: the phrases, joined in any order, not the caption."""

    breaking = (" . ",)


class TaoGroundingDino(OpenGroundingDino):
    """TAO's Grounding DINO and Mask Grounding DINO. Boxes without masks want `has_mask: false`."""

    picture_key = "file_name"
    numbered = True


class MMDetection(_Odvg):
    """ODVG as mmdetection reads it: a region is a phrase with all of its boxes, and its span."""

    def groundings(self, sample: Sample) -> Iterator[JsonObject]:
        caption = sample.caption.lstrip()  # the trainer strips it, and spans would be off
        stripped_length = len(sample.caption) - len(caption)
        regions = []
        for phrase in sample.phrases:
            # [start, end] in the stripped caption. A phrase that began in what is gone starts at 0.
            span = [max(0, offset - stripped_length) for offset in phrase.span or ()]
            regions.append(
                {
                    "bbox": [list(box) for box in phrase.boxes],
                    "phrase": phrase.text,
                    "tokens_positive": [span],
                }
            )
        yield {"caption": caption, "regions": regions}

    def safe(self, text: str) -> str:
        """Return the text without letters that become two when lower-cased, as İ does."""
        # the trainer lowers the caption, and spans after such a letter would be off
        if text.isascii():
            return text
        return "".join(_of_one_lower_letter(letter) for letter in text)

    def record(self, grounding: JsonObject, where: str) -> Update:
        caption = grounding["caption"]
        expressions = []
        for number, region in enumerate(_regions_of(grounding), 1):
            with entry_errors(f"{where}, region {number}"):
                expression = _expression(region["phrase"], [region])
                check_expression(expression)
                spans = region["tokens_positive"]
                expression["char_span"] = place_of_parts(expression["text"], spans, caption)
                expressions.append(expression)
        return {"caption": caption, "expressions": expressions}


def _of_one_lower_letter(letter: str) -> str:
    """Return the letter, or I for İ, which becomes two in lower case."""
    return letter if len(letter.lower()) == 1 else normalize("NFD", letter)[0]


class TaoReferring(_Odvg):
    """Referring expressions as Mask Grounding DINO of TAO 7 or later reads them.

    There is a line for each expression, also if nothing is there. Consecutive lines of one picture
    are read as one record.
    """

    picture_key = "file_name"
    numbered = True

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        self._ids = count()
        super().write(samples, out)

    def groundings(self, sample: Sample) -> Iterator[JsonObject]:
        for phrase in sample.phrases:
            expression_id = next(self._ids)
            yield {
                "expression": phrase.text,
                "expression_id": expression_id,
                "sent_id": expression_id,
                "empty": not phrase.boxes,
                "tokens_positive": [[0, len(phrase.text)]] if phrase.boxes else [],
                "regions": self.regions(phrase),
            }

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        rows_of_lines = super().read(path, image_root)
        for _, rows_of_picture in groupby(rows_of_lines, key=lambda row: row["image_path"]):
            first, *others = rows_of_picture
            record = {**first, "expressions": [*first["expressions"]]}
            for row in others:
                record["expressions"] += row["expressions"]
            # `bad.place` is by now the first line of the next picture, because only that shows
            # where this one ends. So an error of this record names no line.
            self.bad.place = ""
            yield record

    def record(self, grounding: JsonObject, where: str) -> Update:
        expression = _expression(grounding["expression"], _regions_of(grounding))
        return {"caption": None, "expressions": [expression]}
