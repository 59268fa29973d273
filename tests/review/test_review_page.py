"""What a person does on the page of a review, and what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.review_page import (
    OF_ANOTHER_PICTURE,
    RECORD,
    SINGLE,
    TALL,
    applied,
    decisions,
    drag,
    grid,
    near,
    phrase,
    point,
    press,
    saved,
    seen,
    write,
)

pytestmark = pytest.mark.slow

ENTER_AT_ONCE = """window.eager = new MutationObserver(() => document.body.dispatchEvent(
    new KeyboardEvent("keydown", {key: "Enter", bubbles: true})));
    eager.observe(main, {childList: true})"""


def named(page: Any, cells: str) -> list[str]:
    """The phrases of these cells."""
    texts: list[str] = page.locator(f"{cells} .phrase").all_inner_texts()
    return [text.split(" ", 1)[1] for text in texts]


def pressed(page: Any) -> list[str]:
    """The phrases of the cells that are marked as wrong."""
    return named(page, '.cell[aria-pressed="true"]')


def absent(page: Any) -> list[str]:
    """The phrases of the cells that are marked as nowhere in their picture."""
    return named(page, ".cell:has(.absent)")


def one_by_one(page: Any) -> None:
    page.get_by_role("link", name="One by one").click()


def end(page: Any) -> None:
    """Wait until nothing is left, and all is saved."""
    page.get_by_text("Nothing is left").first.wait_for()
    saved(page)


def search(page: Any, text: str) -> None:
    page.locator("[name=q]").fill(text)
    page.locator("[name=q]").press("Tab")


def blur(page: Any) -> None:
    page.evaluate("document.activeElement.blur()")


def rows_of(results: Path, record: int = 0) -> Any:
    """The expressions of a record, as `apply` writes them."""
    return applied(results)[record]["expressions"]


def test_no_page_of_the_grid_is_accepted_unseen_and_each_is_taken_back_whole(
    results: Path, serve: Any, show: Any
) -> None:
    grid(results, 63)
    page = show(serve(results).address, viewport=TALL, hurried=False)
    sent: list[str] = []
    page.on("request", lambda asked: asked.method == "POST" and sent.append(asked.url))
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")  # on a cell, it marks it
    assert len(pressed(page)) == 1
    page.keyboard.press("Enter")
    assert pressed(page) == []
    page.evaluate(ENTER_AT_ONCE)
    page.evaluate("document.querySelector('.cells').id = 'before'")
    page.locator("[name=high]").fill("1")
    page.locator("[name=high]").press("Tab")
    page.locator("#before").wait_for(state="detached")
    blur(page)
    seen(page, 60)
    assert not (results / "reviews.jsonl").exists()
    for _ in range(5):  # held down
        page.keyboard.down("Enter")
    seen(page, 3)
    saved(page)
    assert len(decisions(results)) == 60
    assert len(sent) == 1, "a page of boxes of one record is one request"
    page.keyboard.up("Enter")
    page.evaluate("eager.disconnect()")
    page.keyboard.press("Enter")
    end(page)
    assert len(decisions(results)) == 63
    page.keyboard.press("z")
    seen(page, 3)
    page.get_by_role("button", name="Undo").click()
    seen(page, 60)
    saved(page)
    assert (len(decisions(results)), len(sent)) == (126, 4)
    assert rows_of(results)[0].get("verified") is None


def test_what_was_never_on_the_screen_is_shown_before_the_rest_is_accepted(
    results: Path, serve: Any, show: Any, expect: Any
) -> None:
    grid(results, 90)
    page = show(serve(results).address, viewport={"width": 1280, "height": 600})
    sent: list[Any] = []
    page.on("request", lambda asked: asked.method == "POST" and sent.append(asked))
    expect(page.locator(".toolbar")).to_contain_text("of the page still to be seen")
    tops = set()
    while not sent:
        tops.add(page.evaluate("scrollY"))
        page.keyboard.press("Enter")
        page.locator(".cells:not([aria-busy])").wait_for()
    assert len(tops) > 2
    seen(page, 30)
    saved(page)
    assert len(decisions(results)) == 60
    assert page.evaluate("scrollY") == 0  # the next page begins at its top


def test_what_is_refused_of_a_page_of_the_grid_stays_and_is_shown_again(
    results: Path, serve: Any, show: Any
) -> None:
    grid(results, 12)
    first, second = serve(results, who="ann"), serve(results, who="bob")
    page = show(second.address)
    for number in (0, 1):
        first.judge(number, False)
    for name in ("dog 1", "dog 5"):
        page.locator(".cell", has_text=re.compile(f" {name}$")).click()
    page.keyboard.press("Enter")
    seen(page, 2)
    assert pressed(page) == ["dog 1"]
    said = page.locator("#refused").inner_text()
    assert "dog 0: ann changed it meanwhile; dog 1: ann changed it meanwhile" in said
    assert page.locator("#saved").inner_text() == "all saved but 2"
    lines = decisions(results)
    assert [line["who"] for line in lines] == ["ann"] * 2 + ["bob"] * 10
    page.keyboard.press("Enter")
    end(page)
    assert page.locator("#refused").inner_text() == ""
    assert [n for n, row in enumerate(rows_of(results)) if not row["verified"]] == [1, 5]


def test_what_can_not_be_seen_says_so_and_is_not_accepted_with_the_rest(
    results: Path, serve: Any, show: Any
) -> None:
    Image.effect_noise((400, 300), 60).save(results / "cut.jpg")
    (results / "cut.jpg").write_bytes((results / "cut.jpg").read_bytes()[:5_000])
    rows = [phrase("dog", 0, [20, 20, 60, 60], caption="")]
    told = {
        "a.png": "",
        "gone.png": "The image file is not there.",
        "lost.png": "The image file is not there.",
        "cut.jpg": "The picture can't be shown.",
    }
    names = [{"image_id": name, "image_path": name, "expressions": rows} for name in told]
    write(results, *({**RECORD, **own} for own in names))
    page = show(serve(results).address + "#order=file", may_fail=True)
    assert page.locator(".crop").all_inner_texts() == [*told.values()]
    page.locator(".cell").nth(1).click()  # marked as wrong all the same
    for _ in range(2):  # what can't be seen stays, however often
        page.keyboard.press("Enter")
        seen(page, 2)
        assert "What can't be seen isn't accepted" in page.locator("#hint").inner_text()
    saved(page)
    verdicts = [record["expressions"][0].get("verified") for record in applied(results)]
    assert verdicts == [True, False, None, None]
    page.keyboard.press("z")
    seen(page, 4)
    page.goto(page.url.partition("#")[0] + SINGLE + "&q=dog")
    for text in told.values():
        page.locator("figure", has_text=text).wait_for()
        page.keyboard.press("]")


def test_while_the_next_records_are_on_their_way_no_key_decides_on_what_is_gone(
    results: Path, serve: Any, show: Any
) -> None:
    rows = [phrase("dog", 0, [20, 20, 160, 160], caption="")]
    names = [f"{n}.png" for n in range(21)]
    write(
        results, *({**RECORD, "image_id": n, "image_path": n, "expressions": rows} for n in names)
    )
    page = show(serve(results).address + SINGLE)
    page.route("**/records*", lambda route: None)
    picked, shown = page.locator("article h2"), []
    for _ in range(20):
        shown.append(picked.text_content())
        page.keyboard.press("]")
    press(page, "a", "1", "m", "ArrowRight", "Escape", "c", "n")
    drag(page, (100, 100), (200, 200))
    page.unroute("**/records*")  # they go on
    page.locator("#main:not([inert])").wait_for()
    assert picked.text_content() not in shown
    page.keyboard.press("a")
    saved(page)
    [line] = decisions(results)
    assert line["record"] not in shown


def test_marks_of_the_grid_outlast_other_views_and_are_told(
    results: Path, serve: Any, show: Any
) -> None:
    grid(results, 12)
    page = show(serve(results).address)
    seen(page, 12)
    press(page, *"0903m")
    marked, gone = pressed(page), absent(page)
    assert (len(marked), len(gone)) == (2, 1)
    assert page.locator("#saved").inner_text() == "2 marks unsaved"
    search(page, "dog 1")
    page.locator(".cells:not(:has(.cell:nth-child(5)))").wait_for()
    search(page, "")
    seen(page, 12)
    assert (pressed(page), absent(page)) == (marked, gone)
    # what is decided one by one meanwhile counts in place of a mark
    one_by_one(page)
    page.locator("li.picked").wait_for()
    assert page.locator("#saved").inner_text() == "2 marks unsaved"
    blur(page)
    [rejected] = set(marked) - set(gone)
    page.keyboard.type(str(int(rejected.removeprefix("dog ")) + 1))
    page.locator("li.picked", has_text=rejected).wait_for()
    page.keyboard.press("a")
    page.locator("#saved", has_text="1 mark unsaved").wait_for()
    page.get_by_role("link", name="Grid").click()
    seen(page, 11)
    assert pressed(page) == gone
    blur(page)
    page.keyboard.press("Enter")
    end(page)
    rows = rows_of(results)
    assert [row["text"] for row in rows if row["status"] == "none"] == gone
    assert all(row["verified"] for row in rows)


def test_the_end_of_the_grid_says_how_to_go_on(results: Path, serve: Any, show: Any) -> None:
    rows = [phrase("a mug", 0, [10, 10, 60, 60]), phrase("a spoon", 1)]
    write(results, {**RECORD, "expressions": rows})
    page = show(serve(results).address)
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left that has a box.").wait_for()
    page.locator("code", has_text="dataflowgrounding apply").wait_for()
    page.get_by_role("button", name="Look at 1 phrase without a box").click()
    seen(page, 1)
    one_by_one(page)
    page.locator("li.picked", has_text="a spoon").wait_for()
    page = show(serve(write(results.parent / "other", RECORD), sample=(1, 0)).address)
    assert not page.get_by_label("Order").is_visible(), "a sample has its own"
    page.keyboard.press("Enter")
    page.locator("code", has_text="dataflowgrounding certify").wait_for()


def test_a_box_that_is_deleted_hides_none_of_the_others(
    results: Path, serve: Any, show: Any
) -> None:
    dogs = phrase("two dogs", 1, [220, 60, 250, 200], [260, 60, 300, 210])
    dogs["instances"][1]["score"] = 0.3
    write(results, {**RECORD, "expressions": [RECORD["expressions"][0], dogs]})  # type: ignore[index]
    page = show(serve(results).address + SINGLE + "&high=0.5")  # the second dog alone
    press(page, "2", "Delete")  # the box after the picked one: the first
    saved(page)
    page.get_by_role("link", name="Grid").click()
    seen(page, 1)
    page.locator(".cell", has_text="two dogs").click()
    page.keyboard.press("Enter")
    end(page)
    mug, dogs = rows_of(results)
    assert "verified" not in mug
    [dog] = dogs["instances"]
    assert (dog["bbox"], dog["verified"]) == ([260, 60, 300, 210], False)


def test_the_grid_has_a_key_for_what_is_not_in_the_picture(
    results: Path, serve: Any, show: Any
) -> None:
    cup = phrase("a cup", 0, [10, 10, 60, 60], [70, 10, 120, 60], caption="")
    mug = phrase("a mug", 1, [10, 70, 60, 120], caption="")
    dog = phrase("a dog", 2, [70, 70, 120, 120], caption="")
    write(results, {**RECORD, "expressions": [cup, mug, dog]})
    page = show(serve(results, who="ann").address)
    seen(page, 4)
    page.keyboard.press("m")
    assert "Mark a box first" in page.locator("#hint").inner_text()
    page.locator(".cell", has_text="a cup").first.click()
    page.keyboard.press("m")
    assert absent(page) == ["a cup", "a cup"], "it is said of the phrase"
    page.keyboard.press("m")
    assert (absent(page), pressed(page)) == ([], ["a cup", "a cup"])
    page.get_by_role("button", name="Not in the picture").click()
    page.locator(".cell", has_text="a mug").click()
    page.keyboard.press("Enter")
    end(page)
    cup, mug, dog = rows_of(results)
    told = (cup["status"], cup["instances"], cup["verified"], cup["reviewed_by"])
    assert told == ("none", [], True, "ann")
    assert (mug["status"], mug["verified"], dog["verified"]) == ("grounded", False, True)
    page.keyboard.press("z")
    seen(page, 4)
    saved(page)
    assert [len(row["instances"]) for row in rows_of(results)] == [2, 1, 1]
    page.reload()  # a phrase with a right box is in the picture, whatever is marked
    seen(page, 4)
    page.locator(".cell", has_text="a cup").first.click()
    page.keyboard.press("m")
    page.locator(".cell", has_text="a cup").last.click()  # this one is right after all
    page.keyboard.press("Enter")
    page.locator("#hint", has_text="a cup” has other boxes in its picture").wait_for()
    saved(page)
    cup = rows_of(results)[0]
    each = [box["verified"] for box in cup["instances"]]
    assert (cup["status"], cup["verified"], each) == ("grounded", False, [False, True])


def test_what_the_server_can_not_write_is_told_and_an_error_of_the_page_is_its_own(
    results: Path, serve: Any, show: Any
) -> None:
    page = show(serve(results).address + SINGLE, may_fail=True)
    (results / "reviews.jsonl").mkdir()
    page.keyboard.press("a")
    page.locator("#refused", has_text="Not saved: ").wait_for()
    assert "reviews.jsonl" in page.locator("#refused").inner_text()
    assert page.locator("#saved").inner_text() == "1 not saved yet"
    (results / "reviews.jsonl").rmdir()
    saved(page)
    assert page.locator("#refused").inner_text() == ""
    assert rows_of(results)[0]["verified"] is True
    page.evaluate("() => { recordPage.rowOf = () => { throw new Error('a bug'); }; }")
    page.keyboard.press("ArrowRight")
    saved(page)
    assert page.locator("#refused").inner_text().startswith("This page failed: a bug")
    assert len(decisions(results)) == 2


def test_filters_stand_in_the_address(results: Path, serve: Any, show: Any) -> None:
    rows = [
        phrase("A red mug", 0, [40, 30, 200, 150], **{"class": "mug"}),
        phrase("two dogs", 1, [220, 60, 250, 200], [260, 60, 300, 210], **{"class": "Dog"}),
        phrase("grass", 2),
    ]
    first = {**RECORD, "image_id": "rec-1", "expressions": rows}
    write(results, first, {**OF_ANOTHER_PICTURE, "image_id": "rec-2", "expressions": rows})
    (results / "classes.txt").write_text("dog\nmug\ncat\n")
    page = show(serve(results).address)
    seen(page, 6)
    assert page.get_by_label("Order").input_value() == ""
    classes = page.locator(".labels li:not(:first-child)").all_inner_texts()
    assert [text.split() for text in classes] == [
        ["dog", "4"],
        ["mug", "2"],
        ["grass", "0"],
        ["cat", "0"],
    ]
    page.locator(".labels a", has_text="mug").click()
    seen(page, 2)
    assert "head=mug" in page.url
    assert page.locator("#head").inner_text().startswith("mug: ")
    page.locator(".labels a", has_text="all").click()
    one_by_one(page)
    wanted = page.get_by_label("Contains")
    for words, found in (("B.PNG", "rec-2"), ("a.p", "rec-1"), ("REC-2", "rec-2")):
        wanted.fill(words)
        page.locator("h2", has_text=found).wait_for()
    wanted.press("Escape")
    press(page, "Escape", "Escape", "a")  # all of it
    page.get_by_text("Nothing is left of what is shown here.").wait_for()
    saved(page)
    page.get_by_label("Show").select_option("all")
    page.locator("h2", has_text="rec-2").wait_for()
    page.reload()
    page.locator("h2", has_text="rec-2").wait_for()
    assert page.locator("#shown").inner_text().startswith("4 in all")
    wanted.fill("rec-3")
    page.get_by_text("Nothing is left of what is shown here.").wait_for()
    page.get_by_role("link", name="Clear filters").click()
    search(page, "GRASS")
    page.locator("li.picked", has_text="grass").wait_for()
    assert "q=GRASS" in page.url


def test_keys_on_a_single_record_do_what_they_say(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results, who="ann").address + SINGLE)
    log = page.get_by_role("log")  # what a screen reader is told
    assert log.inner_text().strip().endswith("A red mug, box 1 of 1")
    page.keyboard.press("m")  # the first box is picked
    saved(page)
    assert page.locator(".stage").count() == 1
    assert "none" in page.locator("li.picked .detail").text_content()
    names = page.locator(".toolbar button:visible").all_inner_texts()
    assert [re.split(r"\s", name)[0] for name in names] == ["Accept", "Reject", "Next"]
    for key, least in (("Enter", 12), ("Escape", 0), ("Enter", 12)):
        page.locator(".menu summary").focus()
        page.keyboard.press(key)
        assert (page.locator(".menu button:visible").count() >= 12) is (least > 0)
    page.get_by_role("button", name="Undo").click()
    blur(page)
    log.filter(has_text="Undone").wait_for()
    page.keyboard.press("3")  # a phrase without a box: one is drawn, moved, and deleted again
    drag(page, (10, 180), (390, 290))
    press(page, "ArrowRight", "Delete")
    saved(page)
    assert applied(results) == [RECORD]
    press(page, *"222x")  # its second box
    saved(page)
    assert [box.get("verified") for box in rows_of(results)[1]["instances"]] == [None, False]
    assert page.locator("li.picked .phrase").text_content() == "two dogs", "its first box is open"
    page.keyboard.press("a")
    log.filter(has_text="Accepted").wait_for()
    press(page, *"2a")  # the whole phrase
    saved(page)
    assert [box.get("verified") for box in rows_of(results)[1]["instances"]] == [True, True]
    assert page.locator("#refused").inner_text() == ""


def test_what_moves_nothing_decides_nothing_and_no_box_moves_elsewhere(
    results: Path, serve: Any, show: Any
) -> None:
    boxes = [0, 0, 50, 60], [-10, 100, 50, 320]
    rows = [phrase(f"dog {n}", n, box, caption="") for n, box in enumerate(boxes)]
    write(results, {**RECORD, "expressions": rows})
    page = show(serve(results).address + SINGLE)
    for keys in ("ArrowLeft", "Shift+ArrowUp"), ("ArrowLeft", "ArrowDown", "Alt+ArrowDown"):
        press(page, *keys, "2")
    drag(page, (20, 200), (-50, 200))
    assert page.locator(".verdict, .sketch *").count() == 0
    assert not (results / "reviews.jsonl").exists()
    press(page, "ArrowRight", "ArrowUp", "Alt+ArrowLeft")
    saved(page)
    # cut to the picture of 400 x 300 by the first key, as every box that a person drew, then moved
    assert rows_of(results)[1]["instances"][0]["bbox"] == [0, 99, 50, 299]


def test_a_comment_is_saved_where_it_was_typed_and_what_is_left_is_told_at_once(
    results: Path, serve: Any, show: Any
) -> None:
    # three boxes and a phrase without one in each
    write(results, RECORD, OF_ANOTHER_PICTURE)
    page = show(serve(results).address + SINGLE + "&q=grass")
    comment = page.locator("textarea")
    for text in ("one", "two"):
        page.keyboard.press("c")
        comment.fill(text)
        page.keyboard.press("Escape")
        saved(page)
    page.keyboard.press("z")
    saved(page)
    assert comment.input_value() == "one"
    page.keyboard.press("c")
    page.keyboard.type(" more")
    page.get_by_role("button", name="Next", exact=False).last.click()
    page.locator("h2", has_text="b").wait_for()
    assert comment.input_value() == ""
    page.keyboard.press("c")
    page.keyboard.type("other")
    page.get_by_role("button", name="Accept").click()
    page.get_by_text("That was the last one").wait_for()
    saved(page)
    assert [record["review_comment"] for record in applied(results)] == ["one more", "other"]
    page.keyboard.press("z")  # here, too
    page.locator("h2", has_text="b").wait_for()
    saved(page)
    assert "verified" not in rows_of(results, 1)[2]
    search(page, "")
    page.locator("h2", has_text="a").wait_for()
    blur(page)
    for keys, left in (
        (["1", "ArrowRight"], "5 of 6 boxes, 2 phrases"),  # a box was moved
        (["z"], "6 of 6 boxes, 2 phrases"),
        (["Escape", "Escape", "Escape", "a"], "3 of 6 boxes, 1 phrase"),  # all of the record
        (["z"], "6 of 6 boxes, 2 phrases"),
        (["Escape", "Escape", "2", "Delete"], "4 of 6 boxes, 2 phrases"),  # the phrase
    ):
        press(page, *keys)
        page.locator("#left", has_text=f"{left} without a box").wait_for(timeout=60_000)
    assert page.get_by_role("progressbar").evaluate("bar => [bar.value, bar.max]") == [2, 8]


def test_a_picture_shows_all_of_its_captions_and_opens_in_full(
    results: Path, serve: Any, show: Any
) -> None:
    others = [{**RECORD, "image_id": str(n), "caption": f"Caption {n}."} for n in (1, 2)]
    others = [{**other, "cleaned_caption": other["caption"], "expressions": []} for other in others]
    write(results, RECORD, *others)
    page = show(serve(results).address)
    for view in ("Grid", "One by one"):
        page.get_by_role("link", name=view).click()
        with page.expect_popup() as opened:
            page.locator("#main").get_by_label("a.png in full size").first.click()
        picture = opened.value.locator("img")
        assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 400
        opened.value.close()
    assert page.locator(".caption").all_inner_texts()[1:] == ["Caption 1.", "Caption 2."]
    page.get_by_role("link", name="Pictures").click()
    page.locator("a.picture").wait_for()
    assert page.locator(".caption").all_inner_texts()[1:] == ["Caption 1.", "Caption 2."]


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
    [marked] = pressed(page)
    page.get_by_role("button", name="Confirm the rest").click()
    end(page)
    done = rows_of(results)
    assert [row["text"] for row in done if row["verified"] is not True] == [marked]
    # who confirms a phrase without a box says that it isn't there
    assert {row["status"] for row in done} == {"none"}, "a person looked for the pending one"


PLACES = """() => [...document.querySelectorAll(
    "#wanted, #progress, .stage, .toolbar, .cell, .expressions li, textarea")].map((element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return [element.localName, ...[x, y, width, height].map(Math.round)].join(" ");
})"""


def test_nothing_moves_on_a_narrow_screen_when_hints_errors_and_verdicts_come(
    results: Path, serve: Any, show: Any
) -> None:
    server, other = serve(results, who="bob"), serve(results, who="ann")
    phone = {"viewport": {"width": 400, "height": 900}, "has_touch": True}
    page = show(server.address + SINGLE, may_fail=True, hurried=False, **phone)
    assert page.locator(".stage").bounding_box()["y"] <= 230, "little is above the picture"
    before = page.evaluate(PLACES)
    for key in ("f", "n", "Escape", "Escape", "b"):  # each with a hint of its own
        page.keyboard.press(key)
        assert page.evaluate(PLACES) == before
    assert page.locator("#hint").inner_text().startswith("Pick a phrase first")
    colors = "all => all.map(e => getComputedStyle(e).color)"
    hint, text, error = (page.locator(one) for one in ("#hint", "body", "#refused"))
    assert hint.evaluate_all(colors) == text.evaluate_all(colors) != error.evaluate_all(colors)
    press(page, *"2a")  # a verdict in the list, the next item
    saved(page)
    assert page.locator(".verdict").count() == 1
    assert page.evaluate(PLACES) == before
    other.decide_on(0)
    press(page, "1", "x")
    page.locator("#refused", has_text="Not taken").wait_for()
    assert page.evaluate(PLACES) == before
    assert page.problems == []
    server.kill()
    press(page, "c", "!", "Escape")  # a comment that can't be sent
    page.get_by_text("The server doesn't answer").wait_for()
    assert page.locator("#download").is_visible()
    page.evaluate("scrollTo(0, 0)")  # from the comment
    assert page.evaluate(PLACES) == before
    # numbers are as large however far one zooms
    height = "all => all.map(e => e.getBBox().height * e.getScreenCTM().a)"
    numbers = page.locator(".stage .number")
    high = numbers.evaluate_all(height)
    assert 12 <= high[0] <= 24
    press(page, *"+++++")
    assert numbers.evaluate_all(height) == pytest.approx(high, rel=0.05)


def test_on_a_small_screen_a_finger_moves_a_box_and_the_buttons_stick_to_the_bottom(
    results: Path, serve: Any, show: Any
) -> None:
    phone = {"width": 400, "height": 800}
    dogs = [phrase(f"dog {n}", n, [0, 0, 30, 30], caption="") for n in range(3, 23)]
    write(results, {**RECORD, "expressions": [*RECORD["expressions"], *dogs]})  # type: ignore[misc]
    page = show(serve(results).address + SINGLE, has_touch=True, viewport=phone)
    client = page.context.new_cdp_session(page)
    page.locator(".stage").scroll_into_view_if_needed()

    def touch(kind: str, *fingers: tuple[int, int]) -> None:
        places = [point(page, *finger) for finger in fingers]
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for ends in ("two fingers", "cancelled"):  # a drag that comes to nothing leaves nothing
        touch("touchStart", (120, 90))
        touch("touchMove", (160, 70))
        page.locator(".sketch rect").wait_for()
        if ends == "two fingers":
            touch("touchStart", (160, 70), (300, 200))
        touch("touchCancel")
        page.locator(".sketch rect").wait_for(state="detached", timeout=60_000)
    assert not (results / "reviews.jsonl").exists()
    touch("touchStart", (120, 90))
    touch("touchMove", (126, 80))
    touch("touchMove", (130, 70))
    touch("touchEnd")
    saved(page)
    moved = rows_of(results)[0]["instances"]
    assert near([[50, 10.5, 210, 130]], [box["bbox"] for box in moved])
    for view, name in (("One by one", "Accept"), ("Grid", "Accept the rest")):
        page.get_by_role("link", name=view, exact=True).click()
        button = page.get_by_role("button", name=name)
        button.wait_for()
        for far in (0, 300, 100_000):
            page.evaluate("far => scrollTo(0, far)", far)
            box = button.bounding_box()
            assert 700 < box["y"] + box["height"] <= 800
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
