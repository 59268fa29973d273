"""Replies in every form that models write boxes in: whole, they are read to the last box; damaged, they
never have a box that nobody stated, and say which phrase has lost one.

`forms.jsonl` has made-up replies of `benchmarks/reply_forms.py`, which tells their boxes by a formula
and not by the package, and what the damages of `benchmarks/reply_damages.py` made of some. What is
read of each was right by these two when it was written down. Whoever mends a reader may read a
refused one: then its row changes. `python -m benchmarks.damaged_replies` reads a hundred thousand.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import dataflow_grounding.replies
from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.replies import Reading, read_boxes
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.reader import parse_reply

GRAMMAR = Path(dataflow_grounding.replies.__file__).with_name("grammar.yaml")
SIZE = (1280, 960)
Rows = list[dict[str, Any]]


@cache
def rows_of_forms() -> dict[str, Rows]:
    forms = defaultdict(list)
    with Path(__file__).with_name("forms.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            forms[row["form"]].append(row)
    return forms


def read(row: dict[str, Any]) -> Reading:
    phrases = {int(number): phrase for number, phrase in row["phrases"].items()}
    if row["form"] != "lines":
        return read_boxes(row["reply"], format=row["format"], image_size=SIZE, phrases=phrases)
    asked = find_box_format(row["format"], "")
    parsed = parse_reply(row["reply"], asked, phrases, in_lines=True)
    return to_reading(parsed, asked, SIZE, SIZE, phrases)


def outcome_of(row: dict[str, Any]) -> Any:
    """What is said of a reading in forms.jsonl; what isn't said there is empty or false."""
    try:
        reading = read(row)
    except TruncatedReply:
        return "cut off"
    except UnreadableReply:
        return "refused"
    told = {
        "boxes": sorted([box.id, *(round(edge, 3) for edge in box.bbox)] for box in reading.boxes),
        "unread": reading.unread,
        "unsure": sorted(reading.unsure),
        "notes": sorted({note.code for note in reading.notes}),
        "doubts": sorted(reading.doubts),
        "doubtful": reading.doubtful,
    }
    return {name: value for name, value in told.items() if value or name == "boxes"}


@pytest.mark.parametrize("form", rows_of_forms())
def test_a_reply_in_this_form_is_read_to_the_last_box_and_damaged_to_no_other(form: str) -> None:
    for row in rows_of_forms()[form]:
        assert outcome_of(row) == row["read"], (row["damage"], row["reply"])


@pytest.mark.parametrize("role", ["wrapper", "label", "box"])
def test_every_key_of_the_grammar_is_read(role: str) -> None:
    for key in yaml.safe_load(GRAMMAR.read_text("utf-8"))["keys"][role].split():
        item = {"label": "red cup", "bbox_2d": [10, 20, 300, 400]}
        if role != "wrapper":
            kind = "bbox_2d" if role == "box" else "label"
            item = {key if name == kind else name: value for name, value in item.items()}
        reply = json.dumps({key: [item]} if role == "wrapper" else [item])
        reading = read_boxes(
            reply, format="xyxy_1000", image_size=(1000, 1000), phrases=["red cup", "dog"]
        )
        assert [(box.id, box.bbox) for box in reading.boxes] == [(1, (10, 20, 300, 400))], reply
