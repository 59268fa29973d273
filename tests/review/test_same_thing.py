"""A thing that several phrases of a class have a box of is shown once in a review, and judged once:
each of its boxes gets the verdict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.review_page import applied, drag, near, run, saved, seen, write
from tests.support.reviewing import items

pytestmark = pytest.mark.slow


def phrase(number: int, text: str, *boxes: list[Any]) -> dict[str, Any]:
    """A phrase of the class "person"; of each box its corners and its score."""
    instances = []
    for n, (*box, score) in enumerate(boxes):
        instances.append({"bbox_id": f"a#{number}.{n}", "bbox": box, "score": score})
    row = {"expression_id": f"a#{number}", "text": text, "class": "person"}
    return {**row, "status": "grounded", "instances": instances}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A picture with two persons: both phrases have one of them, "a person" has the other, too."""
    return with_phrases(
        tmp_path,
        phrase(0, "a person", [10, 10, 110, 210, 0.7], [200, 10, 300, 210, 0.9]),
        phrase(1, "a human", [11, 10, 110, 210, 0.8]),
    )


def with_phrases(folder: Path, *phrases: dict[str, Any]) -> Path:
    return write(folder, {"image_id": "a", "image_path": "a.png", "expressions": phrases})


def verdicts(results: Path) -> dict[str, list[Any]]:
    """By phrase the verdicts on its boxes, as `apply` writes them."""
    [record] = applied(results)
    rows = record["expressions"]
    return {row["text"]: [box.get("verified") for box in row["instances"]] for row in rows}


def test_boxes_of_one_thing_are_one_item_which_names_its_phrases(
    results: Path, serve: Any, show: Any
) -> None:
    server = serve(results, who="ann")
    asked = [(item.id, item.box) for item in items(server.session)]
    assert asked == [("a#0", 1), ("a#1", 0)]
    page = show(server.address + "#view=single")
    for words in ("person", "human"):  # either phrase finds it
        page.goto(f"{server.address}#view=single&order=file&q={words}")
        page.reload()
        if words == "person":
            page.locator("li.picked", has_text="a person").wait_for()
            page.keyboard.press("]")
        page.locator("#hint", has_text="One thing with a box of “a person”").wait_for()
    view = server.view()
    also = [[[*map(tuple, box["also"])] for box in e["instances"]] for e in view["expressions"]]
    assert also == [[[("a#1", 0)], []], [[("a#0", 0)]]]
    acts = [
        {"id": e["id"], "box": e["instances"][0]["bbox"], "right": False}
        for e in view["expressions"]
    ]
    versions = {e["id"]: e["version"] for e in view["expressions"]}
    assert not server.decide(acts=acts, versions=versions)["error"]
    assert [item.letter for item in items(server.session)] == ["-", "M"]
    assert verdicts(results) == {"a person": [False, None], "a human": [False]}


def test_how_many_boxes_are_shown_with_another_is_told(results: Path, serve: Any) -> None:
    taken = serve(results).origin.rsplit(":", 1)[1]
    told = run("review", results, "--no-open", "--port", taken, code=2)
    assert "1 box on a thing that another box of its class has: shown and judged with" in told


def test_a_sample_and_its_certificate_count_things(results: Path, serve: Any) -> None:
    server = serve(results, sample=(9, 0))
    asked = {(item.id, item.box) for item in items(server.session)}
    assert asked == {("a#0", 1), ("a#1", 0)}
    certificate = json.loads(run("certify", results, "--json"))
    assert (certificate["boxes"]["of"], certificate["phrases_missed"]["phrases"]) == (2, 2)


def test_what_is_done_to_a_box_is_done_to_each_of_its_thing(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results, who="ann").address)
    seen(page, 2)
    texts = page.locator(".cell .phrase").all_inner_texts()
    assert sorted(text.split(" ", 1)[1] for text in texts) == ["a human, a person", "a person"]
    page.locator(".cell", has_text="a human").click()
    page.keyboard.press("Enter")
    saved(page)
    assert verdicts(results) == {"a person": [False, True], "a human": [False]}
    page.keyboard.press("z")
    saved(page)
    assert verdicts(results) == {"a person": [None, None], "a human": [None]}
    seen(page, 2)
    page.get_by_role("link", name="One by one").click()
    page.locator("#hint", has_text="One thing with a box of “a person”").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("a")
    saved(page)
    assert verdicts(results) == {"a person": [True, None], "a human": [True]}
    page.keyboard.press("2")
    drag(page, (210, 220), (290, 290))
    saved(page)
    [record] = applied(results)
    drawn = [row["instances"][0]["bbox"] for row in record["expressions"]]
    assert near([[210, 220, 290, 290]] * 2, drawn)
    assert verdicts(results) == {"a person": [True, None], "a human": [True]}
    page.keyboard.press("m")
    saved(page)
    [record] = applied(results)
    left = [(len(row["instances"]), row["status"]) for row in record["expressions"]]
    assert left == [(1, "grounded"), (0, "none")]


def test_a_thing_is_shown_until_all_its_boxes_are_judged(tmp_path: Path, serve: Any) -> None:
    """A phrase that came later has a box of a thing that was judged before."""
    human = phrase(0, "a human", [11, 10, 110, 210, 0.8])
    server = serve(with_phrases(tmp_path, human), who="ann")
    server.judge(0, False)
    server.kill()
    with_phrases(tmp_path, human, phrase(1, "a person", [10, 10, 110, 210, 0.7]))
    assert [item.letter for item in items(serve(tmp_path, who="ann").session)] == ["-"]


def test_two_things_that_share_a_phrase_are_judged_on_one_page(
    tmp_path: Path, serve: Any, show: Any
) -> None:
    left, right = [10, 10, 110, 210], [200, 10, 300, 210]
    both = phrase(0, "a person", [*left, 0.5], [*right, 0.5])
    single = phrase(1, "a man", [*left, 0.9]), phrase(2, "a woman", [*right, 0.9])
    folder = with_phrases(tmp_path, both, *single)
    page = show(serve(folder).address)
    seen(page, 2)
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left to decide here.").wait_for()
    assert page.locator("#refused").inner_text() == ""
    assert verdicts(folder) == {"a person": [True, True], "a man": [True], "a woman": [True]}
