"""Stores of the older layout, a file a step: read, made into the one store, and what checks said of their lines holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workplace import Workplace, command
from dataflow_grounding.engine.vouching import MARK
from dataflow_grounding.testing import EchoAnswers, LoopbackServer

COUNT = 6


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(COUNT)
    workplace.settings |= {"vlm.check_every": 100, "vlm.box_format": "xyxy_1000"}
    return workplace


def run(place: Workplace, server: LoopbackServer) -> int:
    return place.run(**{"vlm.openai.base_url": server.base_url}).code


def older(place: Workplace, folders: bool, **spans: Any) -> list[Path]:
    """Write the replies as earlier versions did; `spans` is what a check said of the lines of the grounding step."""
    lines = [json.loads(line) for line in place.replies.read_text().splitlines()]
    written = []
    for folder in ("step_0_expression_extraction", "step_1_grounding"):
        label = folder.replace("_", "", 1)
        mine = [line for line in lines if line.get("step") == label and line["task"] != "check"]
        of = next((line["of"] for line in mine if "of" in line), "")
        kept = [{name: value for name, value in line.items() if name not in ("step", "of")} for line in mine]
        if of and spans:
            kept.append(
                {"key": MARK, "task": "check", "verdict": "x", "checks": {of: {"open": [], "void": [], **spans}}}
            )
        name = f"{label}.replies.jsonl"
        path = place.results / folder / ".ckpt" / "replies.jsonl" if folders else place.results / ".ckpt" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        written.append(path)
    place.replies.unlink()
    (place.results / ".ckpt" / "finished.json").unlink()
    return written


@pytest.mark.parametrize("folders", [True, False], ids=["results_dir", "by hand"])
def test_the_older_layout_costs_nothing_and_stays(place: Workplace, folders: bool) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        assert run(place, server) == 0
        before, sent = place.files(), server.count()
        files = older(place, folders)
        kept = [path.read_bytes() for path in files]
        place.settings["vlm.openai.base_url"] = server.base_url
        told = command(["estimate", "-e", str(place.spec()), "--json"]).summary
        paid = command(["cost", str(place.results), "--json"]).summary
        assert (told["requests"], paid["requests"]) == (0, 2 * COUNT)
        assert not place.replies.exists(), "who only reads writes nothing"
        assert run(place, server) == 0
        assert (server.count(), place.files()) == (sent, before)
        assert [path.read_bytes() for path in files] == kept
        assert len(place.replies.read_text().splitlines()) == 2 * COUNT


@pytest.mark.parametrize(("said", "boxes"), [("void", COUNT), ("open", 0)])
def test_what_checks_said_of_its_lines_holds(place: Workplace, said: str, boxes: int) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        assert run(place, server) == 0
        older(place, True, **{said: [[0, None]]})
        sent = server.count()
        assert run(place, server) == 0
        assert server.count() - sent == boxes + 1, (
            "a check, and what is set aside is asked again; the other step's is not"
        )


def test_an_estimate_touches_no_store_not_even_a_line_that_is_being_written(place: Workplace) -> None:
    with LoopbackServer(EchoAnswers("xyxy_1000")) as server:
        place.settings["vlm.openai.base_url"] = server.base_url
        before = command(["estimate", "-e", str(place.spec()), "--json"]).summary
        assert (before["stored"], place.replies.parent.exists()) == (0, False)
        assert run(place, server) == 0
        with place.replies.open("ab") as store:
            store.write(b'{"key": "0123')
        held = place.replies.read_bytes()
        after = command(["estimate", "-e", str(place.spec()), "--json"]).summary
    assert (after["requests"], after["stored"]) == (0, 2 * COUNT)
    assert place.replies.read_bytes() == held
