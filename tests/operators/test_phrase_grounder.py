"""PhraseGrounder: requests of several phrases, halves after a cut-off reply, and what is not asked
at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    PhraseGrounder,
    Pipeline,
    Serving,
)
from dataflow_grounding._util.errors import BrokenRow, TruncatedReply
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Request
from tests.support.answering import Answering


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
        objects = [
            {
                "id": phrase["id"],
                "label": phrase["text"],
                "bbox_2d": [int(phrase["text"]), 0, int(phrase["text"]) + 2, 2],
            }
            for phrase in request.input["phrases"]
            if phrase["text"] != self.absent
        ]
        text = json.dumps({"objects": objects})
        if len(texts) <= self.most:
            return Reply(text)
        return Reply(text[:-2], "length")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.new("RGB", (200, 30), "red").save(path)
    return str(path)


def grounded(
    serving: Serving, photo: str, phrases: list[Any], **settings: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = PhraseGrounder(serving, **settings)(
        {"image_path": photo, "expressions": phrases}
    )["expressions"]
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
    photo: str, phrases: int, per_request: int, sizes: list[int]
) -> None:
    serving = Counting()
    texts = [str(number) for number in range(phrases)]
    found = grounded(serving, photo, texts, phrases_per_request=per_request)
    assert [len(asked) for asked in serving.asked] == sizes
    assert [e["text"] for e in found] == texts
    assert [e["instances"][0]["bbox"][0] for e in found] == list(range(phrases))


def test_a_cut_off_reply_is_asked_for_in_halves(photo: str) -> None:
    serving = Counting(most=2)
    texts = [str(number) for number in range(5)]
    found = grounded(serving, photo, texts)
    assert serving.asked == [texts, ["0", "1"], ["2", "3", "4"], ["2"], ["3", "4"]]
    assert [(e["text"], e["instances"][0]["bbox"][0]) for e in found] == [
        (str(n), n) for n in range(5)
    ]
    assert len({i["bbox_id"] for e in found for i in e["instances"]}) == 5


def test_one_phrase_whose_replies_are_all_cut_off_fails_its_record(photo: str) -> None:
    serving = Counting(most=0)
    with pytest.raises(TruncatedReply):
        grounded(serving, photo, ["1", "2"])
    assert serving.asked == [["1", "2"], ["1"], ["1"], ["1"]]


def test_a_phrase_without_box_is_none_and_has_no_instances(photo: str) -> None:
    earlier = {
        "text": "7",
        "instances": [{"bbox": [1, 2, 3, 4]}],
        "reason": "old",
        "status": "unsupported",
        "mine": 1,
    }
    [found] = grounded(Counting(absent="7"), photo, [earlier])
    assert found["instances"] == []
    assert found["status"] == "none"
    assert "reason" not in found
    assert found["mine"] == 1


def test_equal_phrases_have_boxes_of_their_own(photo: str) -> None:
    found = grounded(Counting(), photo, ["3", "3"])
    assert [e["instances"][0]["bbox"] for e in found] == [[3, 0, 5, 2]] * 2
    assert len({e["expression_id"] for e in found}) == 2


@pytest.mark.parametrize(
    "expressions", [[5], [{"text": None}], [""], "a dog", None, [["a"]]], ids=repr
)
def test_what_is_no_expression_fails_its_record_alone_and_sends_nothing(
    photo: str, expressions: Any
) -> None:
    serving = Counting()
    rows = [{"image_path": photo, "expressions": value} for value in (expressions, ["1"])]
    done = PhraseGrounder(serving)(rows)
    assert [type(error) for _, error in done.failures] == [BrokenRow]
    assert serving.asked == [["1"]]


def extracted(photo: str, reply: Any, caption: str = "a dog and a dog") -> dict[str, Any]:
    record: dict[str, Any] = ExpressionExtractor(Answering(json.dumps(reply)))(
        {"image_path": photo, "caption": caption}
    )
    return record


def test_spans_are_computed_here_and_never_the_models(photo: str) -> None:
    expressions = [
        {"text": "A dog", "char_span": [50, 99]},
        "a dog",
        {"text": "a cat", "noun_chunk": None},
    ]
    record = extracted(
        photo,
        {"cleaned_caption": "A dog and a dog.", "expressions": expressions},
        "a  dog and a dog",
    )
    found = [(e["text"], e["char_span"], e["caption_span"]) for e in record["expressions"]]
    assert found == [
        ("A dog", [0, 5], [0, 6]),
        ("a dog", [10, 15], [11, 16]),
        ("a cat", None, None),
    ]


def test_the_summary_tells_which_caption_lacks_a_phrase(photo: str, tmp_path: Path) -> None:
    reply = {
        "cleaned_caption": "A dog and a rat.",
        "expressions": ["a dog", "a cat", "a bird", "a rat"],
    }

    class Extraction(Pipeline):
        def __init__(self, storage: FileStorage) -> None:
            self.storage = storage
            self.extractor = ExpressionExtractor(Answering(json.dumps(reply)))

        def forward(self) -> None:
            self.extractor.run(self.storage.step())

    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"image_path": photo, "caption": "a dog and a cat"}) + "\n")
    storage = FileStorage(str(path), str(tmp_path / "cache"))
    summary = Extraction(storage).run()
    [record] = storage.step().read("dict")
    expressions = record["expressions"]
    assert [bool(e["char_span"]) for e in expressions] == [True, False, False, True]
    assert [bool(e["caption_span"]) for e in expressions] == [True, True, False, False]
    notes = [line for line in str(summary).splitlines() if line.startswith("Note:")]
    assert notes == [
        "Note: 1 phrase that the caption doesn't have: kept, with char_span null",
        "Note: 1 phrase that the caption as given has, but not the cleaned one: kept, with char_span"
        " null",
    ]


def test_stated_sizes_lose_against_the_file(photo: str) -> None:
    for stated in (1920, "1920", None, [], 10**400):
        record = ExpressionExtractor(Answering('{"expressions": []}'))(
            {"image_path": photo, "caption": "x", "width": stated}
        )
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


def test_a_box_of_an_unknown_id_leaves_no_phrase_absent(photo: str) -> None:
    serving = Strange("a dog")
    found = grounded(serving, photo, ["a man", "an orange suit", "a flag"])
    assert [expression["status"] for expression in found] == ["grounded", "ambiguous", "grounded"]
    assert "id 99" in found[1]["reason"]
    assert len(serving.asked) == 1


def test_a_phrase_that_the_reply_denies_is_absent_whatever_other_boxes_it_has(photo: str) -> None:
    found = grounded(Strange("a dog", absent=True), photo, ["a man", "an orange suit", "a flag"])
    assert [expression["status"] for expression in found] == ["grounded", "none", "grounded"]
