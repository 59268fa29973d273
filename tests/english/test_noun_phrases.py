"""The noun of a phrase."""

from __future__ import annotations

import pytest

from dataflow_grounding.english.noun_phrases import head_of


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("the two red mugs on the left", "mug"),
        ("a cup of tea", "cup"),
        ("A man wearing a hat", "man"),
        ("the damaged box on the bottom shelf", "box"),
        ("the dog that is not wearing a collar", "dog"),
        ("traffic light", "light"),
        ("a lot of cars", "car"),
        ("soda can", "can"),
        ("two church towers by a lake", "tower"),
        ("two dogs run", "dog"),
        ("three wine glasses", "glass"),
        ("a man with glasses", "man"),
        ("红色的杯子", "红色的杯子"),
        ("?", ""),
    ],
)
def test_heads(phrase: str, head: str) -> None:
    assert head_of(phrase) == head
