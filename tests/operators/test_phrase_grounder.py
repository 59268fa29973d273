"""PhraseGrounder: requests of several phrases, halves after a cut-off reply, and what is not asked
at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import ExpressionExtractor, PhraseGrounder, Serving
from dataflow_grounding._util.errors import BrokenRow, TruncatedReply
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Request
from tests.support.answering import Answering
from tests.support.steps import Steps, storage_in


class Counting(Serving):
    """Notes what it is asked; a reply to more than `most` phrases is cut off; phrase number n is
    found at x = n.
    """

    model = "counting"
    box_format = "xyxy_px"
    takes_probes = False

    def __init__(self, most: int = 1000, absent: str = "nothing") -> None:
        self.most, self.absent = most, absent
        self.asked: list[list[str]] = []

    async def answer(self, request: Request[Any]) -> Reply:
        texts = [phrase["text"] for phrase in request.input["phrases"]]
        self.asked.append(texts)
        objects = []
        for phrase in request.input["phrases"]:
            if phrase["text"] != self.absent:
                x = int(phrase["text"])
                objects.append(
                    {"id": phrase["id"], "label": phrase["text"], "bbox_2d": [x, 0, x + 2, 2]}
                )
        text = json.dumps({"objects": objects})
        if len(texts) <= self.most:
            return Reply(text)
        return Reply(text[:-2], "length")


PHOTO = Image.new("RGB", (200, 30), "red")


def grounded(serving: Serving, phrases: list[Any], **settings: Any) -> list[dict[str, Any]]:
    row = {"image_path": PHOTO, "expressions": phrases}
    found: list[dict[str, Any]] = PhraseGrounder(serving, **settings)(row)["expressions"]
    return found


@pytest.mark.parametrize(
    ("phrases", "per_request", "sizes"),
    [
        (0, 16, []),
        (1, 16, [1]),
        (16, 16, [16]),
        (17, 16, [16, 1]),
        (40, 16, [16, 16, 8]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_phrases_are_asked_for_in_portions(
    phrases: int, per_request: int, sizes: list[int]
) -> None:
    serving = Counting()
    texts = [str(number) for number in range(phrases)]
    found = grounded(serving, texts, phrases_per_request=per_request)
    assert [len(asked) for asked in serving.asked] == sizes
    assert [e["text"] for e in found] == texts
    assert [e["instances"][0]["bbox"][0] for e in found] == list(range(phrases))


def test_a_cut_off_reply_is_asked_for_in_halves() -> None:
    serving = Counting(most=2)
    texts = [str(number) for number in range(5)]
    found = grounded(serving, texts)
    assert serving.asked == [texts, ["0", "1"], ["2", "3", "4"], ["2"], ["3", "4"]]
    assert [(e["text"], e["instances"][0]["bbox"][0]) for e in found] == [
        (str(n), n) for n in range(5)
    ]
    assert len({i["bbox_id"] for e in found for i in e["instances"]}) == 5


def test_one_phrase_whose_replies_are_all_cut_off_fails_its_record() -> None:
    serving = Counting(most=0)
    with pytest.raises(TruncatedReply):
        grounded(serving, ["1", "2"])
    assert serving.asked == [["1", "2"], ["1"], ["1"], ["1"]]


def test_a_phrase_without_box_is_none_and_has_no_instances() -> None:
    instances = [{"bbox": [1, 2, 3, 4]}]
    earlier = {"text": "7", "instances": instances, "reason": "old", "status": "unsupported"}
    [found] = grounded(Counting(absent="7"), [{**earlier, "mine": 1}])
    assert (found["instances"], found["status"], found["mine"]) == ([], "none", 1)
    assert "reason" not in found


def test_equal_phrases_have_boxes_of_their_own() -> None:
    found = grounded(Counting(), ["3", "3"])
    assert [e["instances"][0]["bbox"] for e in found] == [[3, 0, 5, 2]] * 2
    assert len({e["expression_id"] for e in found}) == 2


@pytest.mark.parametrize(
    "expressions", [[5], [{"text": None}], [""], "a dog", None, [["a"]]], ids=repr
)
def test_what_is_no_expression_fails_its_record_alone_and_sends_nothing(expressions: Any) -> None:
    serving = Counting()
    rows = [{"image_path": PHOTO, "expressions": value} for value in (expressions, ["1"])]
    done = PhraseGrounder(serving)(rows)
    assert [type(error) for _, error in done.failures] == [BrokenRow]
    assert serving.asked == [["1"]]


def test_spans_are_computed_here_and_never_the_models() -> None:
    expressions = [
        {"text": "A dog", "char_span": [50, 99]},
        "a dog",
        {"text": "a cat", "noun_chunk": None},
    ]
    reply = {"cleaned_caption": "A dog and a dog.", "expressions": expressions}
    row = {"image_path": PHOTO, "caption": "a  dog and a dog"}
    record = ExpressionExtractor(Answering(json.dumps(reply)))(row)
    found = [(e["text"], e["char_span"], e["caption_span"]) for e in record["expressions"]]
    assert found == [
        ("A dog", [0, 5], [0, 6]),
        ("a dog", [10, 15], [11, 16]),
        ("a cat", None, None),
    ]


def test_the_summary_tells_which_caption_lacks_a_phrase(tmp_path: Path) -> None:
    said = ["a dog", "a cat", "a bird", "a rat"]
    reply = {"cleaned_caption": "A dog and a rat.", "expressions": said}
    PHOTO.save(tmp_path / "photo.png")
    storage = storage_in(tmp_path, {"image_path": "photo.png", "caption": "a dog and a cat"})
    pipeline = Steps(storage, ExpressionExtractor(Answering(json.dumps(reply))))
    summary = pipeline.run()
    [record] = pipeline.records()
    expressions = record["expressions"]
    assert [bool(e["char_span"]) for e in expressions] == [True, False, False, True]
    assert [bool(e["caption_span"]) for e in expressions] == [True, True, False, False]
    notes = [line for line in str(summary).splitlines() if line.startswith("Note:")]
    assert notes == [
        "Note: 1 phrase that the caption doesn't have: kept, with char_span null",
        "Note: 1 phrase that the caption as given has, but not the cleaned one: kept, with char_span"
        " null",
    ]


def test_stated_sizes_lose_against_the_file() -> None:
    for stated in (1920, "1920", None, [], 10**400):
        row = {"image_path": PHOTO, "caption": "x", "width": stated}
        record = ExpressionExtractor(Answering('{"expressions": []}'))(row)
        assert (record["width"], record["height"]) == (200, 30)


class Strange(Counting):
    """Gives the second phrase's box an id that no phrase has."""

    def __init__(self, label: str, absent: bool = False) -> None:
        super().__init__()
        self.label = label
        self.says_absent = absent

    async def answer(self, request: Request[Any]) -> Reply:
        self.asked.append([phrase["text"] for phrase in request.input["phrases"]])
        objects: list[dict[str, Any]] = [
            {"id": 1, "label": "a man", "bbox_2d": [0, 0, 20, 20]},
            {"id": 99, "label": self.label, "bbox_2d": [30, 0, 60, 20]},
            {"id": 3, "label": "a flag", "bbox_2d": [70, 0, 90, 20]},
        ]
        if self.says_absent:
            objects.append({"id": 2, "label": "an orange suit", "bbox_2d": None})
        return Reply(json.dumps({"objects": objects}), "stop")


def test_a_box_of_an_unknown_id_leaves_no_phrase_absent() -> None:
    serving = Strange("a dog")
    found = grounded(serving, ["a man", "an orange suit", "a flag"])
    assert [expression["status"] for expression in found] == ["grounded", "ambiguous", "grounded"]
    assert "id 99" in found[1]["reason"]
    assert len(serving.asked) == 1


def test_a_phrase_that_the_reply_denies_is_absent_whatever_other_boxes_it_has() -> None:
    found = grounded(Strange("a dog", absent=True), ["a man", "an orange suit", "a flag"])
    assert [expression["status"] for expression in found] == ["grounded", "none", "grounded"]
