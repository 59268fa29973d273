"""The picture of the rooms is what its script draws from the import contract, and shows them all."""

from __future__ import annotations

import runpy
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.workplace import REPOSITORY

PICTURE = REPOSITORY / "docs" / "pictures" / "architecture.svg"
TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(PICTURE.with_suffix(".py")))


def test_the_file_is_what_the_script_draws(script: dict[str, Any]) -> None:
    assert PICTURE.read_text(encoding="utf-8") == script["picture"]()
    assert PICTURE.stat().st_size < 20_000
    page = (REPOSITORY / "docs" / "reading.md").read_text(encoding="utf-8")
    assert "](pictures/architecture.svg)" in page


def test_every_room_is_in_it_from_top_to_bottom_and_fits(script: dict[str, Any]) -> None:
    layers = script["layers"]()
    rooms = [room for layer in layers for room in layer]
    assert (rooms[0], rooms[-1]) == ("cli", "_util")
    package = REPOSITORY / "dataflow_grounding"
    assert {path.parent.name for path in package.glob("*/__init__.py")} <= set(rooms)
    assert script["DOES"].keys() == set(rooms)
    shown = [text.text for text in ElementTree.parse(PICTURE).iter(TEXT)]
    assert [text for text in shown if text in rooms] == rooms
    for layer in layers:
        for room in layer:
            assert len(script["DOES"][room]) <= (80 if len(layer) == 1 else 36), room
