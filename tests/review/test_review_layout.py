"""How the review's page is laid out, and that nothing on it moves under the pointer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.review.test_review import (
    RECORD,
    SINGLE,
    applied,
    decisions,
    drag,
    grid,
    phrase,
    results,
    saved,
    serve,
    show,
    version,
    write,
)
from tests.review.test_review_page import seen

pytestmark = pytest.mark.slow

assert all((results, serve, show))  # fixtures
PLACES = """() => [...document.querySelectorAll(
    "#wanted, #progress, .stage, .toolbar, .cell, .expressions li, textarea")].map((element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return [element.localName, ...[x, y, width, height].map(Math.round)].join(" ");
})"""


def test_nothing_moves_when_hints_errors_and_verdicts_come(
    results: Path, serve: Any, show: Any
) -> None:
    server, other = serve(results, who="bob"), serve(results, who="ann")
    page = show(server.address + SINGLE, viewport={"width": 400, "height": 900})
    assert page.locator(".stage").bounding_box()["y"] <= 230, "little is above the picture"
    before = page.evaluate(PLACES)
    for key in ("f", "n", "Escape", "Escape", "b"):  # each with a hint of its own
        page.keyboard.press(key)
        assert page.evaluate(PLACES) == before
    assert page.locator("#hint").inner_text().startswith("Pick a phrase first")
    page.keyboard.press("2")
    page.keyboard.press("a")  # a verdict in the list, the next item
    saved(page)
    assert page.locator(".verdict").count() == 1
    assert page.evaluate(PLACES) == before
    change = {"status": "none", "instances": []}
    assert not other.decide({"id": "a#0", "version": version(other, 0), "after": change})["error"]
    page.keyboard.press("1")
    page.keyboard.press("x")
    page.locator("#refused", has_text="Not taken").wait_for()
    assert page.evaluate(PLACES) == before
    assert page.problems == []
    server.kill()
    for key in ("c", "!", "Escape"):  # a comment that can't be sent
        page.keyboard.press(key)
    page.get_by_text("The server doesn't answer").wait_for()
    assert page.locator("#download").is_visible()
    page.evaluate("scrollTo(0, 0)")  # from the comment
    assert page.evaluate(PLACES) == before


def test_nothing_moves_in_the_grid_when_boxes_are_marked(
    results: Path, serve: Any, show: Any
) -> None:
    grid(results, 12)
    page = show(serve(results).address)
    before = page.evaluate(PLACES)
    page.locator(".cell").nth(2).click()
    page.keyboard.type("04")
    assert page.locator('.cell[aria-pressed="true"]').count() == 2
    assert page.evaluate(PLACES) == before


def test_hints_are_not_in_the_colour_of_errors(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results).address + SINGLE)
    page.keyboard.press("f")
    color = "element => getComputedStyle(element).color"
    assert "outermost points" in page.locator("#hint").inner_text()
    assert page.locator("#refused").inner_text() == ""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        hint = page.locator("#hint").evaluate(color)
        assert hint != page.locator("#refused").evaluate(color)
        assert hint == page.locator("body").evaluate(color)


def test_two_buttons_choose_the_view_and_the_order_is_named(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results).address)
    order = page.get_by_label("Order")
    names = [name.strip() for name in order.locator("option:not([hidden])").all_inner_texts()]
    assert names[:2] == ["as written", "most doubtful first"]
    assert order.input_value() == "doubt"
    for label in ("Contains", "Class or noun"):
        assert page.get_by_label(label).is_visible()
    grid_button = page.get_by_role("button", name="Grid", exact=True)
    other = page.get_by_role("button", name="One by one", exact=True)
    for button, shown in ((other, ".stage"), (grid_button, ".cells"), (other, ".stage")):
        button.click()
        page.locator(shown).wait_for()
        pressed = page.locator('#ways [aria-pressed="true"]').all_inner_texts()
        assert pressed == [button.inner_text()]
    page.keyboard.press("a")  # keys are the page's again
    saved(page)
    assert [line["action"] for line in decisions(results)] == ["accept"]
    other = show(serve(results, order="file").address)
    assert other.get_by_label("Order").input_value() == "file"


def test_phrases_without_boxes_are_confirmed_many_at_a_time(
    results: Path, serve: Any, show: Any
) -> None:
    rows = [phrase(f"cat {n}", n, caption="") for n in range(12)]
    for row, status in zip(rows[5:], ["pending", "ambiguous", "unsupported"], strict=False):
        row["status"] = status
    write(results, {**RECORD, "expressions": rows})
    page = show(serve(results).address)
    page.get_by_role("button", name="Look at 12 phrases without a box").click()
    seen(page, 12)
    open_ones = page.locator(".cell .open").all_inner_texts()
    assert sorted(open_ones) == ["ambiguous", "pending", "unsupported"]
    page.keyboard.type("03")
    marked = page.locator(".cell .phrase").nth(2).inner_text().split(" ", 1)[1]
    page.get_by_role("button", name="Confirm the rest").click()
    page.get_by_text("Nothing is left").wait_for()
    saved(page)
    done = applied(results)[0]["expressions"]
    assert [row["text"] for row in done if row["verified"] is not True] == [marked]
    # who confirms a phrase without a box says that it isn't there
    assert {row["status"] for row in done} == {"none"}, "a person looked for the pending one"
    assert page.problems == []


def test_three_buttons_are_always_there_and_the_others_are_in_a_menu(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results).address + SINGLE)
    names = [
        re.split(r"\s", name)[0]
        for name in page.locator(".toolbar button:visible").all_inner_texts()
    ]
    assert names == ["Accept", "Reject", "Next"]
    menu = page.locator(".menu summary")
    menu.focus()
    page.keyboard.press("Enter")
    assert page.locator(".menu button:visible").count() >= 12
    page.keyboard.press("Escape")
    assert page.locator(".menu button:visible").count() == 0
    menu.click()
    page.get_by_role("button", name="Not in the picture").click()
    saved(page)
    assert applied(results)[0]["expressions"][0]["status"] == "none"
    menu.click()
    page.get_by_role("button", name="Undo").click()
    saved(page)
    assert applied(results) == [RECORD]
    assert page.problems == []


def test_on_a_small_screen_the_buttons_stick_to_the_bottom(
    results: Path, serve: Any, show: Any
) -> None:
    grid(results, 30)
    page = show(serve(results).address, viewport={"width": 400, "height": 800})
    for view, name in (("One by one", "Accept"), ("Grid", "Accept the rest")):
        page.get_by_role("button", name=view, exact=True).click()
        button = page.get_by_role("button", name=name)
        button.wait_for()
        for far in (0, 300, 100_000):
            page.evaluate("far => scrollTo(0, far)", far)
            box = button.bounding_box()
            assert 700 < box["y"] + box["height"] <= 800
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_screen_reader_is_told_what_changed(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results).address + SINGLE)
    log = page.get_by_role("log")
    assert log.inner_text().strip().endswith("A red mug, box 1 of 1")
    page.keyboard.press("a")
    assert log.inner_text().split("\n")[-1] == "two dogs, box 1 of 2"
    assert "Accepted" in log.inner_text()
    drag(page, (10, 10), (200, 50))
    assert log.inner_text().strip().endswith("Box replaced")
    page.keyboard.press("z")
    assert "Undone" in log.inner_text()
    page.get_by_role("button", name="Grid", exact=True).click()
    page.locator(".cells").wait_for()
    page.keyboard.type("1")
    assert log.inner_text().strip().endswith("1 marked as wrong")


def test_boxes_have_their_phrases_numbers_as_large_however_far_one_zooms(
    results: Path, serve: Any, show: Any, expect: Any
) -> None:
    page = show(serve(results).address + SINGLE, viewport={"width": 400, "height": 900})
    numbers = page.locator(".stage .number")
    badges = page.locator(".expressions li:not(.grey) .badge")
    assert set(numbers.all_text_contents()) == set(badges.all_text_contents()) != set()

    def height() -> float:
        return float(numbers.first.evaluate("e => e.getBBox().height * e.getScreenCTM().a"))

    expect(page.locator(".stage")).to_have_attribute("style", re.compile("--px"))
    before = height()
    assert 12 <= before <= 24
    for _ in range(5):
        page.keyboard.press("+")
    assert height() == pytest.approx(before, rel=0.05)
    page.set_viewport_size({"width": 1400, "height": 500})
    page.wait_for_timeout(200)  # the observer of its size is told with the next frame
    assert height() == pytest.approx(before, rel=0.05)
    assert page.locator(".stage").bounding_box()["y"] <= 230, "little is above the picture"


def test_a_message_on_a_small_screen_takes_no_room_of_its_own(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results).address, viewport={"width": 400, "height": 900})
    heading = page.locator("main h2")
    amounts = page.locator(".progress").bounding_box()
    before = heading.bounding_box()
    assert before["y"] <= amounts["y"] + amounts["height"] + 24
    page.keyboard.press("m")
    hint = page.get_by_text("Mark a box first")
    hint.wait_for()
    said = hint.bounding_box()
    assert said["y"] + said["height"] <= amounts["y"] + amounts["height"]
    assert heading.bounding_box() == before


def test_classes_are_chosen_from_a_list_with_how_many_boxes_each_has(
    tmp_path: Path, serve: Any, show: Any
) -> None:
    record = {
        **RECORD,
        "expressions": [
            phrase("A red mug", 0, [40, 30, 200, 150], **{"class": "mug"}),
            phrase("two dogs", 1, [220, 60, 250, 200], [260, 60, 300, 210], **{"class": "Dog"}),
        ],
    }
    folder = write(tmp_path / "out", record)
    (folder / "classes.txt").write_text("dog\nmug\ncat\n")
    page = show(serve(folder).address)
    choice = page.locator("select[name=head]")
    assert choice.locator("option").all_inner_texts() == ["any", "dog (2)", "mug (1)", "cat (0)"]
    choice.select_option("dog")
    page.locator(".cell", has_text="red mug").wait_for(state="detached")
    assert page.locator(".cell").count() == 2
    assert "head=dog" in page.url
