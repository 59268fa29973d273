"""JSON lines of one picture each with the regions of its caption: ODVG's four dialects, and
Datature Vi's.

No dialect reads another. Boxes are `[x1, y1, x2, y2]`, in ODVG in pixels, in Vi's in parts of the
sides. Sources: Open-GroundingDino's data_format.md and datasets/odvg.py; mmdetection's
mmdet/datasets/odvg.py and transforms/text_transformers.py; tao_pytorch's
cv/grounding_dino/dataloader/odvg.py and cv/mask_grounding_dino/dataloader/odvg.py;
vi.developers.datature.com/docs/upload-annotations; vi-sdk's
vi/dataset/loaders/types/{annotations,assets}.py, where `id` is a text.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import count, groupby
from typing import Any, ClassVar
from unicodedata import normalize

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import is_number
from dataflow_grounding.extras.formats.base import Format, Phrase, Sample, stands
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.reading import broken, read_lines, united

_DECIMALS = 6  # of a pixel, in Vi's


class _Odvg(Format):
    """What the dialects share: the picture's key, and `grounding` with its regions."""

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
                picture |= {"image_id": number} if self.numbered else {}
                for grounding in self.groundings(sample):
                    put({**picture, "grounding": grounding})

    def groundings(self, sample: Sample) -> Iterator[dict[str, Any]]:
        """What the sample's lines say of its picture."""
        yield {
            "caption": sample.caption,
            "regions": [region for one in sample.phrases for region in self.regions(one)],
        }

    def regions(self, phrase: Phrase) -> list[dict[str, Any]]:
        """The regions of a phrase: one for each box, as these dialects know one box a region."""
        return [{"bbox": list(box), "phrase": phrase.text} for box in phrase.boxes]

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for where, line in read_lines(path, self.data_file):
            with broken(where):
                size = {key: line.get(key) for key in ("width", "height")}
                yield {
                    "image_path": line[self.picture_key],
                    **size,
                    **self.record(line["grounding"]),
                }

    def record(self, grounding: Mapping[str, Any]) -> dict[str, Any]:
        """Caption and expressions of a line. Boxes of equal phrases belong to one."""
        said = [_said(region["phrase"], region) for region in grounding["regions"]]
        return {
            "caption": grounding.get("caption"),
            "expressions": united((one["text"], one) for one in said),
        }


def _said(phrase: str | list[str], *regions: Mapping[str, Any]) -> dict[str, Any]:
    """A phrase, or its parts, with the boxes of regions, each of which has one box or a list.
    Raises TypeError.
    """
    given = (region["bbox"] for region in regions)
    boxes = (
        list(one) if not (isinstance(one, list) and one and is_number(one[0])) else [one]
        for one in given
    )
    text = " ".join(phrase if isinstance(phrase, list) else [phrase])
    return {"text": text, "instances": [{"bbox": box} for one in boxes for box in one]}


class OpenGroundingDino(_Odvg):
    """ODVG as Open-GroundingDino reads it: it trains on the phrases, joined in any order, not on
    the caption.
    """

    breaking = (" . ",)


class TaoGroundingDino(OpenGroundingDino):
    """ODVG as TAO's Grounding DINO and Mask Grounding DINO read it; boxes without masks want
    `has_mask: false`.
    """

    picture_key, numbered = "file_name", True


