"""`review` and `apply`: a real server on loopback, a real browser, files on disk, processes that
are killed.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from PIL import Image

from tests.support.review_page import (
    CAPTION,
    RECORD,
    SINGLE,
    Server,
    applied,
    boxes,
    decisions,
    drag,
    grid,
    near,
    phrase,
    point,
    press,
    run,
    saved,
    select,
    write,
)
from tests.support.reviewing import asked_for
from tests.support.workplace import HANGING, rows_of, write_rows

pytestmark = pytest.mark.slow


def four_points(page: Any) -> None:
    press(page, "3", "f")
    for x, y in ((10, 200), (150, 180), (390, 240), (200, 290)):
        page.mouse.click(*point(page, x, y))


def zoomed_in(page: Any) -> None:
    page.keyboard.press("+")
    drag(page, (120, 90), (130, 70))


ACTS: dict[str, tuple[Callable[[Any], Any], int, list[list[float]]]] = {
    "four extreme points": (four_points, 2, [[10, 180, 390, 290]]),
    "move": (lambda p: drag(p, (120, 90), (130, 70)), 0, [[50, 10.5, 210, 130]]),
    "move out": (lambda p: drag(p, (120, 90), (-50, -50)), 0, [[0, 0, 160, 119.5]]),
    "resize an edge": (lambda p: drag(p, (200, 90), (260, 90)), 0, [[40, 30.5, 260, 150]]),
    "resize a corner": (lambda p: drag(p, (40, 30.5), (60, 60)), 0, [[60, 60, 200, 150]]),
    "an edge past the other": (lambda p: drag(p, (40, 90), (250, 90)), 0, [[200, 30.5, 250, 150]]),
    "10 px": (lambda p: p.keyboard.press("Shift+ArrowDown"), 0, [[40, 40.5, 200, 160]]),
    "one edge by 1 px": (lambda p: p.keyboard.press("Alt+ArrowRight"), 0, [[40, 30.5, 201, 150]]),
    "delete the second box": (lambda p: press(p, *"222", "Delete"), 1, [[220, 60, 250, 200]]),
    "zoomed in": (zoomed_in, 0, [[50, 10.5, 210, 130]]),
}


def test_a_decision_is_about_the_picture_that_was_shown(
    results: Path, serve: Callable[..., Server]
) -> None:
    server = serve(results)
    shown = server.view()
    state = (results / "a.png").stat()
    [expression, *_] = shown["expressions"]
    change = asked_for(shown, expression["id"], None)
    Image.new("RGB", (400, 300), (91, 121, 61)).save(results / "a.png")
    os.utime(results / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    answer = server.decide(change, digest=shown["digest"])
    assert answer["error"] == "the picture was replaced since it was shown here: look again"
    now = server.view()
    assert now["thumbnail"] != shown["thumbnail"]
    assert not server.decide(change, digest=now["digest"])["error"]


def test_boxes_are_drawn_moved_and_resized(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results, who="ann").address + SINGLE)
    page.keyboard.press("a")
    saved(page)
    [record] = applied(results)
    first, *rest = record["expressions"]
    assert repr(first["instances"][0]["bbox"]) == "[40.0, 30.5, 200.0, 150.0]"
    assert (first["verified"], first["reviewed_by"], first["expression_id"]) == (True, "ann", "a#0")
    assert rest == RECORD["expressions"][1:]  # type: ignore[index]
    page.keyboard.press("z")
    page.get_by_role("log").filter(has_text="Undone").wait_for()
    for name, (act, number, expected) in ACTS.items():
        if number == 0:
            page.keyboard.press("1")
        act(page)
        saved(page)
        [record] = applied(results)
        assert near(expected, boxes(record, number)), name
        line = decisions(results)[-1]
        if number == 2:
            [drawn] = record["expressions"][2]["instances"]
            told = (drawn["bbox_id"], drawn["evidence"], drawn["score"], drawn["reviewed_by"])
            assert told == ("a#2.0", "person", None, "ann")
            press(page, *"zy")  # undone, and done again
            saved(page)
            assert applied(results) == [record]
        page.keyboard.press("z")
        saved(page)
        assert applied(results) == [RECORD], f"{name}, undone: to the last digit what it was"
        assert line["who"] == "ann"
        phrases = {act["phrase"] for act in line["acts"]}
        assert phrases == {RECORD["expressions"][number]["text"]}  # type: ignore[index]
        assert line["when"].endswith("Z")


SPELT = "mug and a [U+202E]dog[U+202C]"
AS_IT_IS = "mug and a \u202edog\u202c"
# keys, what is selected, and the phrases after that by their numbers
MENDED: list[tuple[list[str], str | None, dict[int, str]]] = [
    (["1", "e"], "red mug", {0: "red mug", 1: "two dogs", 2: "grass"}),
    (["1", "e"], f" {SPELT} ", {0: AS_IT_IS, 1: "two dogs", 2: "grass"}),
    (["n"], "[U+202E]dog", {0: "A red mug", 1: "two dogs", 2: "grass", 3: "\u202edog"}),
    (["2", "s"], "dogs", {0: "A red mug", 1: "two", 2: "grass", 3: "dogs"}),
    (["1", "j"], None, {0: f"A red {AS_IT_IS} and two dogs", 2: "grass"}),
    (["3", "Delete"], None, {0: "A red mug", 1: "two dogs"}),
]


def test_phrases_are_mended_with_exact_spans(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results).address + SINGLE)
    for keys, selected, expected in MENDED:
        if selected:
            select(page, selected)
        press(page, *keys)
        saved(page)
        rows = applied(results)[0]["expressions"]
        by_id = {f"a#{number}": text for number, text in expected.items()}
        assert {row["expression_id"]: row["text"] for row in rows} == by_id
        for row in rows:
            start, end = row["char_span"]
            assert CAPTION[start:end] == row["text"]
        if "j" in keys:
            said = [(b["score"], b["evidence"], b.get("verified")) for b in rows[0]["instances"]]
            assert said == [(0.9, "seen", None)] * 3, "joined boxes stay what they were"
            assert "verified" not in rows[0]
        page.keyboard.press("z")
        saved(page)
        assert applied(results) == [RECORD]


def test_two_reviewers_on_one_phrase_the_second_is_refused_and_shown_what_stands(
    results: Path, serve: Any, show: Any
) -> None:
    first, second = serve(results, who="ann"), serve(results, who="bob")
    pages = [show(server.address + SINGLE) for server in (first, second)]
    pages[0].keyboard.press("ArrowRight")
    saved(pages[0])
    pages[1].keyboard.press("a")
    saved(pages[1])
    refused = pages[1].locator("#refused").inner_text()
    assert "Not taken: A red mug: ann changed it meanwhile" in refused
    assert near([[41, 30.5, 201, 150]], boxes(applied(results)[0], 0))
    assert pages[1].locator("li.picked .phrase").text_content() == "A red mug", "it stays"
    pages[1].keyboard.press("ArrowLeft")  # made on what stands now
    saved(pages[1])
    assert near([[40, 30.5, 200, 150]], boxes(applied(results)[0], 0))
    press(pages[0], "2", "m")  # of another phrase nobody else is in the way
    saved(pages[0])
    assert [line["who"] for line in decisions(results)] == ["ann", "bob", "ann"]


def test_a_server_killed_in_the_middle_loses_no_decision_and_the_page_keeps_what_it_could_not_send(
    results: Path, serve: Any, show: Any
) -> None:
    server = serve(results)
    page = show(server.address + SINGLE, may_fail=True)
    page.keyboard.press("ArrowRight")
    saved(page)
    server.kill()
    page.keyboard.press("ArrowRight")
    page.get_by_text("The server doesn't answer").wait_for()
    assert page.locator("#saved").inner_text() == "1 not saved yet"
    with page.expect_download() as download:
        page.locator("#download").click()
    kept = results / "kept.jsonl"
    download.value.save_as(kept)
    with open(results / "reviews.jsonl", "a") as file:
        # torn, as a full disk leaves it
        file.write('{"record": "a", "acts": [{"phrase": "a')
    assert near([[41, 30.5, 201, 150]], boxes(applied(results)[0], 0))
    whole = kept.read_text(encoding="utf-8")
    kept.write_text('{"record": "a", "acts": 7}\n{"rec\n[]\n' + whole, encoding="utf-8")
    said = run("apply", results, kept, code=1)
    assert said.count("Not taken: ") == 3
    assert f"{kept}, line 1: 'acts' should be a list of objects" in said
    [record] = rows_of(results / "annotations.reviewed.jsonl")
    assert near([[42, 30.5, 202, 150]], boxes(record, 0))
    kept.write_text(whole, encoding="utf-8")
    assert near([[42, 30.5, 202, 150]], boxes(applied(results, kept)[0], 0)), "taken over once"
    assert near([[42, 30.5, 202, 150]], boxes(serve(results).view(), 0))


def test_decisions_in_a_row_survive_kill_9_to_the_last_answer(results: Path, serve: Any) -> None:
    grid(results, 12)
    server = serve(results, "--port", "0")
    for number in range(7):
        server.judge(number, True)
    server.kill()
    rows = applied(results)[0]["expressions"]
    assert [n for n, row in enumerate(rows) if row.get("verified")] == [*range(7)]
    assert {line["who"] for line in decisions(results)} == {getpass.getuser()}


NONE: dict[str, Any] = {"decisions": []}
ASKED: dict[str, tuple[str, dict[str, str], Any, int]] = {
    "the page itself": ("", {}, None, 200),
    "another name for this machine": ("", {"Host": "evil.example"}, None, 403),
    "another port": ("", {"Host": "localhost:1"}, None, 403),
    "another origin": ("index", {"Origin": "https://evil.example"}, None, 403),
    "a page without an origin": ("index", {"Origin": "null"}, None, 403),
    "another site's script": ("index", {"Sec-Fetch-Site": "cross-site"}, None, 403),
    "a decision from elsewhere": ("decide", {"Origin": "https://evil.example"}, NONE, 403),
    "a form's decision": ("decide", {"Content-Type": "text/plain"}, NONE, 403),
    "another token": ("../wrong/", {}, None, 404),
    "a way up": ("..%2f", {}, None, 404),
    "a picture by path": ("picture/../../a.png", {}, None, 404),
    "a picture of no record": ("picture/9-small.jpg", {}, None, 404),
    "a copy that there isn't": ("picture/0-huge.jpg", {}, None, 404),
    "a picture by record": ("picture/0-small.jpg", {}, None, 200),
    "a file that isn't the page's": ("report.html", {}, None, 404),
    "no decisions": ("decide", {}, {"decisions": 3}, 400),
}


def test_only_the_page_of_this_review_is_answered(results: Path, serve: Any) -> None:
    server = serve(results)
    for name, (path, headers, body, status) in ASKED.items():
        if status == 200:
            server.ask(path, body, **headers)
            continue
        with pytest.raises(HTTPError) as refused:
            server.ask(path, body, **headers)
        assert refused.value.code == status, name
        assert "Access-Control-Allow-Origin" not in refused.value.headers
        assert "no-store" in refused.value.headers["Cache-Control"]
    assert not (results / "reviews.jsonl").exists()


def test_no_more_decisions_are_taken_at_once_than_others_can_wait_for(
    results: Path, serve: Any
) -> None:
    server = serve(results)
    comment = {"record": "a", "comment": "x", "acts": []}
    many = [{"uid": f"{n}", **comment} for n in range(20_000)]
    for count in (20_000, 1001):
        with pytest.raises(HTTPError) as refused:
            server.ask("decide", {"decisions": many[:count]})
        assert refused.value.code in (400, 413)
    said = json.loads(refused.value.read())["error"]
    assert said == "1,001 decisions at once: send at most 1,000"
    assert not (results / "reviews.jsonl").exists(), "all are taken, or none"
    assert len(server.ask("decide", {"decisions": many[:1000]})["answers"]) == 1000


def test_those_who_leave_in_the_middle_of_a_decision_leave_no_traceback(
    results: Path, serve: Any
) -> None:
    server = serve(results, "--port", "0")  # in a process
    host, _, token = server.address.removeprefix("http://").rstrip("/").partition("/")
    name, port = host.split(":")
    head = f"POST /{token}/decide HTTP/1.1\r\nHost: {host}\r\nOrigin: {server.origin}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection((name, int(port))) as connection:
            connection.sendall(head.encode())
            server.ask("index")  # by then the server reads the others
    with socket.create_connection((name, int(port))) as connection:
        connection.sendall(b"GET /" + b"\xd9\xa3" + b" HTTP/1.1\r\n\r\n")
        assert b" 400 " in connection.recv(16)
    server.process.send_signal(signal.SIGINT)
    _, err = server.process.communicate(timeout=HANGING)
    assert (server.process.returncode, err) == (0, "")


def test_a_picture_turned_by_exif_is_upright_and_comes_without_metadata(
    results: Path, serve: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "made by somebody at home"
    Image.new("RGB", (300, 400)).rotate(90, expand=True).save(results / "a.png", "JPEG", exif=exif)
    server = serve(results)
    assert b"somebody" not in server.ask("picture/0-large.jpg")
    view = server.view()
    assert (view["width"], view["height"]) == (300, 400)


def test_doubtful_things_come_first(results: Path, serve: Any, show: Any) -> None:
    rows = [phrase(f"dog {n:02}", n, [1, 1, 99, 99], caption="") for n in range(20)]
    for n, row in enumerate(rows):
        row["instances"][0]["score"] = 7 * n % 20 / 20
    write(results, {**RECORD, "expressions": rows})
    page = show(serve(results).address + "#view=single")
    shown = []
    for _ in range(20):
        shown.append(int(page.locator("li.picked .phrase").text_content().split()[1]))
        page.keyboard.press("]")
    assert shown == sorted(shown, key=lambda n: 7 * n % 20)


def test_what_can_not_be_done_is_said_in_a_line(results: Path, serve: Any) -> None:
    port = serve(results).origin.rsplit(":", 1)[1]
    for arguments, said in (
        (["apply", results], "no decisions on"),
        (["apply", results / "annotations.reviewed.jsonl"], "no "),
        (["review", results / "nothing"], "no "),
        (["review", results, "--port", port], "Choose another --port"),
    ):
        text = run(*arguments, code=2)
        assert said in text
        assert len(text.strip().splitlines()) == 1


def test_a_pipeline_goes_on_from_a_step_that_was_reviewed_and_keeps_what_a_person_drew(
    tmp_path: Path, serve: Any
) -> None:
    data = tmp_path / "captions.jsonl"
    Image.new("RGB", (400, 300), (200, 30, 30)).save(tmp_path / "a.png")
    write_rows(data, {"image_path": "a.png", "caption": "A red square and a cat."})
    keys = ["vlm.backend=embedded", f"data.input_jsonl={data}"]
    spec = [*(f"image_grounding.{key}" for key in keys), f"results_dir={tmp_path / 'out'}"]
    run("default_specs", f"results_dir={tmp_path}")
    generate = ["generate", "-e", tmp_path / "image_grounding.yaml", *spec, "--no-report"]
    run(*generate, "image_grounding.workflow.steps=['0']")
    step = tmp_path / "out" / "step_0_expression_extraction"
    server = serve(step, who="ann")
    server.decide_on(0, text="red square", char_span=[2, 12], status="pending")
    server.decide_on(1, ([1, 2, 30, 40], None, True))
    run(*generate)
    assert grounded(tmp_path)[0]["text"] == "A red square", "not before `apply`"
    run("apply", step)
    run(*generate)
    square, cat = grounded(tmp_path)
    assert square["text"] == "red square"
    assert "reviewed_by" not in square, "nobody reviewed its boxes"
    assert (cat["reviewed_by"], cat["verified"]) == ("ann", True)
    assert cat["instances"][0]["bbox"] == [1, 2, 30, 40]
    with open(data, "a") as file:
        file.write(json.dumps({"image_path": "a.png", "caption": "A red thing."}) + "\n")
    log = (step / "reviews.jsonl").read_bytes()
    refused = run(*generate, code=2).strip().splitlines()[-1]
    assert f"than {step} has now: `dataflowgrounding apply {step}` writes" in refused
    assert "or delete annotations.reviewed.jsonl" in refused
    assert (step / "reviews.jsonl").read_bytes() == log, "nothing is taken by itself"
    # the two captions of the picture are one to review
    serve(step, who="ann").decide_on(2, ([5, 5, 20, 20], None, True))
    run(*generate, code=2)  # that decision isn't in the file that `apply` wrote before
    assert "3 decisions" in run("apply", step)
    run(*generate)
    assert [row["text"] for row in grounded(tmp_path)] == ["red square", "a cat"]
    [thing] = grounded(tmp_path, 1)
    assert (thing["text"], thing["instances"][0]["bbox"]) == ("A red thing", [5, 5, 20, 20])


def grounded(folder: Path, record: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = rows_of(folder / "out/annotations.jsonl")[record]["expressions"]
    return rows


def test_axe_finds_nothing_serious(results: Path, serve: Any, show: Any) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    mug, *others = RECORD["expressions"]  # type: ignore[misc]
    rows = [{**mug, "verified": False, "reviewed_by": "ann"}, *others]
    write(results, {**RECORD, "suspect_boxes": True, "expressions": rows})
    address = f"{serve(results).address}#order=file"
    page = show(address, color_scheme="dark", bypass_csp=True)

    def serious() -> list[Any]:
        found = axe.Axe().run(page).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS]

    page.keyboard.press("1")
    assert serious() == []
    page.get_by_role("link", name="One by one").click()
    page.locator(".stage").wait_for()
    page.emulate_media(color_scheme="light")
    assert serious() == []
    page.keyboard.press("?")
    assert serious() == []


SERIOUS = ("serious", "critical")


def test_many_boxes_in_one_picture_stay_smooth(results: Path, serve: Any, show: Any) -> None:
    rows = []
    for n in range(300):
        x, y = 4 + n % 20 * 19, 4 + n // 20 * 19
        rows.append(phrase(f"dog {n}", n, [x, y, x + 16, y + 8], caption=""))
    write(results, {**RECORD, "expressions": rows})
    page = show(serve(results).address + SINGLE)
    assert page.locator(".stage .box").count() == 1, "the others are on a canvas"
    page.locator("canvas.overlay").evaluate(
        """canvas => new Promise(drawn => {
        const pen = canvas.getContext("2d");
        const look = () => canvas.height
            && pen.getImageData(0, 0, canvas.width, canvas.height).data.some(n => n > 0)
            ? drawn() : requestAnimationFrame(look);
        look(); })"""
    )
    page.mouse.click(*point(page, 373, 274))
    assert page.locator("li.picked .phrase").all_text_contents() == ["dog 299"]
    changed = page.evaluate(
        """async key => { let changed = 0;
        const seen = new MutationObserver(records => { changed += records.length; });
        seen.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
        document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        await new Promise(requestAnimationFrame);
        return changed; }""",
        "ArrowRight",
    )
    assert 0 < changed < 100, "a move changes its own box and row, not those of the others"
    saved(page)
    assert near([[366, 270, 382, 278]], boxes(applied(results)[0], 299))
