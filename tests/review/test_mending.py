"""Mending in the review's page: wrong boxes are replaced, found again and counted as mended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.review_page import (
    OF_ANOTHER_PICTURE,
    RECORD,
    SINGLE,
    applied,
    boxes,
    decisions,
    drag,
    near,
    phrase,
    point,
    press,
    saved,
    seen,
    write,
)
from tests.support.reviewing import asked_for

pytestmark = pytest.mark.slow


def test_drawing_with_a_box_picked_replaces_it(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results, who="ann").address + SINGLE)
    drag(page, (250, 200), (390, 290))  # the first phrase's only box is picked
    saved(page)
    mug = applied(results)[0]["expressions"][0]
    assert near([[250, 200, 390, 290]], [box["bbox"] for box in mug["instances"]])
    assert (mug["instances"][0]["evidence"], mug["instances"][0]["score"]) == ("person", None)
    assert mug["verified"] is True
    page.keyboard.press("z")
    saved(page)
    assert applied(results) == [RECORD]
    page.keyboard.press("1")
    page.keyboard.press("b")  # a further one
    drag(page, (250, 200), (390, 290))
    saved(page)
    assert near([[40, 30.5, 200, 150], [250, 200, 390, 290]], boxes(applied(results)[0], 0))
    page.keyboard.down("Shift")  # inside of the picked one
    drag(page, (260, 210), (300, 250))
    page.keyboard.up("Shift")
    saved(page)
    assert near([[40, 30.5, 200, 150], [260, 210, 300, 250]], boxes(applied(results)[0], 0))
    press(page, *"22")  # the first of two dogs, in the place where it stands
    drag(page, (20, 200), (120, 290))
    saved(page)
    assert near([[20, 200, 120, 290], [260, 60, 300, 210]], boxes(applied(results)[0], 1))


def test_a_box_that_is_dragged_as_a_whole_is_judged_by_nothing_but_accept(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results, who="ann").address + SINGLE)
    page.keyboard.press("ArrowRight")
    saved(page)
    hint = page.locator("#hint").inner_text()
    assert " ".join(hint.split()) == "The moved box counts as right. Undo z"
    page.locator("#hint button").click()
    saved(page)
    assert applied(results) == [RECORD]
    before = len(decisions(results))
    page.mouse.move(*point(page, 120, 90))
    x, y = point(page, 120, 90)
    page.mouse.down()
    page.mouse.move(x + 5, y + 5)  # 7 pixels of the screen: a click with a shaking hand
    page.mouse.up()
    assert page.locator("#hint").inner_text() == ""
    drag(page, (120, 90), (150, 110))
    saved(page)
    hint = page.locator("#hint").inner_text()
    assert " ".join(hint.split()) == "Moved, not judged yet: a accepts it. Undo z"
    page.locator("li.picked .detail", has_text="moved, not judged").wait_for()
    assert len(decisions(results)) == before + 1
    [mug, *_] = applied(results)[0]["expressions"]
    assert near([[70, 50.5, 230, 170]], boxes(applied(results)[0], 0))
    [box] = mug["instances"]
    assert (box["evidence"], box.get("verified"), mug.get("verified")) == ("person", None, None)
    assert "reviewed_by" not in {**box, **mug}
    assert page.locator("#left").inner_text().startswith("3 of 3 boxes"), "it is still to decide"
    page.locator("#hint button").click()
    saved(page)
    assert applied(results) == [RECORD]
    drag(page, (120, 90), (150, 110))
    page.keyboard.press("a")
    saved(page)
    [mug, *_] = applied(results)[0]["expressions"]
    assert (mug["verified"], mug["reviewed_by"]) == (True, "ann")
    assert near([[70, 50.5, 230, 170]], boxes(applied(results)[0], 0))
    page.locator("#left", has_text="2 of 3 boxes").wait_for()


def test_a_box_can_be_hidden_and_locked(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results).address + SINGLE)
    drawn = page.locator(".stage .box")
    assert drawn.count() == 3
    page.keyboard.press("h")
    assert drawn.count() == 2
    hide, lock = page.locator("li.picked .switch").all()
    assert [switch.get_attribute("aria-pressed") for switch in (hide, lock)] == ["true", "false"]
    hide.click()
    assert drawn.count() == 3
    lock.click()
    drag(page, (120, 90), (150, 130))
    assert page.locator("#hint").inner_text() == "This box is locked: l unlocks it."
    for key in ("ArrowRight", "Delete"):
        page.keyboard.press(key)
        assert page.locator("#hint").inner_text() == "This box is locked: l unlocks it.", key
    assert page.locator("#saved").inner_text() == "all saved"
    assert decisions(results) == []
    page.keyboard.press("2")  # two dogs: all of their boxes
    page.keyboard.press("h")
    assert drawn.count() == 1
    page.mouse.click(*point(page, 235, 100))  # nothing is seen there, so that nothing is picked
    assert page.locator("li.picked .phrase").text_content() == "two dogs"
    press(page, "1", "l", "ArrowRight")
    saved(page)
    assert near([[41, 30.5, 201, 150]], boxes(applied(results)[0], 0))


def test_a_box_is_given_to_another_class_by_typing_a_part_of_it(
    tmp_path: Path, serve: Any, show: Any
) -> None:
    names = ["cat", "caterpillar", "dog", "hot dog", "tie"]
    rows = [{**phrase(name, n, caption=""), "class": name} for n, name in enumerate(names)]
    rows[0] = {**phrase("cat", 0, [10, 10, 60, 60], [80, 80, 120, 120], caption=""), "class": "cat"}
    folder = write(tmp_path / "out", {**RECORD, "caption": "", "expressions": rows})
    page = show(serve(folder, who="ann").address + SINGLE)
    press(page, *"1k")  # of the second box, as the first is picked already
    assert page.locator("#choose li").all_inner_texts() == names[1:]
    page.keyboard.type("do")
    assert page.locator("#choose li").all_inner_texts() == ["dog", "hot dog"]
    press(page, "ArrowDown", "ArrowUp", "Enter")
    saved(page)
    assert page.locator("li.picked .phrase").text_content() == "dog"
    [after] = applied(folder)
    assert boxes(after, 0) == [[10, 10, 60, 60]]
    assert boxes(after, 2) == [[80, 80, 120, 120]]
    dog = after["expressions"][2]
    assert (dog["status"], dog["verified"], dog["reviewed_by"]) == ("grounded", True, "ann")
    page.keyboard.press("z")
    saved(page)
    back = applied(folder)[0]["expressions"]
    assert [len(row["instances"]) for row in back] == [2, 0, 0, 0, 0]
    press(page, "k", "Escape")
    assert page.locator("#choose").is_hidden()


def letters(server: Any, place: int = 0) -> str:
    """What is decided of a record's items."""
    said: str = server.ask("index")["decided"].get(str(place), "")
    return said