class MMDetection(_Odvg):
    """ODVG as mmdetection reads it: a region is a phrase with all of its boxes, found in the
    caption by its span.
    """

    def groundings(self, sample: Sample) -> Iterator[dict[str, Any]]:
        cut = len(sample.caption) - len(sample.caption.lstrip())  # the trainer strips it, too
        regions = []
        for phrase in sample.phrases:
            span = [max(0, place - cut) for place in phrase.span or ()]
            regions.append(
                {
                    "bbox": [*map(list, phrase.boxes)],
                    "phrase": phrase.text,
                    "tokens_positive": [span],
                }
            )
        yield {"caption": sample.caption[cut:], "regions": regions}

    def safe(self, text: str) -> str:
        """The text without letters that become two when lower-cased, as İ does: the trainer lowers
        the caption, and spans behind would be off.
        """
        return (
            text
            if text.isascii()
            else "".join(c if len(c.lower()) == 1 else normalize("NFD", c)[0] for c in text)
        )

    def record(self, grounding: Mapping[str, Any]) -> dict[str, Any]:
        caption, said = grounding["caption"], []
        for region in grounding["regions"]:
            one, spans = _said(region["phrase"], region), region["tokens_positive"]
            whole = [spans[0][0], spans[-1][1]]  # the words of a phrase may have a span each
            said.append(
                {
                    **one,
                    "char_span": (
                        whole if len(spans) == 1 or stands(one["text"], whole, caption) else None
                    ),
                }
            )
        return {"caption": caption, "expressions": said}


class TaoReferring(_Odvg):
    """Referring expressions as TAO 7's Mask Grounding DINO reads them: a line for each, also where
    nothing is there.
    """

    picture_key, numbered = "file_name", True

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        self._ids = count()
        super().write(samples, out)

    def groundings(self, sample: Sample) -> Iterator[dict[str, Any]]:
        for phrase, expression_id in zip(sample.phrases, self._ids, strict=False):
            yield {
                "expression": phrase.text,
                "expression_id": expression_id,
                "sent_id": expression_id,
                "empty": not phrase.boxes,
                "tokens_positive": [[0, len(phrase.text)]] if phrase.boxes else [],
                "regions": self.regions(phrase),
            }

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for _, rows in groupby(super().read(path, image_root), key=lambda row: row["image_path"]):
            first, *others = rows
            yield {
                **first,
                "expressions": [one for row in (first, *others) for one in row["expressions"]],
            }

    def record(self, grounding: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "caption": None,
            "expressions": [_said(grounding["expression"], *grounding["regions"])],
        }


class Vi(Format):
    """Phrase grounding as Datature Vi imports it; it knows pictures by their file's name alone.

    `startTokenIndex` and `endTokenIndex` are not explained anywhere: characters are written.
    """

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        paths: dict[int, int] = {}  # name → path, as hashes: there may be millions
        with out.lines(self.data_file) as put:
            for number, sample in enumerate(samples):
                path, name = sample.file_name, os.path.basename(sample.file_name)
                if paths.setdefault(hash(name), hash(path)) != hash(path):
                    raise InputError(
                        f"two pictures are called {name!r}, and Vi tells them apart by name:"
                        " rename one"
                    )
                width, height = sample.size
                asset = {
                    "type": "Image",
                    "filename": name,
                    "width": width,
                    "height": height,
                    "filepath": path,
                }
                said = []
                for phrase in sample.phrases:
                    start, end = phrase.span or (0, 0)
                    bounds = [
                        [n / sample.size[i % 2] for i, n in enumerate(box)] for box in phrase.boxes
                    ]
                    place = {"startTokenIndex": start, "endTokenIndex": end}
                    said.append({"phrase": phrase.text, **place, "bounds": bounds})
                contents = {
                    "type": "PhraseGrounding",
                    "caption": sample.caption,
                    "groundedPhrases": said,
                }
                put({"id": str(number), "asset": asset, "contents": contents})

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        for where, line in read_lines(path, self.data_file):
            with broken(where):
                asset, contents = line["asset"], line["contents"]
                size = {"width": asset["width"], "height": asset["height"]}
                sides, said = [*size.values()], []
                for one in contents["groundedPhrases"]:
                    boxes = [
                        [round(n * sides[i % 2], _DECIMALS) for i, n in enumerate(box)]
                        for box in one["bounds"]
                    ]
                    place = {"char_span": [one.get("startTokenIndex"), one.get("endTokenIndex")]}
                    said.append(
                        {
                            "text": one["phrase"],
                            **place,
                            "instances": [{"bbox": box} for box in boxes],
                        }
                    )
                facts = {
                    "image_path": asset.get("filepath") or asset["filename"],
                    "caption": contents["caption"],
                }
                yield {**facts, **size, "expressions": said}
