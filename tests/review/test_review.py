"""`review` and `apply`: a real server on loopback, a real browser, files on disk, processes that
are killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from aiohttp import web
from PIL import Image

from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.server import ReviewServer
from dataflow_grounding.review.session import Session
from tests.support.forking import Forked
from tests.support.workplace import HANGING, command

pytestmark = pytest.mark.slow

CAPTION = "\U0001f600 A red mug and a \u202edog\u202c and two dogs on grass."


def phrase(
    text: str, number: int, *boxes: list[float], caption: str = CAPTION, **more: Any
) -> dict[str, Any]:
    start = caption.find(text)
    instances = [
        {"bbox_id": f"a#{number}.{n}", "bbox": b, "score": 0.9, "evidence": "seen"}
        for n, b in enumerate(boxes)
    ]
    span = [start, start + len(text)] if start >= 0 else None
    status = "grounded" if boxes else "none"
    return {
        "expression_id": f"a#{number}",
        "text": text,
        "char_span": span,
        "status": status,
        "instances": instances,
        **more,
    }


RECORD = {
    "image_id": "a",
    "image_path": "a.png",
    "width": 400,
    "height": 300,
    "caption": CAPTION,
    "cleaned_caption": CAPTION,
    "expressions": [
        phrase("A red mug", 0, [40.0, 30.5, 200.0, 150.0]),
        phrase("two dogs", 1, [220, 60, 250, 200], [260, 60, 300, 210]),
        phrase("grass", 2),
    ],
}

OF_ANOTHER_PICTURE = {**RECORD, "image_id": "b", "image_path": "b.png"}


def write(folder: Path, *records: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "annotations.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in records), encoding="utf-8"
    )
    for name, color in (("a.png", (90, 120, 60)), ("b.png", (60, 120, 90))):
        if not (folder / name).exists():
            Image.new("RGB", (400, 300), color).save(folder / name)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write(tmp_path / "out", RECORD)


def run(*arguments: Any, code: int = 0) -> str:
    done = command([*map(str, arguments)])
    assert done.code == code, done
    return done.out + done.err


def applied(results: Path, *more: Any, code: int = 0) -> list[dict[str, Any]]:
    run("apply", results, *more, code=code)
    lines = (results / "annotations.reviewed.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def decisions(results: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (results / "reviews.jsonl").read_text(encoding="utf-8").splitlines()
    ]


class Server:
    """A review on a thread, which `kill` ends in the middle."""

    def __init__(self, results: Path, who: str = "ann", **options: Any) -> None:
        self._server = OfThread(Session(Reviewable(str(results)), who, **options))
        self.address, self.origin = self._server.address, self._server.origin

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        given = (
            {"Content-Type": "application/json", "Origin": self.origin} if body is not None else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data, {**given, **headers})
        with urlopen(request, timeout=30) as response:
            said = response.read()
        return (
            json.loads(said)
            if response.headers["Content-Type"].startswith("application/json")
            else said
        )

    def decide(
        self, change: dict[str, Any] | None = None, record: str = "a", **more: Any
    ) -> dict[str, Any]:
        decision = {
            "uid": os.urandom(6).hex(),
            "record": record,
            "action": "accept",
            "changes": [change] if change else [],
        }
        answer: dict[str, Any] = self.ask("decide", {"decisions": [{**decision, **more}]})[
            "answers"
        ][0]
        return answer

    def kill(self) -> None:
        self._server.end()


class OfThread(ReviewServer):
    """Answers at its address until its end."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0)
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._begin())

    async def _begin(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def end(self) -> None:
        if not self._loop.is_closed():
            self._run(self._runner.cleanup())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Process(Server):
    """The same by the command, as a process."""

    def __init__(self, results: Path, *options: str) -> None:
        self.process = Forked(["review", str(results), "--no-open", *options])
        self.address = self.process.stdout.readline().strip()
        self.origin = self.address.rsplit("/", 2)[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=HANGING)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(results: Path, *arguments: str, **options: Any) -> Server:
        kind = Process if arguments else Server
        servers.append(kind(results, *arguments, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture
def show(new_page: Any) -> Iterator[Any]:
    pages, problems = [], []

    def open_page(address: str, **options: Any) -> Any:
        pages.append(page := new_page(**options))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: message.type == "error" and problems.append(message.text)
        )
        page.problems = problems
        page.goto(address)
        page.locator("#main > *").first.wait_for()
        # a page of the grid may be accepted now
        page.locator(".cells[aria-busy]").wait_for(state="detached")
        return page

    yield open_page
    for page in pages:
        page.close()


SINGLE = "#mode=single&order=file"
TALL = {"width": 1280, "height": 3200}
"""A window that shows a whole page of the grid at once."""


def saved(page: Any) -> None:
    page.locator("#saved", has_text="all saved").wait_for()


def point(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is on the page."""
    at = page.evaluate(
        "([x, y]) => { const p = new DOMPoint(x, y).matrixTransform(document.querySelector('.stage').getScreenCTM());"
        " return [p.x, p.y]; }",
        [x, y],
    )
    return at[0], at[1]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*point(page, *start))
    page.mouse.down()
    page.mouse.move(*point(page, *[(a + b) / 2 for a, b in zip(start, end, strict=True)]))
    page.mouse.move(*point(page, *end))
    page.mouse.up()


def select(page: Any, text: str) -> None:
    """Select words of the caption as they are shown."""
    page.evaluate(
        """text => {
          const caption = document.querySelector(".caption"), at = caption.textContent.indexOf(text), ends = [];
          const walk = document.createTreeWalker(caption, NodeFilter.SHOW_TEXT);
          for (let seen = 0, node; (node = walk.nextNode()); seen += node.length) {
            for (const end of [at, at + text.length]) if (seen <= end && end <= seen + node.length) ends.push([node, end - seen]);
          }
          getSelection().setBaseAndExtent(...ends[0], ...ends[ends.length - 1]);
        }""",
        text,
    )


def boxes(record: dict[str, Any], number: int) -> list[list[float]]:
    return [instance["bbox"] for instance in record["expressions"][number]["instances"]]


def four_points(page: Any) -> None:
    page.keyboard.press("3")
    page.keyboard.press("f")
    for x, y in ((10, 200), (150, 180), (390, 240), (200, 290)):
        page.mouse.click(*point(page, x, y))


def near(expected: list[list[float]], got: list[list[float]]) -> bool:
    return len(got) == len(expected) and all(
        abs(a - b) <= 1
        for x, y in zip(expected, got, strict=True)
        for a, b in zip(x, y, strict=True)
    )


ACTS: dict[str, tuple[Callable[[Any], Any], int, list[list[float]]]] = {
    "four extreme points": (four_points, 2, [[10, 180, 390, 290]]),
    "move": (lambda p: drag(p, (120, 90), (130, 70)), 0, [[50, 10.5, 210, 130]]),
    "move out": (lambda p: drag(p, (120, 90), (-50, -50)), 0, [[0, 0, 160, 119.5]]),
    "resize an edge": (lambda p: drag(p, (200, 90), (260, 90)), 0, [[40, 30.5, 260, 150]]),
    "resize a corner": (lambda p: drag(p, (40, 30.5), (60, 60)), 0, [[60, 60, 200, 150]]),
    "an edge past the other": (lambda p: drag(p, (40, 90), (250, 90)), 0, [[200, 30.5, 250, 150]]),
    "10 px": (lambda p: p.keyboard.press("Shift+ArrowDown"), 0, [[40, 40.5, 200, 160]]),
    "one edge by 1 px": (lambda p: p.keyboard.press("Alt+ArrowRight"), 0, [[40, 30.5, 201, 150]]),
    "delete the second box": (lambda p: typed(p, "222", "Delete"), 1, [[220, 60, 250, 200]]),
    "zoomed in": (
        lambda p: (p.keyboard.press("+"), drag(p, (120, 90), (130, 70))),
        0,
        [[50, 10.5, 210, 130]],
    ),
}


def typed(page: Any, *keys: str) -> None:
    for part in keys:
        for key in [part] if part.isalpha() else part:
            page.keyboard.press(key)


def test_a_decision_is_about_the_picture_that_was_shown(
    results: Path, serve: Callable[..., Server]
) -> None:
    server = serve(results)
    shown = server.ask("record/0")
    state = (results / "a.png").stat()
    [expression, *_] = shown["expressions"]
    change = {"id": expression["id"], "version": expression["version"], "after": None}
    Image.new("RGB", (400, 300), (91, 121, 61)).save(results / "a.png")
    os.utime(results / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    answer = server.decide(change, action="delete", digest=shown["digest"])
    assert answer["error"] == "the picture was replaced since it was shown here: look again"
    now = server.ask("record/0")
    assert now["thumbnail"] != shown["thumbnail"]
    assert not server.decide(change, action="delete", digest=now["digest"])["error"]


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
            for key in "zy":  # undone, and done again
                page.keyboard.press(key)
            saved(page)
            assert applied(results) == [record]
        page.keyboard.press("z")
        saved(page)
        assert applied(results) == [RECORD], f"{name}, undone: to the last digit what it was"
        assert line["who"] == "ann"
        [change] = line["changes"]
        assert change["before"]["text"] == RECORD["expressions"][number]["text"]  # type: ignore[index]
        assert {"version", "after"} <= change.keys()
        assert line["seconds"] >= 0
        assert line["when"].endswith("Z")
    assert page.problems == []


MENDED: tuple[tuple[list[str], str | None, list[tuple[str, int]]], ...] = (
    (["1", "e"], "red mug", [("red mug", 0), ("two dogs", 1), ("grass", 2)]),
    (  # with characters that are spelt out, without blanks at its ends
        ["1", "e"],
        " mug and a [U+202E]dog[U+202C] ",
        [("mug and a \u202edog\u202c", 0), ("two dogs", 1), ("grass", 2)],
    ),
    (
        ["n"],
        "[U+202E]dog",
        [("A red mug", 0), ("two dogs", 1), ("grass", 2), ("\u202edog", 3)],
    ),
    (["2", "s"], "dogs", [("A red mug", 0), ("two", 1), ("grass", 2), ("dogs", 3)]),
    (["1", "j"], None, [("A red mug and a \u202edog\u202c and two dogs", 0), ("grass", 2)]),
    (["3", "Delete"], None, [("A red mug", 0), ("two dogs", 1)]),
)


def test_phrases_are_mended_with_exact_spans(results: Path, serve: Any, show: Any) -> None:
    page = show(serve(results).address + SINGLE)
    for keys, selected, expected in MENDED:
        if selected:
            select(page, selected)
        for key in keys:
            page.keyboard.press(key)
        saved(page)
        rows = applied(results)[0]["expressions"]
        numbered = [(text, f"a#{n}") for text, n in expected]
        assert [(row["text"], row["expression_id"]) for row in rows] == numbered
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
    assert page.problems == []


def grid(results: Path, count: int) -> None:
    rows = [phrase(f"dog {n}", n, [n, n, 50 + n, 60 + n], caption="") for n in range(count)]
    write(results, {**RECORD, "expressions": rows})


def after(number: int, verified: bool = True, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = RECORD["expressions"][number]  # type: ignore[index]
    instances = [
        {"from": n, "bbox": box["bbox"], "verified": verified}
        for n, box in enumerate(row["instances"])
    ]
    return {"status": row["status"], "verified": verified, "instances": instances, **more}


def version(server: Server, number: int) -> str:
    return str(server.ask("record/0")["expressions"][number]["version"])


def test_two_reviewers_on_one_phrase_the_second_is_refused_and_shown_what_stands(
    results: Path, serve: Any, show: Any
) -> None:
    first, second = serve(results, who="ann"), serve(results, who="bob")
    pages = [show(server.address + SINGLE) for server in (first, second)]
    pages[0].keyboard.press("ArrowRight")
    saved(pages[0])
    pages[1].keyboard.press("a")
    saved(pages[1])
    assert (
        "Not taken: A red mug: ann changed it meanwhile"
        in pages[1].locator("#refused").inner_text()
    )
    assert near([[41, 30.5, 201, 150]], boxes(applied(results)[0], 0))
    pages[1].keyboard.press("]")
    assert pages[1].locator("li.picked .phrase").text_content() == "A red mug", "it comes again"
    pages[1].keyboard.press("ArrowLeft")  # made on what stands now
    saved(pages[1])
    assert near([[40, 30.5, 200, 150]], boxes(applied(results)[0], 0))
    pages[0].keyboard.press("2")
    pages[0].keyboard.press("m")  # of another phrase nobody else is in the way
    saved(pages[0])
    assert [line["who"] for line in decisions(results)] == ["ann", "bob", "ann"]


def test_a_server_killed_in_the_middle_loses_no_decision_and_the_page_keeps_what_it_could_not_send(
    results: Path, serve: Any, show: Any
) -> None:
    server = serve(results)
    page = show(server.address + SINGLE)
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
        file.write('{"record": "a", "changes": [{"id": "a#0", "bef')
    assert near([[41, 30.5, 201, 150]], boxes(applied(results)[0], 0))
    whole = kept.read_text(encoding="utf-8")
    kept.write_text('{"record": "a", "changes": 7}\n{"rec\n[]\n' + whole, encoding="utf-8")
    said = run("apply", results, kept, code=1)
    assert said.count("Not taken: ") == 3
    assert f"{kept}, line 1: 'changes' should be a list of objects" in said
    assert near(
        [[42, 30.5, 202, 150]],
        boxes(json.loads((results / "annotations.reviewed.jsonl").read_text()), 0),
    )
    kept.write_text(whole, encoding="utf-8")
    assert near([[42, 30.5, 202, 150]], boxes(applied(results, kept)[0], 0)), "taken over once"
    again = serve(results)
    assert near(
        [[42, 30.5, 202, 150]], [again.ask("record/0")["expressions"][0]["instances"][0]["bbox"]]
    )


def test_decisions_in_a_row_survive_kill_9_to_the_last_answer(results: Path, serve: Any) -> None:
    grid(results, 40)
    server, answered = serve(results, "--reviewer", "eve", "--queue", "file"), []
    assert server.ask("next?mode=grid")["order"] == "file"
    for number in range(17):
        e = server.ask("record/0")["expressions"][number]
        given = {
            "status": "grounded",
            "instances": [{"from": 0, "bbox": e["instances"][0]["bbox"], "verified": True}],
        }
        assert not server.decide({"id": e["id"], "version": e["version"], "after": given})["error"]
        answered.append(e["id"])
    server.kill()
    rows = applied(results)[0]["expressions"]
    assert [row["expression_id"] for row in rows if row.get("verified")] == answered
    assert {line["who"] for line in decisions(results)} == {"eve"}


ASKED: dict[str, tuple[str, dict[str, str], Any, int]] = {
    "the page itself": ("", {}, None, 200),
    "another name for this machine": ("", {"Host": "evil.example"}, None, 403),
    "another port": ("", {"Host": "localhost:1"}, None, 403),
    "another origin": ("next?mode=grid", {"Origin": "https://evil.example"}, None, 403),
    "a page without an origin": ("next?mode=grid", {"Origin": "null"}, None, 403),
    "another site's script": ("next?mode=grid", {"Sec-Fetch-Site": "cross-site"}, None, 403),
    "a decision from elsewhere": (
        "decide",
        {"Origin": "https://evil.example"},
        {"decisions": []},
        403,
    ),
    "a form's decision": ("decide", {"Content-Type": "text/plain"}, {"decisions": []}, 403),
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


NO_DECISIONS: dict[str, dict[str, Any]] = {
    "a box without width": {"after": after(0, instances=[{"bbox": [5, 5, 5, 9]}])},
    "three numbers": {"after": after(0, instances=[{"bbox": [1, 2, 3]}])},
    "a text": {"after": after(0, instances=[{"bbox": [1, 2, 3, "4"]}])},
    "a box that isn't there": {"after": after(0, instances=[{"from": 7, "bbox": [1, 2, 3, 4]}])},
    "no list": {"after": after(0, instances="all")},
    "no status": {"after": after(0, status="fine")},
    "no text": {"after": after(0, text="")},
    "a span of another text": {"after": after(0, text="mug", char_span=[0, 3])},
    "a span past the end": {"after": after(0, text="mug", char_span=[8, 999])},
    "another version": {"version": "older", "after": after(0)},
}


def test_a_decision_that_is_none_is_refused_in_a_line_and_one_sent_twice_counts_once(
    results: Path, serve: Any
) -> None:
    server = serve(results)
    right = {"id": "a#0", "version": version(server, 0), "after": after(0)}
    for name, change in NO_DECISIONS.items():
        answer = server.decide({**right, **change})
        assert answer["error"], name
        assert "\n" not in answer["error"]
        assert answer["view"]["expressions"][0]["text"] == "A red mug"
    assert not decisions(results)
    assert [server.decide(right, uid="same")["error"] for _ in range(2)] == ["", ""]
    assert len(decisions(results)) == 1


def test_no_more_decisions_are_taken_at_once_than_others_can_wait_for(
    results: Path, serve: Any
) -> None:
    server = serve(results)
    many = [
        {"uid": f"{n}", "record": "a", "action": "comment", "comment": "x", "changes": []}
        for n in range(20_000)
    ]
    for count in (20_000, 1001):
        with pytest.raises(HTTPError) as refused:
            server.ask("decide", {"decisions": many[:count]})
        assert refused.value.code in (400, 413)
    assert (
        json.loads(refused.value.read())["error"] == "1,001 decisions at once: send at most 1,000"
    )
    assert not (results / "reviews.jsonl").exists(), "all are taken, or none"
    assert len(server.ask("decide", {"decisions": many[:1000]})["answers"]) == 1000


def test_those_who_leave_in_the_middle_of_a_decision_leave_no_traceback(
    results: Path, serve: Any
) -> None:
    server = serve(results, "--reviewer", "ann")
    host, _, token = server.address.removeprefix("http://").rstrip("/").partition("/")
    name, port = host.split(":")
    head = f"POST /{token}/decide HTTP/1.1\r\nHost: {host}\r\nOrigin: {server.origin}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection((name, int(port))) as connection:
            connection.sendall(head.encode())
            server.ask("next?mode=grid&most=1")  # by then the server reads the others
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
    view = server.ask("record/0")
    assert (view["width"], view["height"]) == (300, 400)


def test_a_record_without_its_picture_is_reviewed_all_the_same(results: Path, serve: Any) -> None:
    (results / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no picture")
    server = serve(results)
    assert server.ask("record/0")["missing"].startswith("The image file")
    change = {"id": "a#0", "version": version(server, 0), "after": after(0, verified=False)}
    assert not server.decide(change, action="reject")["error"]
    assert applied(results)[0]["expressions"][0]["verified"] is False


def test_doubtful_things_come_first_and_each_fifth_by_chance(results: Path, serve: Any) -> None:
    rows = [phrase(f"dog {n:02}", n, [1, 1, 9, 9], caption="") for n in range(50)]
    for n, row in enumerate(rows):
        row["instances"][0]["score"] = n / 100
    write(results, {**RECORD, "expressions": rows})
    server = serve(results)
    items = server.ask("next?mode=single&most=50")["items"]
    numbers = [int(item["id"].split("#")[1]) for item in items if item["why"] == "doubt"]
    assert numbers == sorted(numbers)
    assert [n for n, item in enumerate(items) if item["why"] == "random"] == list(range(4, 50, 5))
    # on pages too, while any that was drawn is left; others stand with those of their thing
    items = server.ask("next?mode=grid&most=50")["items"]
    by_chance = [n for n, item in enumerate(items) if item["why"] == "random"]
    assert len(items) == 50
    assert {n for n in range(4, 50, 5) if n < by_chance[-1]} <= {*by_chance}


def test_a_sample_is_stated_on_disk_before_it_is_shown_and_is_the_same_again(
    results: Path, serve: Any
) -> None:
    grid(results, 30)
    server = serve(results, "--sample", "8", "--seed", "5")
    [stated] = decisions(results)
    sample = stated["sample"]
    of = {"boxes": 30, "phrases_without_boxes": 0}
    assert (sample["size"], sample["seed"], sample["of"]) == (8, 5, of)
    items = server.ask("next?mode=single&most=50")["items"]
    assert [["a", item["id"], item["box"]] for item in items] == sample["items"]
    server.kill()
    again = serve(results, sample=(8, 5))
    assert again.ask("next?mode=single&most=50")["items"] == items
    assert len(decisions(results)) == 1


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


def test_decisions_on_what_another_changed_meanwhile_are_refused_by_line(
    results: Path, serve: Any, tmp_path: Path
) -> None:
    server = serve(results)
    version_then = version(server, 0)
    server.decide({"id": "a#0", "version": version_then, "after": after(0)})
    given = {
        "uid": "1",
        "record": "a",
        "action": "reject",
        "who": "bob",
        "changes": [{"id": "a#0", "version": version_then, "after": after(0, verified=False)}],
    }
    kept = tmp_path / "kept.jsonl"
    kept.write_text(
        json.dumps(given) + "\n" + json.dumps({**given, "uid": "2", "record": "b"}) + "\n"
    )
    said = run("apply", results, kept, code=1)
    assert f"{kept}, line 1: A red mug: " in said
    assert f"{kept}, line 2: there is no record 'b' here" in said


def test_a_pipeline_goes_on_from_a_step_that_was_reviewed_and_keeps_what_a_person_drew(
    tmp_path: Path, serve: Any
) -> None:
    data = tmp_path / "captions.jsonl"
    Image.new("RGB", (400, 300), (200, 30, 30)).save(tmp_path / "a.png")
    rows = [{"image_path": "a.png", "caption": "A red square and a cat."}]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = ["vlm.backend=embedded", f"data.input_jsonl={data}"]
    spec = [*(f"image_grounding.{key}" for key in keys), f"results_dir={tmp_path / 'out'}"]
    run("default_specs", f"results_dir={tmp_path}")
    generate = ["generate", "-e", tmp_path / "image_grounding.yaml", *spec, "--no-report"]
    run(*generate, "image_grounding.workflow.steps=['0']")
    step = tmp_path / "out" / "step_0_expression_extraction"
    server = serve(step, who="ann")
    first, second = server.ask("record/0")["expressions"]
    text = {"text": "red square", "char_span": [2, 12], "status": "pending", "instances": []}
    drawn = {
        "status": "grounded",
        "instances": [{"from": None, "bbox": [1, 2, 30, 40], "verified": True}],
    }
    for e, given in ((first, text), (second, drawn)):
        assert not server.decide({"id": e["id"], "version": e["version"], "after": given}, "a")[
            "error"
        ]
    run(*generate)
    assert grounded(tmp_path)[0]["text"] == "A red square", "not before `apply`"
    run("apply", step)
    run(*generate)
    square, cat = grounded(tmp_path)
    assert (square["text"], "reviewed_by" in square) == ("red square", False), (
        "nobody reviewed its boxes"
    )
    assert (cat["instances"][0]["bbox"], cat["reviewed_by"], cat["verified"]) == (
        [1, 2, 30, 40],
        "ann",
        True,
    )
    with open(data, "a") as file:
        file.write(json.dumps({"image_path": "a.png", "caption": "A red thing."}) + "\n")
    run(*generate)
    assert [row["text"] for row in grounded(tmp_path)] == ["red square", "a cat"]
    assert len((tmp_path / "out" / "annotations.jsonl").read_text().splitlines()) == 2, (
        "rows that came since go on too"
    )


def grounded(folder: Path) -> list[dict[str, Any]]:
    line = (folder / "out" / "annotations.jsonl").read_text(encoding="utf-8").splitlines()[0]
    rows: list[dict[str, Any]] = json.loads(line)["expressions"]
    return rows


def test_axe_finds_nothing_serious(results: Path, serve: Any, show: Any) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    mug, *others = RECORD["expressions"]  # type: ignore[misc]
    rows = [{**mug, "verified": False, "reviewed_by": "ann"}, *others]
    write(results, {**RECORD, "suspect_boxes": True, "expressions": rows})
    address = f"{serve(results).address}#mode=grid&order=file"
    page = show(address, color_scheme="dark", bypass_csp=True)

    def serious() -> list[Any]:
        found = axe.Axe().run(page).response["violations"]
        return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS]

    page.keyboard.press("1")
    assert serious() == []
    page.get_by_role("button", name="One by one").click()
    page.locator(".stage").wait_for()
    page.emulate_media(color_scheme="light")
    assert serious() == []
    page.keyboard.press("?")
    assert serious() == []


SERIOUS = ("serious", "critical")


def test_many_boxes_in_one_picture_stay_smooth(results: Path, serve: Any, show: Any) -> None:
    corners = [(4 + n % 20 * 19, 4 + n // 20 * 19) for n in range(300)]
    rows = [
        phrase(f"dog {n}", n, [x, y, x + 16, y + 8], caption="") for n, (x, y) in enumerate(corners)
    ]
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