def test_what_is_rejected_to_mend_or_mine_is_found_again(results: Path, serve: Any) -> None:
    write(results, RECORD, OF_ANOTHER_PICTURE)
    ann, bob = serve(results, who="ann"), serve(results, who="bob")
    ann.judge(1, True, False)
    bob.judge(0, False)
    bob.judge(0, True, place=1)
    assert [letters(ann), letters(ann, 1)] == ["mRM-", "r---"]
    assert [letters(bob), letters(bob, 1)] == ["Mrm-", "R---"]


DRAWN, ADDED = [10, 20, 30, 40], [50, 20, 70, 40]
MUG = [40.0, 30.5, 200.0, 150.0]
MENDED: dict[str, tuple[list[list[Any]], str]] = {
    "drawn in its place": ([[(DRAWN, 0, True)]], "R---"),
    "rejected, too": ([[(DRAWN, 0, True)], [(DRAWN, 0, False)]], "M---"),
    "a box added": ([[(MUG, 0, False)], [(MUG, 0, False), (ADDED, None, True)]], "W---"),
    "which is wrong, too": (
        [[(MUG, 0, False), (ADDED, None, True)], [(MUG, 0, False), (ADDED, 1, False)]],
        "M---",
    ),
}


@pytest.mark.parametrize(("steps", "left"), MENDED.values(), ids=MENDED)
def test_a_rejected_box_is_to_mend_until_a_right_one_was_drawn(
    results: Path, serve: Any, steps: list[list[Any]], left: str
) -> None:
    server = serve(results)
    for boxes_of_mug in steps:
        server.decide_on(0, *boxes_of_mug)
    assert letters(server) == left


def test_a_phrase_without_a_box_that_was_missed_is_to_mend(results: Path, serve: Any) -> None:
    server = serve(results)
    server.decide_on(2, verified=False)
    assert letters(server) == "---M"
    server.decide(asked_for(server.view(), "a#0", None))
    assert letters(server) == "g--M"
    # one of two boxes that were drawn for it is right
    server.decide_on(1, (DRAWN, None, True), (ADDED, None, True))
    server.decide_on(1, (DRAWN, 0, True), (ADDED, 1, False))
    assert letters(server) == "g--R"


def test_marked_in_the_grid_they_are_mended_one_by_one(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results).address)
    for cell in page.locator(".cell").all():
        cell.click()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Mend 3 rejected").wait_for()
    saved(page)
    # they are marked when they are shown again, and can be unmarked
    address = page.url.partition("#")[0]
    page.goto(f"{address}#of=rejected")
    page.reload()
    seen(page, 3)
    assert page.locator('.cell[aria-pressed="true"]').count() == 3
    before = len(decisions(results))
    page.locator(".cell", has_text="A red mug").click()
    page.keyboard.press("Enter")
    page.get_by_text("That was the last one.").wait_for()
    saved(page)
    assert len(decisions(results)) == before + 1, "what is as it was isn't said again"
    page.get_by_role("button", name="Mend 2 rejected").click()
    page.locator(".stage").wait_for()
    assert "of=mend" in page.url
    assert page.locator("#shown").inner_text().startswith("2 to mend")
    assert page.locator("#hint").inner_text().startswith("Drag in the picture to draw the right")
    for n in range(2):
        assert page.locator("li.picked .phrase").text_content() == "two dogs"
        drag(page, (10 + 100 * n, 215), (90 + 100 * n, 295))
        if n < 1:
            page.locator("#shown", has_text="1 to mend").wait_for()
        saved(page)
        page.keyboard.press("]")
    page.get_by_text("Nothing is left of what is shown here.").wait_for()
    rows = applied(results)[0]["expressions"]
    assert [row.get("verified") for row in rows] == [True, True, None]
    assert [len(row["instances"]) for row in rows] == [1, 2, 0]
