"""CVAT for images 1.1: one XML file with the boxes of each picture, in pixels, and their phrases as
attributes.

Boxes of one phrase share a `group_id`; a phrase without boxes, and the picture's caption, are tags.
Source: docs.cvat.ai/docs/dataset_management/formats/format-cvat.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape, quoteattr

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.extras.formats.base import Format, Phrase, Sample
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.reading import broken, file_of, read_xml, united

_BOX, _NO_BOX, _PICTURE = "object", "no box", "picture"
_SCORE = r"0|[01]\.0*|0?\.\d+|1|\d(\.\d+)?e-\d+"
_OURS = re.compile(  # attributes as the export writes them
    rf"(phrase|expression_id) .*|(start|end) \d+ .*|score ({_SCORE}) box|(status|caption|image_id)"
    r" .* tag",
    re.DOTALL,
)
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_STATUSES = STATUSES[1:]  # of phrases without boxes
_NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Cvat(Format):
    """CVAT's own XML, which it takes as annotations of a task with labels `object`, `no box` and
    `picture`.
    """

    def safe(self, text: str) -> str:
        """The text without what XML can't hold."""
        return _NOT_XML.sub("", text)

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with out.file(self.data_file) as file:
            file.write(
                '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
            )
            for number, sample in enumerate(samples):
                name, (width, height) = quoteattr(self.safe(sample.file_name)), sample.size
                file.write(f'<image id="{number}" name={name} width="{width}" height="{height}">\n')
                said = {"caption": sample.caption, "image_id": sample.record.get("image_id")}
                file.write(_mark("tag", _PICTURE, said) if any(said.values()) else "")
                for group, phrase in enumerate(sample.phrases, 1):
                    file.writelines(_marks(phrase, group))
                file.write("</image>\n")
            file.write("</annotations>\n")

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        file = file_of(path, self.data_file)
        images = 0
        for found in read_xml(file):
            if found.tag == "track":
                raise InputError(f"{file} has a <track>, of a video: export 'CVAT for images 1.1'")
            if found.tag == "image":
                with broken(f"{file}, image {found.get('name')!r}"):
                    yield _record(found, self.passed_over)
                images += 1
        if not images:
            raise InputError(f"{file} has no <image> in it: export 'CVAT for images 1.1'")


def _marks(phrase: Phrase, group: int) -> Iterator[str]:
    start, end = phrase.span or (None, None)
    said = {
        "phrase": phrase.text,
        "start": start,
        "end": end,
        "expression_id": phrase.expression["expression_id"],
    }
    if not phrase.boxes:
        yield _mark("tag", _NO_BOX, {**said, "status": phrase.status})
    for box, score in zip(phrase.boxes, phrase.scores, strict=True):
        corners = " ".join(f'{name}="{n}"' for name, n in zip(_CORNERS, box, strict=True))
        yield _mark(
            "box",
            _BOX,
            {**said, "score": score},
            f' occluded="0" {corners} z_order="0" group_id="{group}"',
        )


def _mark(tag: str, label: str, said: Mapping[str, Any], place: str = "") -> str:
    texts = {
        name: "" if text is None else escape(_NOT_XML.sub("", str(text)))
        for name, text in said.items()
    }
    inside = "".join(f'<attribute name="{name}">{text}</attribute>' for name, text in texts.items())
    return f'<{tag} label="{label}" source="manual"{place}>{inside}</{tag}>\n'


def _record(image: Element, passed_over: Counter[str]) -> dict[str, Any]:
    record: dict[str, Any] = {"image_path": image.attrib["name"], "caption": None}
    record |= {side: int(image.attrib[side]) for side in ("width", "height")}
    found: list[tuple[Any, dict[str, Any]]] = []
    for mark in image:
        label, said = mark.get("label", ""), _said(mark, passed_over)
        kind = mark.tag, label
        if kind == ("tag", _PICTURE) and said:
            record |= {key: said[key] for key in ("caption", "image_id") if key in said}
        elif kind in (("box", label), ("tag", _NO_BOX)):
            text = said.get("phrase") or label
            same = said.get("expression_id") or mark.get("group_id"), text
            found.append(
                (
                    same,
                    _expression(text, said, [_instance(mark, said)] if mark.tag == "box" else []),
                )
            )
        elif mark.tag == "tag":
            passed_over[f"tags {label!r}"] += 1
        else:
            raise BrokenRow(f"a {mark.tag}: only boxes can be read")
    return {**record, "expressions": united(found)}


def _said(mark: Element, passed_over: Counter[str]) -> dict[str, str]:
    """A mark's attributes that are as the export writes them; others, perhaps of the same names,
    are counted.
    """
    given = {str(one.get("name")): one.text for one in mark.iter("attribute") if one.text}
    said = {
        name: text for name, text in given.items() if _OURS.fullmatch(f"{name} {text} {mark.tag}")
    }
    passed_over.update(f"attributes {name!r}" for name in sorted(given.keys() - said))
    return said


def _expression(
    text: str, said: Mapping[Any, str], instances: list[dict[str, Any]]
) -> dict[str, Any]:
    span = [int(said[key]) for key in ("start", "end") if key in said]
    own = {key: said[key] for key in ("expression_id", "status") if key in said}
    if text in (_BOX, _NO_BOX):
        raise BrokenRow(f"what is labelled {text!r} has no phrase")
    if own.get("status", _STATUSES[0]) not in _STATUSES:
        raise BrokenRow(f"the status {own['status']!r} is not one of {', '.join(_STATUSES)}")
    return {"text": text, "char_span": span or None, **own, "instances": instances}


def _instance(box: Element, said: Mapping[Any, str]) -> dict[str, Any]:
    if float(box.get("rotation", 0)):
        raise BrokenRow("a box is rotated: only upright ones can be read")
    score = {"score": float(said["score"])} if "score" in said else {}
    return {"bbox": [float(box.attrib[name]) for name in _CORNERS], **score}
