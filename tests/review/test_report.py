"""The report, opened from disk in a real browser: what it shows, where the boxes sit, and that data
stays data.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.manners import Manners, wordings_of
from dataflow_grounding.images.image import ImageFile, file_at
from dataflow_grounding.review import _report_files as report_files
from dataflow_grounding.review._report import write_report
from dataflow_grounding.review._versions import Version

pytestmark = pytest.mark.slow


def expression(
    caption: str, text: str, *instances: dict[str, Any], status: str | None = None, **more: Any
) -> dict[str, Any]:
    start = caption.find(text)
    return {
        "text": text,
        "char_span": [start, start + len(text)] if start >= 0 else None,
        "instances": list(instances),
        "status": status or ("grounded" if instances else "none"),
        **more,
    }


def box(*bbox: float, score: float | None = 0.9, evidence: str = "seen") -> dict[str, Any]:
    return {"bbox": list(bbox), "score": score, "evidence": evidence}


CAPTION = "A red mug on a wooden table beside two spoons and a cat."
MUG_ON_TABLE = {
    "image_id": "kitchen/0001",
    "image_path": "mug.png",
    "width": 400,
    "height": 300,
    "cleaned_caption": CAPTION,
    "expressions": [
        expression(CAPTION, "A red mug on a wooden table", box(40, 30, 200, 150)),
        expression(CAPTION, "a wooden table", box(0, 100, 400, 300, evidence="region", score=None)),
        expression(
            CAPTION,
            "two spoons",
            box(220, 60, 250, 200, score=0.5),
            box(260.5, 61.25, 300, 210, score=0.75),
        ),
        expression(CAPTION, "a cat", status="unsupported", reason="animals can't be looked for"),
        expression(CAPTION, "a dog", status="ambiguous"),
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (400, 300), (90, 120, 60)).save(tmp_path / "mug.png")
    return tmp_path


def report(folder: Path, records: Any, name: str = "report.html", **options: Any) -> Path:
    def find_image(record: Mapping[str, Any]) -> ImageFile | None:
        path = folder / str(record.get("image_path"))
        return file_at(str(path)) if path.exists() else None

    out = folder / name
    write_report(
        records,
        out_path=out,
        **{"find_image": find_image, "title": "Run", "summary": {}, **options},
    )
    return out


def data_of(page: Path) -> str:
    """The data that a page shows, as its scripts get them."""
    return "".join(path.read_text() for path in page.parent.glob(f"{page.stem}_files/*/*.js"))


def views_of(page: Path) -> list[dict[str, Any]]:
    """The records of a report in the order of the page, as its scripts get them."""
    views = []
    for path in sorted(page.parent.glob(f"{page.stem}_files/*/records-*.js")):
        views += json.loads(path.read_text().partition(", ")[2].removesuffix(");\n"))
    return views


def figures_of(page: Path) -> dict[str, str]:
    """The numbers at the head of the page, by name."""
    head = page.read_text().partition("</header>")[0]
    return dict(re.findall("<dt>(.+?)</dt><dd>(.+?)</dd>", head))


def facts_of(page: Path) -> str:
    [facts] = re.findall('<p class="facts">(.*?)</p>', page.read_text())
    return re.sub("<.*?>", "", facts)


def version(folder: Path, records: list[Any], name: str) -> Version:
    """An earlier version of records, as a step's file."""
    path = folder / f"earlier_{len(list(folder.iterdir()))}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Version(name, str(path))


def load(page: Any, path: Path, more: str = "") -> None:
    """Load a report, at the place in it that `more` names, and wait until it is there."""
    page.goto(path.as_uri() + more)
    page.wait_for_selector("[role=status]:not(:empty), [role=alert]")


@pytest.fixture
def show(new_page: Any) -> Iterator[Any]:
    pages = []

    def open_page(path: Path, more: str = "", **options: Any) -> Any:
        pages.append(page := new_page(**options))
        load(page, path, more)
        return page

    yield open_page
    for page in pages:
        page.close()


def opacity(page: Any, selector: str) -> list[float]:
    page.wait_for_timeout(250)  # let the fading end
    return [
        float(v)
        for v in page.locator(selector).evaluate_all(
            "all => all.map(e => getComputedStyle(e).opacity)"
        )
    ]


def background(page: Any, selector: str) -> str:
    return str(page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor"))


# Where each box is on its picture as shown, and how large that is. From the geometry: the line's
# width doesn't count.
PLACES = """all => all.map(line => {
  const p = line.closest('.picture').firstElementChild.getBoundingClientRect();
  const b = line.getBBox(), m = line.getScreenCTM();
  return [(b.x * m.a + m.e - p.x), (b.y * m.d + m.f - p.y),
          ((b.x + b.width) * m.a + m.e - p.x), ((b.y + b.height) * m.d + m.f - p.y), p.width, p.height];
})"""


def test_boxes_sit_where_they_should_at_any_width(folder: Path, show: Any) -> None:
    expected = [i["bbox"] for e in MUG_ON_TABLE["expressions"] for i in e["instances"]]  # type: ignore[attr-defined]
    # with its picture, and without
    for name, widths in (("mug.png", (1280, 390)), ("gone.png", (800,))):
        page = show(report(folder, [{**MUG_ON_TABLE, "image_path": name}]))
        for width in widths:
            page.set_viewport_size({"width": width, "height": 800})
            page.reload()
            page.locator(".box .line").first.wait_for()
            places = page.locator(".box .line").evaluate_all(PLACES)
            assert len(places) == len(expected)
            for bbox in expected:
                assert min(farthest(bbox, place) for place in places) <= 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def farthest(bbox: list[float], place: list[float]) -> float:
    """By how many pixels of the screen a side of a shown box is off."""
    sides = (place[4] / 400, place[5] / 300)
    return max(abs(value * sides[k % 2] - place[k]) for k, value in enumerate(bbox))


TURNED = {"image_id": "a", "image_path": "turned.jpg", "caption": "x", "expressions": []}


def turned(folder: Path, size: tuple[int, int]) -> None:
    """A photo that is stored on its side, as cameras do."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = "made by somebody at home"
    Image.new("RGB", size).save(folder / TURNED["image_path"], exif=exif)


@pytest.mark.parametrize(
    ("size", "copies"), [((1600, 800), True), ((1600, 1000), False)], ids=["asked for", "large"]
)
def test_a_small_copy_is_upright_and_without_metadata(
    folder: Path, size: tuple[int, int], copies: bool
) -> None:
    turned(folder, size)
    path = report(folder, [TURNED], copies=copies)
    (small,) = folder.glob("report_files/thumbnails/*")
    picture = Image.open(small)
    assert picture.size == (size[1] * 320 // 1600, 320)
    assert not dict(picture.getexif())
    assert f'"width":{size[1]},"height":1600' in data_of(path)


def test_a_picture_that_is_neither_large_nor_odd_is_shown_itself_and_upright(
    folder: Path, show: Any
) -> None:
    turned(folder, (1200, 800))
    path = report(folder, [TURNED])
    assert not list(folder.glob("report_files/thumbnails/*"))
    page = show(path)
    assert "800 × 1,200 px" in page.locator("article").inner_text()
    shown = page.locator("article img").first
    assert shown.evaluate("e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])") == [
        800,
        1200,
    ]
    assert shown.get_attribute("src") == "turned.jpg"


@pytest.mark.parametrize("name", ["large.png", "odd.bmp", "odd.jpg"])
def test_large_pictures_and_those_of_odd_types_have_a_small_copy(folder: Path, name: str) -> None:
    kind = {"large.png": "PNG", "odd.bmp": "BMP", "odd.jpg": "TIFF"}[name]
    picture = (
        Image.effect_noise((700, 500), 90) if name == "large.png" else Image.new("RGB", (400, 300))
    )
    picture.save(folder / name, kind)
    report(folder, [{**TURNED, "image_path": name}])
    assert len(list(folder.glob("report_files/thumbnails/*.jpg"))) == 1


def test_a_record_without_its_picture_is_still_shown(folder: Path, show: Any) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no picture")
    Image.new("RGB", (400, 300)).save(folder / "gone.png")
    names = ("broken.png", "missing.png", "gone.png")
    records = [{**MUG_ON_TABLE, "image_id": name, "image_path": name} for name in names]
    path = report(folder, records)
    (folder / "gone.png").unlink()
    page = show(path, "#show=without+picture")
    articles = page.locator("article")
    assert "The image file can't be read." in articles.nth(0).inner_text()
    assert "The image file is not there." in articles.nth(1).inner_text()
    assert page.locator(".phrase", has_text="two spoons").count() == 2
    page.goto("about:blank")
    load(page, path, "#record=gone.png")
    page.wait_for_selector("article svg.frame")  # which had a picture when the page was made
    assert page.locator("article img").count() == 0


def test_it_is_told_how_far_it_is_and_records_are_not_read_far_ahead(folder: Path) -> None:
    opened, told, ahead = [0], list[int](), list[int]()

    def records() -> Iterator[dict[str, Any]]:
        for n in range(250):
            ahead.append(n - opened[0])
            yield {"image_id": str(n), "expressions": []}

    def found(record: Any) -> None:
        opened[0] = int(record["image_id"])

    report(folder, records(), find_image=found, on_progress=told.append)
    assert max(ahead) <= 1
    assert told == [100, 200]


HOSTILE = (
    "<script>document.title='hacked'</script>"
    "<img src=x onerror=\"document.title='hacked'\">"
    "\"'><svg onload=document.title='hacked'>"
    "</title></style><script>document.title='hacked'</script>"
    "<style>body{display:none}</style>"
    "$title ${style} {0} %s &lt;b&gt; <!-- records --><!-- failures -->"
)
"""Scripts, handlers, ends of attributes and of the head, styles, and places of the template."""


@pytest.mark.parametrize("single", [False, True], ids=["a folder", "a single file"])
def test_text_stays_text_wherever_it_stands(folder: Path, show: Any, single: bool) -> None:
    text = HOSTILE
    caption = f"{text} and more"
    checked = {"verified": False, "verification": {"reason": text}}
    rows = [
        expression(caption, text, box(1, 1, 20, 20, evidence=text), **checked),
        expression(caption, "more", status=text),
    ]
    record = {"image_id": text, "image_path": text, "width": 40, "height": 30}
    record |= {"cleaned_caption": caption, "expressions": rows}
    before = {**record, "expressions": [expression(caption, "more", box(1, 1, 2, 2))]}
    options = {
        "title": text,
        "summary": {"model": text},
        "failures": [{"id": text, "step": text, "kind": text, "message": text}, {}],
        "versions": [version(folder, [before], text)],
        "own_name": text,
    }
    path = report(folder, [record], find_image=lambda _: None, single=single, **options)
    page = show(path)
    assert page.title() == text
    assert page.locator(".caption").evaluate("e => e.textContent") == caption
    for selector in (
        "h1",
        "article h2",
        ".expressions .phrase",
        ".reason",
        "td",
        "label[for=kind-0] bdi",
        ".version h3",
        ".changes b",
        "header .facts",
    ):
        assert page.locator(selector).first.evaluate("e => e.textContent") == text
    assert page.locator("article").first.is_visible()
    foreign = "article script, #report style, [onerror], [onload]"
    assert page.locator(foreign).count() == 0
    sources = "all => all.map(s => s.getAttribute('src'))"
    scripts = page.locator("head script").evaluate_all(sources)
    assert all(name.startswith("report_files/") for name in scripts)


def test_the_page_asks_no_network_and_runs_no_other_script(folder: Path, browser: Any) -> None:
    path = report(folder, [MUG_ON_TABLE])
    page = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    page.wait_for_selector("article")
    assert all(url.startswith(folder.as_uri()) for url in asked)
    assert said == []  # the page's own policy has nothing to refuse
    for way in (
        "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s)",
        "const s = document.createElement('script'); s.src = 'data:,document.title = 1'; document.body.append(s)",
        "document.body.innerHTML = '<img src=x onerror=\"document.title = 1\">'",
        "document.body.setAttribute('onclick', 'document.title = 1'); document.body.click()",
        "location.href = 'javascript:document.title = 1'",
    ):
        page.evaluate(f"() => {{ try {{ {way} }} catch {{}} }}")
    page.wait_for_timeout(200)
    assert page.title() == "Run"
    page.close()


def test_characters_that_deceive_or_break_are_made_visible(folder: Path, show: Any) -> None:
    texts = ("a \u202egnp.exe", "nul\x00 and \x1b[31m", "half \ud83d of a pair", "\ufeffmark")
    records = [{"image_id": str(n), "caption": t, "expressions": []} for n, t in enumerate(texts)]
    page = show(report(folder, records))
    captions = page.locator(".caption").evaluate_all("all => all.map(e => e.textContent)")
    assert len(captions) == len(texts)
    for shown in captions:
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\ud800-\udfff]", shown)
        assert re.search(r"\[U\+202E\]|\ufffd|\ufeff", shown)


SPANS = {
    "apart": [(0, 8), (12, 20)],
    "side by side": [(0, 8), (8, 20)],
    "one within the other": [(0, 20), (3, 8), (5, 7)],
    "crossing": [(0, 10), (5, 15), (12, 20)],
    "the same twice": [(2, 9), (2, 9), (2, 5)],
    "all of it": [(0, 26)],
}


def test_each_phrase_is_marked_exactly_whatever_overlaps(folder: Path, show: Any) -> None:
    caption = "abc \U0001f600 <b>&amp;</b> e\u0301 xyz 12"
    records = []
    for name, spans in SPANS.items():
        rows = [
            {"text": caption[s:e], "char_span": [s, e], "instances": [box(1, 1, 9, 9)]}
            for s, e in spans
        ]
        one = {"image_id": name, "caption": caption, "width": 9, "height": 9}
        records.append({**one, "expressions": rows})
    page = show(report(folder, records))
    for name, spans in SPANS.items():
        article = page.locator("article", has=page.get_by_role("heading", name=name, exact=True))
        assert article.locator(".caption").evaluate("e => e.textContent") == caption
        for n, (start, end) in enumerate(spans):
            parts = article.locator(f".mark.m{n}").evaluate_all(
                "all => all.map(e => e.textContent)"
            )
            assert "".join(parts) == caption[start:end], name
            assert article.locator(f'.mark.m{n}[data-n="{n + 1}"]').count() == 1


def test_hovering_a_phrase_shows_its_boxes_and_the_other_way_round(folder: Path, show: Any) -> None:
    page = show(report(folder, [MUG_ON_TABLE, MUG_ON_TABLE]))
    assert set(opacity(page, ".box")) == {1}
    article = page.locator("article").first

    article.locator(".caption .link.e1").hover()
    assert opacity(page, "article:first-child .box.e1") == [1]
    assert max(opacity(page, "article:first-child .box:not(.e1)")) < 0.5
    assert set(opacity(page, "article:last-child .box")) == {1}, "other images stay as they are"

    article.locator("li.e2").hover()
    assert opacity(page, "article:first-child .box.e2") == [1, 1]

    article.locator(".absent summary").click()
    article.locator("li.e3").hover()
    assert max(opacity(page, "article:first-child .box")) < 0.5, "nothing was found for it"

    quiet = background(page, "article:first-child .mark.m2")
    article.locator(".box.e2 .tag").first.hover()
    assert opacity(page, "article:first-child .box.e2") == [1, 1]
    assert background(page, "article:first-child .mark.m2") != quiet


def test_keys_move_through_images_pages_and_phrases(folder: Path, show: Any) -> None:
    page = show(report(folder, [{**MUG_ON_TABLE, "image_id": str(n)} for n in range(25)]))
    focused = "document.activeElement.querySelector('h2')?.textContent"
    for key, now in (("j", "0"), ("j", "1"), ("k", "0"), ("k", "0")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == now
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # the picture, then its name
    page.locator("li.e1").first.focus()
    assert opacity(page, "article:first-child .box.e1") == [1]
    assert max(opacity(page, "article:first-child .box:not(.e1)")) < 0.5
    for key, there in (
        ("ArrowRight", "Images 21 to 25 of 25"),
        ("ArrowLeft", "Images 1 to 20 of 25"),
        ("g", "Boxes 1 to 60 of 100"),
        ("g", "Images 1 to 20 of 25"),
    ):
        page.keyboard.press(key)
        page.locator("[role=status]", has_text=there).wait_for()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("spoons? j")
    page.locator("[role=status]", has_text="Images 0 to 0 of 0").wait_for()
    assert page.get_by_label("Contains").input_value() == "spoons? j"


def test_head_nouns_beyond_those_with_a_number_are_filtered_by_as_well(
    folder: Path, show: Any
) -> None:
    many = []
    for number in range(50):
        texts = [f"a {100 * number + thing:05}thing" for thing in range(100)]
        rows = [expression("", text, box(1, 1, 20, 20)) for text in texts]
        many.append({"image_id": f"many {number}", "caption": "", "expressions": rows})
    records = [
        *many,
        {"image_id": "a", "caption": "", "expressions": [expression("", "a zebra")]},
        {"image_id": "b", "caption": "", "expressions": [expression("", "a 00000thing")]},
    ]
    path = report(folder, records)
    page = show(path)
    for head, expected in (
        ("00000thing", ["many 0"]),  # where it was found
        ("04999thing", ["many 49"]),
        ("zebra", ["a"]),  # which was found nowhere
        ("05000thing", []),
    ):
        page.goto("about:blank")
        load(page, path, f"#head={head}")
        assert page.locator("article h2").all_inner_texts() == expected, head


def test_filters_stand_in_the_address_and_hold_after_a_reload(folder: Path, show: Any) -> None:
    checked = [expression("a cat", "a cat", box(1, 1, 20, 20, score=0.2), verified=True)]
    records = [
        MUG_ON_TABLE,
        {
            "image_id": "b",
            "caption": "a cat",
            "model": "other",
            "expressions": [expression("a cat", "a cat")],
        },
        {
            "image_id": "c",
            "caption": "a cat",
            "model": "other",
            "expressions": checked,
            "doubtful": True,
        },
    ]
    path, mug = report(folder, records), "kitchen/0001"
    page = show(path)
    for more, expected in (
        ("", ["c", mug, "b"]),
        ("#show=none", ["b"]),
        ("#show=verified", ["c"]),
        ("#show=doubtful", ["c"]),
        ("#q=Wooden+TABLE", [mug]),
        ("#head=cat", ["c"]),  # where it was found
        ("#head=cat&show=none", ["b"]),
        ("#size=small", ["c"]),
        ("#low=0.9", [mug]),
        ("#model=other&show=none", ["b"]),
        ("#record=b", ["b"]),
        ("#head=nothing", []),
        ("#show=<b>&page=99", ["c", mug, "b"]),
    ):
        page.goto("about:blank")  # another place alone would load nothing
        load(page, path, more)
        assert page.locator("article h2").all_inner_texts() == expected, more
    page.goto("about:blank")
    load(page, path)
    page.locator("label[for=show-none]").click()
    page.locator("[role=status]", has_text="1 to 1 of 1").wait_for()
    page.get_by_label("Head noun").fill("cat")
    page.get_by_label("Head noun").press("Enter")
    page.wait_for_url("**#*head=cat*")
    page.reload()
    page.locator("article").wait_for()
    assert page.locator("article h2").all_inner_texts() == ["b"]
    assert page.get_by_label("Head noun").input_value() == "cat"
    assert page.locator("#show-none").is_checked()
    page.get_by_role("link", name="Clear filters").click()
    page.locator("article").nth(2).wait_for()
    page.get_by_role("link", name="Grid").click()
    page.wait_for_url("**#view=grid")
    page.locator("[role=status]", has_text="Images 1 to").wait_for()
    assert page.get_by_role("link", name="Clear filters").count() == 0


def test_without_scripts_the_page_says_what_it_is_and_counts(folder: Path, browser: Any) -> None:
    path = report(folder, [MUG_ON_TABLE], failures=[failure(0)], summary={"notes": {"bbox_cut": 3}})
    page = browser.new_page(java_script_enabled=False)
    page.goto(path.as_uri())
    assert page.locator("h1").inner_text() == "Run"
    assert figures(page)["grounded"] == "3"
    assert "refused 1" in page.locator("header").inner_text()
    assert "3 boxes cut at the edge" in page.locator("header").inner_text()
    assert "need scripts" in page.locator("body").inner_text()
    page.close()


def test_several_labels_are_chosen_at_once_by_mouse_and_keyboard(
    folder: Path, show: Any, expect: Any
) -> None:
    records = []
    for name in ("mug", "spoon", "dog", "lamp"):
        rows = [expression("", f"a {name}", box(10, 10, 90, 90)), expression("", "a cat")]
        records.append({**MUG_ON_TABLE, "image_id": name, "expressions": rows})
    records.append(
        {**MUG_ON_TABLE, "image_id": "bare", "expressions": [expression("", "A", box(1, 1, 9, 9))]}
    )
    page = show(report(folder, records), viewport={"width": 1400, "height": 900})
    names = page.locator("article h2")
    page.get_by_label("also mug").check()
    expect(names).to_have_text(["mug"])
    expect(page.get_by_label("also mug")).to_be_focused()  # though the list was made again
    page.get_by_label("also lamp").press("Space")
    expect(names).to_have_text(["mug", "lamp"])
    assert page.url.endswith("#head=mug&head=lamp")
    page.reload()
    expect(names).to_have_text(["mug", "lamp"])
    assert page.get_by_label("also lamp").is_checked()
    assert page.locator(".labels a[aria-current]").all_inner_texts() == ["mug\n1", "lamp\n1"]
    page.get_by_role("link", name="Phrases side by side").click()
    expect(page.locator(".cell bdi")).to_have_text(["a mug", "a lamp"])
    page.get_by_label("also mug").uncheck()
    expect(page.locator(".cell bdi")).to_have_text(["a lamp"])
    page.get_by_role("link", name="Pictures").click()
    page.locator(
        ".labels a", has_text="cat"
    ).click()  # a label alone, which no picture has a box of
    expect(names).to_have_text(["mug", "spoon", "dog", "lamp"])
    page.locator(".labels a", has_text="–").click()  # phrases without a head noun
    expect(names).to_have_text(["bare"])
    page.get_by_role("link", name="Clear filters").click()
    expect(names).to_have_count(5)


def test_a_grids_pictures_are_made_larger_and_smaller(folder: Path, show: Any, expect: Any) -> None:
    page = show(
        report(folder, [{**MUG_ON_TABLE, "image_id": str(n)} for n in range(8)]),
        viewport={"width": 1400, "height": 900},
    )
    slider = page.get_by_label("Picture size")
    assert not slider.is_visible()  # a list's pictures have their place
    page.get_by_role("link", name="Grid").click()
    expect(slider).to_be_visible()

    def in_a_row() -> int:
        tops = [card.bounding_box()["y"] for card in page.locator("article").all()]
        return tops.count(tops[0])

    def width() -> float:
        return float(page.locator("article img").first.bounding_box()["width"])

    wide, many = width(), in_a_row()
    slider.focus()
    page.keyboard.press("End")
    expect(page.locator("article")).to_have_count(8)
    assert width() > 1.4 * wide
    assert in_a_row() < many
    assert slider.evaluate("e => e === document.activeElement")
    slider.fill("100")
    assert width() < 0.7 * wide
    assert in_a_row() > many
    assert not page.locator(".tag").first.is_visible()  # numbers would hide what is numbered
    slider.evaluate("e => e.blur()")
    page.keyboard.press("+")
    assert "side=140" in page.url
    page.reload()
    expect(slider).to_have_value("140")
    page.get_by_role("link", name="Phrases side by side").click()
    crop = page.locator(".crop").first
    assert crop.bounding_box()["width"] == 140
    page.keyboard.press("-")
    expect(slider).to_have_value("100")
    page.set_viewport_size({"width": 400, "height": 800})
    page.get_by_text("Filters").click()
    slider.fill("480")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_failures_are_folded_unless_there_is_nothing_else(folder: Path, show: Any) -> None:
    page = show(report(folder, [MUG_ON_TABLE], failures=[failure(0)]))
    table = page.locator(".failures table")
    assert not table.is_visible()
    page.locator(".failures summary").click()
    assert table.is_visible()
    report(folder, [], failures=[failure(0)])
    page.reload()
    table.wait_for()


def test_histograms_show_how_many_pictures_there_are_and_choose_among_them(
    folder: Path, show: Any, expect: Any
) -> None:
    pictures = {
        "none": [],
        "low": [box(0, 0, 10, 10, score=0.05)],
        "two": [box(0, 0, 10, 10, score=0.55), box(0, 0, 100, 100, score=0.95)],
        "top": [box(0, 0, 300, 300, score=1)],
        "four": [box(0, 0, 100, 100, score=None)] * 4,
    }
    records = [
        {**MUG_ON_TABLE, "image_id": name, "expressions": [expression("", "a mug", *boxes)]}
        for name, boxes in pictures.items()
    ]
    page = show(report(folder, records), viewport={"width": 1400, "height": 900})
    names = page.locator("article h2")
    page.locator(".histograms summary").click()

    def bars(title: str) -> list[str]:
        labels = page.get_by_role("group", name=title).get_by_role("checkbox")
        texts = labels.evaluate_all("all => all.map(e => e.ariaLabel)")
        return [text.rpartition(", ")[2] for text in texts if not text.endswith(": 0 pictures")]

    assert bars("Score") == ["0 to .1: 1 picture", ".5 to .6: 1 picture", ".9 to 1: 2 pictures"]
    sides = ["0 to 16: 2 pictures", "64 to 128: 2 pictures", "256 and more: 1 picture"]
    assert bars("Side of a box") == sides
    assert bars("Boxes in a picture") == [
        "0: 1 picture",
        "1: 2 pictures",
        "2: 1 picture",
        "3 to 5: 1 picture",
    ]
    high = page.get_by_role("checkbox", name="Score, .9 to 1")
    high.press("Space")
    expect(names).to_have_text(["two", "top"])
    expect(high).to_be_focused()
    assert bars("Score") == ["0 to .1: 1 picture", ".5 to .6: 1 picture", ".9 to 1: 2 pictures"]
    assert bars("Boxes in a picture") == ["1: 1 picture", "2: 1 picture"]  # of those chosen
    page.get_by_role("checkbox", name="Score, 0 to .1").press("Space")
    expect(names).to_have_text(["low", "two", "top"])
    page.get_by_role("checkbox", name="Side of a box, px, 256").press("Space")
    expect(names).to_have_text(["top"])
    assert "scores=0%2C9" in page.url
    page.reload()
    expect(names).to_have_text(["top"])
    assert high.is_checked()  # and the histograms are open
    page.get_by_role("link", name="Clear filters").click()
    expect(names).to_have_count(5)
    expect(high).not_to_be_checked()


def test_without_scores_or_boxes_there_are_no_histograms_of_them(folder: Path, show: Any) -> None:
    unscored = {
        **MUG_ON_TABLE,
        "expressions": [expression("", "a mug", box(1, 1, 9, 9, score=None))],
    }
    page = show(report(folder, [unscored]))
    titles = page.locator(".histograms legend").all_text_contents()
    assert titles == ["Side of a box, px", "Boxes in a picture"]
    bare = show(report(folder, [{**MUG_ON_TABLE, "expressions": []}]))
    assert bare.locator(".histograms").count() == 0


def classes_found(*names: str) -> list[dict[str, Any]]:
    """Expressions of a run with the classes lamp, red mug, Traffic Light: these have a box each."""
    classes = ("lamp", "red mug", "Traffic Light")
    rows = []
    for number, name in enumerate(classes):
        boxes = [box(10 + 90 * number, 100, 100 + 90 * number, 200)] if name in names else []
        rows.append(expression("", name, *boxes, **{"class": name}))
    return rows


def test_classes_are_the_labels_and_have_one_colour_on_all_of_the_page(
    folder: Path, show: Any, expect: Any
) -> None:
    pictures = {
        "a": classes_found("red mug", "Traffic Light"),
        "b": classes_found("Traffic Light"),
    }
    records = [
        {
            "image_id": name,
            "image_path": "mug.png",
            "width": 400,
            "height": 300,
            "expressions": rows,
        }
        for name, rows in pictures.items()
    ]
    page = show(report(folder, records), viewport={"width": 1400, "height": 900})
    assert page.locator(".labels summary").inner_text().split() == ["Classes", "boxes"]
    labels = page.locator(".labels a")
    assert [text.split("\n") for text in labels.all_inner_texts()] == [
        ["all", "3"],
        ["Traffic Light", "2"],
        ["red mug", "1"],
        ["lamp", "0"],
    ]

    def colors(selector: str, name: str) -> set[str]:
        return set(
            page.locator(selector).evaluate_all(f"all => all.map(e => getComputedStyle(e).{name})")
        )

    swatch = colors(".labels a:has-text('Traffic') i", "backgroundColor")
    assert len(swatch) == 1
    assert page.locator(".box.e2").count() == 2
    assert colors(".box.e2 .line", "stroke") == swatch
    assert colors("li.e2 .badge", "backgroundColor") == swatch
    assert colors(".box.e1 .line", "stroke") != swatch
    assert page.locator(".tag text").all_text_contents() == [
        "2 red mug",
        "3",  # the box has no room for the name
        "3",
    ]
    assert page.get_by_label("Head noun").count() == 0
    assert "No caption" not in page.inner_text("main")
    labels.filter(has_text="red mug").click()
    expect(page.locator("article h2")).to_have_text(["a"])
    page.locator("label[for=show-none]").click()
    expect(page.locator("article h2")).to_have_text(["b"])


def test_one_thing_is_one_box_with_the_words_of_all_its_phrases(
    folder: Path, show: Any, expect: Any
) -> None:
    """Two wordings of a class found one person; "a human" has another, too."""
    rows = [
        expression("", "a person", box(10, 10, 110, 210, score=0.8), **{"class": "person"}),
        expression(
            "",
            "a human",
            box(11, 10, 110, 210, score=0.7),
            box(200, 10, 300, 210),
            **{"class": "person"},
        ),
        expression("", "a hat", box(10, 10, 110, 208), **{"class": "hat"}),
    ]
    record = {**MUG_ON_TABLE, "cleaned_caption": "", "expressions": rows}
    path = report(folder, [record])
    page = show(path, viewport={"width": 1400, "height": 900})
    labels = [text.split("\n") for text in page.locator(".labels a").all_inner_texts()]
    assert labels == [["all", "3"], ["person", "2"], ["hat", "1"]]
    assert page.locator(".box").count() == 3
    titles = page.locator(".box title").all_text_contents()
    assert {title.split("\n")[0] for title in titles} == {"a person, a human", "a human", "a hat"}
    assert sorted(page.locator(".tag text").all_text_contents()) == [
        "1, 2 person",
        "2 person",
        "3 hat",
    ]
    said = page.locator("li.e1 .detail").inner_text()
    assert said == "2 boxes · same thing as 1 · score 0.70, 0.90 · seen"
    page.locator("li.e1").hover()
    assert sorted(opacity(page, ".box")) == [0.15, 1.0, 1.0]
    load(page, path, "#view=grid")
    expect(page.locator(".card > .facts b")).to_have_text("3 boxes")
    load(page, path, "#view=phrases")
    words = page.locator(".cell > bdi")
    expect(words).to_have_text(["a person, a human", "a human", "a hat"])
    load(page, path, "#view=phrases&q=human")  # each wording finds all of its boxes
    expect(words).to_have_text(["a human", "a human"])


def test_a_number_at_the_right_edge_stays_in_the_picture(folder: Path, show: Any) -> None:
    records = [
        {
            **MUG_ON_TABLE,
            "expressions": [expression(CAPTION, "a cat", box(394, 100, 400, 200))],
        }
    ]
    page = show(report(folder, records))
    picture = page.locator(".picture > img").bounding_box()
    tag = page.locator(".tag rect").bounding_box()
    assert tag["x"] + tag["width"] <= picture["x"] + picture["width"] + 1


def test_failures_alone_have_no_filters_of_pictures(folder: Path, show: Any) -> None:
    page = show(report(folder, [], failures=[failure(0)]))
    assert page.locator(".failures tr").count() == 2
    for selector in (".views", ".fields", ".labels", ".by-show"):
        assert page.locator(selector).count() == 0
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_grid_shows_pictures_alone_and_leads_to_each(folder: Path, show: Any) -> None:
    other = {**MUG_ON_TABLE, "image_id": "other", "expressions": []}
    page = show(report(folder, [MUG_ON_TABLE, other]))
    page.get_by_role("link", name="Grid").click()
    page.locator(".card").nth(1).wait_for()
    assert [re.sub(r"\s+", " ", text) for text in page.locator(".card > a").all_inner_texts()] == [
        "kitchen/0001 4 boxes",
        "other 0 boxes",
    ]
    picture = page.locator(".card .picture > img").first.bounding_box()
    overlay = page.locator(".card .overlay").first.bounding_box()
    assert overlay == pytest.approx(picture, abs=1)  # boxes lie where they do in the picture
    page.locator(".card > a").first.click()
    page.locator("article .caption").wait_for()
    assert page.locator("article h2").all_inner_texts() == ["kitchen/0001"]


def test_what_was_not_found_is_folded_and_only_unchecked_regions_are_dashed(
    folder: Path, show: Any
) -> None:
    page = show(report(folder, [MUG_ON_TABLE]))
    assert page.locator(".absent summary").inner_text() == "1 unsupported, 1 ambiguous"
    assert not page.locator(".absent li").first.is_visible()
    page.locator(".absent summary").click()
    rows = page.locator(".expressions li").all_inner_texts()
    assert [re.sub(r"\s+", " ", row) for row in rows] == [
        "1 A red mug on a wooden table 1 box · score 0.90 · seen",
        "2 a wooden table 1 box · region",
        "3 two spoons 2 boxes · score 0.50, 0.75 · seen",
        "4 a cat unsupported animals can't be looked for",
        "5 a dog ambiguous",
    ]
    assert page.locator(".caption .mark.grey").all_inner_texts() == ["a cat"]
    assert "score 0.75 · evidence: seen" in (
        page.locator(".caption .link.e2").get_attribute("title") or ""
    )
    dashes = page.locator(".box .line").evaluate_all(
        "all => all.map(e => [e.parentNode.classList.contains('e1'), getComputedStyle(e).strokeDasharray != 'none'])"
    )
    assert all(is_region == dashed for is_region, dashed in dashes)
    assert "Dashed" in page.get_by_role("status").inner_text()


def test_of_a_picture_in_which_nothing_was_found_the_rest_is_open(folder: Path, show: Any) -> None:
    absent = [each for each in MUG_ON_TABLE["expressions"] if not each["instances"]]
    page = show(report(folder, [{**MUG_ON_TABLE, "expressions": absent}]))
    page.locator(".absent li").first.wait_for()
    behind_caption = "article .caption ~ details.absent"
    assert page.locator(behind_caption).count() == 1
    texts = page.locator(behind_caption).evaluate("e => e.parentNode.textContent")
    between = texts.partition("1 unsupported")[0]
    assert not between.rstrip().endswith("0")


def figures(page: Any) -> dict[str, str]:
    counts = page.locator(".figures div").evaluate_all(
        "all => all.map(e => [...e.children].map(c => c.textContent))"
    )
    return dict(counts)


REGIONS = [{"bbox": [40, 30, 200, 150], "type": "mug"}, {"bbox": [0, 100, 400, 300], "type": ""}]
STATUSES_OF_MUG = {"grounded": "3", "ambiguous": "1", "unsupported": "1"}


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        pytest.param(
            {
                **MUG_ON_TABLE,
                "regions": REGIONS,
                "expressions": [
                    {**e, "verified": e["text"] != "two spoons"}
                    for e in MUG_ON_TABLE["expressions"]
                ],  # type: ignore[attr-defined]
            },
            {
                "regions": "2",
                "expressions": "5",
                **STATUSES_OF_MUG,
                "verified": "4",
                "not verified": "1",
            },
            id="referring expressions",
        ),
        pytest.param(
            {
                "regions": REGIONS,
                "region_captions": [{"bbox": REGIONS[0]["bbox"], "text": "A mug."}, REGIONS[1]],
            },
            {"regions": "2", "captions": "1"},
            id="region captions, one without text",
        ),
        pytest.param({"caption": "A mug."}, {}, id="captions only"),
    ],
)
def test_the_figures_are_those_of_the_pipeline_shown(
    folder: Path, record: dict[str, Any], counts: dict[str, str]
) -> None:
    path = report(folder, [record])
    assert figures_of(path) == {"images": "1", **counts}
    [view] = views_of(path)
    assert len(view["expressions"]) == int(counts.get("expressions", counts.get("regions", 0)))


def test_of_the_summary_model_and_time_are_shown_and_nothing_else(folder: Path) -> None:
    """The counts are those of the records and of the failures, not what the summary says."""
    summary = {
        "images": 1234,
        "failed": 7,
        "seconds": 754.2,
        "model": "embedded-opencv",
        "api_key": "sk-secret",
    }
    path = report(folder, [MUG_ON_TABLE], summary=summary)
    assert "sk-secret" not in path.read_text()
    assert facts_of(path) == "embedded-opencv · 12 min 34 s"
    assert figures_of(path)["images"] == "8"
    for more, said in (
        ({"seconds": 0.0, "already_complete": True}, ""),
        ({"seconds": 0.1, "replayed": 12}, " · last run 0.1 s"),  # earlier runs took theirs, too
    ):
        path = report(folder, [MUG_ON_TABLE], summary={**summary, **more})
        assert facts_of(path) == f"embedded-opencv{said}"


def failure(n: int, kind: str = "refused", message: str = "no") -> dict[str, Any]:
    step = "step_1_grounding"
    return {
        "id": f"street/{n}",
        "line": n,
        "step": step,
        "kind": kind,
        "message": message,
        "reply": "long",
    }


def test_failures_are_first_with_reasons_and_a_filter_by_kind(
    folder: Path, show: Any, expect: Any
) -> None:
    failures = [
        failure(0),
        failure(1, "image_missing", "no image 'a.jpg'"),
        {**failure(2, "broken_row"), "id": None},
    ]
    page = show(report(folder, [MUG_ON_TABLE], failures=iter(failures)))
    page.locator(".failures summary").click()
    assert page.locator(".failures td").all_inner_texts()[:4] == [
        "street/0",
        "no",
        "refused",
        "step_1_grounding",
    ]
    assert page.locator(".failures td").all_inner_texts()[8] == "line 2"
    assert "long" not in page.locator(".failures").inner_text()
    above = page.locator(".failures").bounding_box()["y"]
    assert (
        above
        < page.locator(".by-show").bounding_box()["y"]
        < page.locator("article").bounding_box()["y"]
    )
    page.get_by_role("region", name="Failures").get_by_role("table").wait_for()
    for kind, name in (("image_missing", "street/1"), ("refused", "street/0")):
        page.locator(".by-kind label", has_text=kind).click()
        expect(page.locator(".failures tr:visible td:first-child")).to_have_text([name])
        assert page.locator("article").is_visible()
    page.locator("label[for=kind-all]").click()
    page.locator(".failures tr").nth(3).wait_for()
    assert figures(page)["failures"] == "3"


@pytest.mark.parametrize(("width", "height", "most"), [(1400, 900, 350), (400, 860, 480)])
def test_the_first_picture_is_on_the_first_screen(
    folder: Path, show: Any, width: int, height: int, most: int
) -> None:
    records = []
    for number, status in enumerate(("grounded", "none", "ambiguous", "unsupported")):
        phrase = expression("a mug", "a mug", *([box(0, 0, 9, 9)] if not number else []))
        phrase["status"] = status
        records.append({**MUG_ON_TABLE, "image_id": status, "expressions": [phrase]})
    failures = [failure(number) for number in range(3)]
    page = show(
        report(folder, records, failures=failures), viewport={"width": width, "height": height}
    )
    picture = page.locator("article .picture").first.bounding_box()
    assert picture["y"] + picture["height"] <= height
    assert picture["y"] <= most


def test_nothing_is_cut_at_any_width(folder: Path, show: Any) -> None:
    kinds = ["refused", "image_missing", "unreadable_reply", "truncated_reply", "server_overloaded"]
    failures = [
        failure(n, kind, "a_word_without_any_break_in_it_" * 3) for n, kind in enumerate(kinds)
    ]
    page = show(report(folder, [MUG_ON_TABLE], failures=failures))
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.outerHTML.slice(0, 90))"
    for width in (1280, 833, 400, 320):
        page.set_viewport_size({"width": width, "height": 900})
        page.reload()
        page.locator(".failures summary").click()
        page.get_by_role("cell", name="server_overloaded").scroll_into_view_if_needed()
        boxes = page.locator("html, fieldset, table, tr, .failures div, .text")
        assert boxes.evaluate_all(cut) == []
        right = page.locator("label, td, h2").evaluate_all(
            "all => all.map(e => e.getBoundingClientRect().right)"
        )
        assert max(right) <= width


def test_kinds_without_end_share_a_filter_and_stay_in_the_table(folder: Path, show: Any) -> None:
    page = show(
        report(
            folder, [], failures=[failure(n, f"kind {n}") for n in range(99)] + [failure(99, "all")]
        )
    )
    labels = page.locator(".by-kind label").all_inner_texts()
    assert (labels[0], labels[-1], len(labels)) == ("all100", "other80", 22)
    page.locator(".by-kind label").last.click()
    page.get_by_role("navigation", name="Pages of failures").get_by_role("link", name="4").click()
    page.locator(".failures td", has_text="street/99").wait_for()
    assert page.locator(".failures tr td:nth-child(3)").all_inner_texts()[-2:] == ["kind 98", "all"]


def test_secrets_in_messages_do_not_reach_the_page(folder: Path) -> None:
    said = "https://me:hunter22@example.org/v1?api_key=sk-abcdef0123456789 answered 500"
    record = {"image_path": said, "expressions": []}
    page = report(folder, [record], failures=[failure(0, message=said)], title=said)
    for text in (page.read_text(), data_of(page)):
        assert "hunter22" not in text
        assert "sk-abcdef0123456789" not in text


def test_doubtful_and_unverified_images_come_first_each_with_a_filter(
    folder: Path, show: Any
) -> None:
    caption = "a mug"
    checks = {
        "wrong": {"verified": False, "verification": {"reason": "it fits 2 regions"}},
        "unchecked": {"verified": None, "verification": {"reason": "not checked"}},
        "right": {"verified": True, "verification": {"reason": None}},
        "several": {"disagreement": True},
        "differ": {
            "verified": None,
            "doubtful": True,
            "verification": {"method": "check", "boxes": [], "reason": "the answers differ"},
        },
        "plain": {},
    }
    records = [
        {
            "image_id": name,
            "caption": caption,
            "expressions": [expression(caption, caption, box(1, 1, 9, 9), **check)],
            **({"doubtful": True} if check.get("doubtful") else {}),
        }
        for name, check in checks.items()
    ]
    records += [{**records[-1], "image_id": "much dropped", "doubtful": True}]
    records += [
        {**records[-2], "image_id": "everywhere", "doubtful": True, "doubt": "each has all"}
    ]
    records += [{"image_id": "broken", "caption": caption, "expressions": "a mug"}]
    page = show(report(folder, records))
    marked = {
        "unreadable": ["broken"],
        "doubtful": ["much dropped", "everywhere"],
        "disputed": ["several"],
        "undecided": ["differ"],
        "unverified": ["wrong", "unchecked"],
    }
    in_order = [name for names in marked.values() for name in names]
    assert page.locator("article h2").all_inner_texts() == [*in_order, "right", "plain"]
    for name, expected in marked.items():
        page.locator(f"label[for=show-{name}]").click()
        page.locator("[role=status]", has_text=f"of {len(expected)}").wait_for()
        page.locator("article h2:visible", has_text=expected[-1]).wait_for()
        assert page.locator("article h2:visible").all_inner_texts() == expected
    page.locator("label[for=show-all]").click()
    page.locator("article").nth(8).wait_for()
    for name, shown in (
        ("differ", "1 a mug 1 box · score 0.90 · seen · undecided the answers differ"),
        ("wrong", "1 a mug 1 box · score 0.90 · seen · not verified it fits 2 regions"),
        ("unchecked", "1 a mug 1 box · score 0.90 · seen · not checked"),
        ("right", "1 a mug 1 box · score 0.90 · seen · verified"),
        ("several", "1 a mug 1 box · score 0.90 · seen · samples disagree"),
    ):
        row = page.locator(
            "article", has=page.locator("h2", has_text=re.compile(f"^{name}$"))
        ).locator("li")
        assert re.sub(r"\s+", " ", row.inner_text()) == shown
    told = {}
    for article in page.locator("article").all():
        told[article.locator("h2").inner_text()] = article.inner_text()
    assert "Doubtful: much of a reply was dropped" in told["much dropped"]
    assert "Doubtful: each has all." in told["everywhere"]
    assert "column 'expressions'" in told["broken"]
    assert [name for name, text in told.items() if "Doubtful" in text] == marked["doubtful"]


def test_rare_remarks_have_a_filter_and_come_before_usual_ones(folder: Path, show: Any) -> None:
    records = []
    for number in range(6):
        words = "The mug is a <b>guess</b>." if number == 4 else f"I found {number} mugs."
        rows = [expression("a mug", "a mug", box(1, 1, 9, 9))]
        records.append({"image_id": str(number), "remark": words, "expressions": rows})
    manners = Manners()
    for record in records:
        manners.add(wordings_of(record))
    page = show(report(folder, records, manners=manners))
    assert page.locator("article h2").all_inner_texts() == [*"401235"]
    assert figures(page)["unusual"] == "1"
    said = "Said next to answers: 5 records: I found N …; 1 remark that came once or seldom."
    assert said in page.locator("header").inner_text()
    page.locator("label[for=show-unusual]").click()
    page.locator("[role=status]", has_text="of 1").wait_for()
    article = page.locator("article:visible")
    assert "The model said with its answer: The mug is a <b>guess</b>." in article.inner_text()
    assert article.locator("b", has_text="guess").count() == 0


def test_expressions_that_cannot_be_read_are_named(folder: Path) -> None:
    broken: dict[str, Any] = {
        "a bbox of three numbers": [{"text": "a", "instances": [{"bbox": [1, 2, 3]}]}],
        "a bbox with NaN": [{"text": "a", "instances": [{"bbox": [1, 2, 3, float("nan")]}]}],
        "an expression without text": [{"no": "text"}],
        "no list": "a mug",
    }
    records = [
        {"image_id": name, "caption": "a", "expressions": rows} for name, rows in broken.items()
    ]
    views = views_of(report(folder, records))
    assert sorted(view["id"] for view in views) == sorted(broken)
    assert all("column 'expressions'" in view["problem"] for view in views)


@pytest.mark.parametrize("single", [False, True], ids=["a folder", "a single file"])
def test_all_records_and_failures_are_reached_from_page_to_page(
    folder: Path, show: Any, single: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "PER_FILE", 7)
    monkeypatch.setattr("dataflow_grounding.review._report.PER_FILE", 7)
    none = {
        "image_id": "37",
        "caption": "a cat",
        "expressions": [expression("a cat", "a cat", status="none")],
    }
    records = [
        *({"image_id": str(n), "image_path": "mug.png", "expressions": []} for n in range(37)),
        none,
    ]
    out = report(
        folder, records, name="a # b?.html", failures=map(failure, range(23)), single=single
    )
    if single:
        assert sorted(os.listdir(folder)) == ["a # b?.html", "mug.png"]
        out = out.rename(folder.parent / "elsewhere.html")
    page = show(out)
    assert page.title() == "Run · page 1 of 2"
    found = page.locator("article h2").all_inner_texts()
    assert page.locator("article img").first.evaluate(
        "e => e.decode().then(() => e.naturalWidth)"
    ) == (320 if single else 400)
    page.locator(".failures summary").click()
    failed = page.locator(".failures td:first-child").all_inner_texts()
    page.get_by_role("navigation", name="Pages of failures").get_by_role(
        "link", name="Next"
    ).click()
    page.locator(".failures td", has_text="street/22").wait_for()
    failed += page.locator(".failures td:first-child").all_inner_texts()
    page.get_by_role("navigation", name="Pages", exact=True).first.get_by_role(
        "link", name="Next"
    ).click()
    page.locator("[role=status]", has_text="Images 21 to 38 of 38").wait_for()
    found += page.locator("article h2").all_inner_texts()
    assert found == [str(n) for n in range(38)]
    assert failed == [f"street/{n}" for n in range(23)]
    assert page.title() == "Run · page 2 of 2"


def test_pages_that_are_left_out_of_the_links_are_shown_as_left_out(
    folder: Path, show: Any
) -> None:
    records = [{"image_id": str(n), "image_path": "mug.png", "expressions": []} for n in range(90)]
    page = show(report(folder, records))
    pages = page.get_by_role("navigation", name="Pages", exact=True).first
    assert pages.locator("> *").all_inner_texts() == ["1", "2", "3", "…", "5", "Next"]


def test_a_single_file_that_browsers_do_not_open_well_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_files, "MOST_IN_ONE", 1000)
    before = sorted(os.listdir(folder))
    with pytest.raises(InputError, match="leave out --single-file"):
        report(folder, [MUG_ON_TABLE] * 9, single=True)
    assert sorted(os.listdir(folder)) == before


def test_what_earlier_reports_left_goes_and_files_of_the_user_stay(folder: Path) -> None:
    report(folder, [MUG_ON_TABLE], copies=True)
    (folder / "report-9.html").write_text("the user's")
    (first,) = folder.glob("report_files/*/index.js")
    (first.parent / "notes.txt").write_text("the user's own")
    (small,) = folder.glob("report_files/thumbnails/*")
    made = small.stat().st_mtime_ns
    report(folder, [MUG_ON_TABLE], copies=True)
    assert {path.name for path in folder.glob("*.html")} == {"report.html", "report-9.html"}
    assert [path.name for path in first.parent.iterdir()] == ["notes.txt"]
    assert small.stat().st_mtime_ns == made, "the picture is the same"
    Image.new("RGB", (40, 30)).save(folder / "mug.png")
    report(folder, [MUG_ON_TABLE], copies=True)
    assert [path.name.split("-")[1] for path in folder.glob("report_files/thumbnails/*")] == [
        "40x30.jpg"
    ]
    (first.parent / "notes.txt").unlink()
    first.parent.rmdir()
    report(folder, [MUG_ON_TABLE], single=True)
    assert not (folder / "report_files").exists()


@pytest.mark.parametrize("name", ["report.html", "report_files", "report_files/index.js"])
def test_a_report_takes_no_place_of_the_users_files(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("the user's own")
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        FileExistsError,
        match=r"report(\.html|_files) is not the (page|folder) of a report: move it",
    ):
        report(folder, [MUG_ON_TABLE])
    assert (folder / name).read_text() == "the user's own"
    assert sorted(folder.rglob("*")) == before


def test_a_picture_opens_in_full_size(tmp_path: Path, show: Any) -> None:
    folder = tmp_path / "a" / "b" / "out"
    links = {
        "pictures/a b.png": "pictures/a%20b.png",
        "../besides/a b.png": "../besides/a%20b.png",
        "../../../data/mug.png": (tmp_path / "data/mug.png").as_uri(),
        "javascript:alert(1).png": "javascript%3Aalert%281%29.png",
        '"><b>#x?y=%41&.png': None,  # characters of HTML and of addresses
        "\u05d0\u202e\udcff.png": None,  # another direction, and no UTF-8
    }
    for name in links:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (1500, 900)).save((folder / name).resolve())
    records = [{"image_id": str(n), "expressions": []} for n in range(len(links))]
    files = [file_at(str(folder / name)) for name in links]
    out = report(folder, records, find_image=lambda record: files[int(record["image_id"])])
    page = show(out)
    for link, href in zip(page.locator("a.picture").all(), links.values(), strict=True):
        given = link.get_attribute("href")
        assert given == (href or given)
        with page.expect_popup() as opened:
            link.click()
        opened.value.wait_for_load_state()
        assert opened.value.evaluate("document.querySelector('img').naturalWidth") == 1500
        opened.value.close()


@pytest.mark.parametrize("name", ["picture.html", "picture.svg", "picture"])
def test_a_file_that_a_browser_could_run_is_no_link(folder: Path, name: str) -> None:
    (folder / "mug.png").rename(folder / name)
    file = file_at(str(folder / name))
    data = data_of(report(folder, [MUG_ON_TABLE], find_image=lambda _: file))
    assert "/thumbnails/" in data
    assert '"full":""' in data


def test_a_page_is_written_whole_or_not_at_all(folder: Path) -> None:
    report(folder, [MUG_ON_TABLE] * 3)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def records() -> Iterator[dict[str, Any]]:
        yield from [MUG_ON_TABLE] * 3
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        report(folder, records())
    with pytest.raises(OSError, match="went away"):
        report(folder, [], failures=records())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_crops_of_one_phrase_stand_side_by_side(folder: Path, show: Any) -> None:
    picture = Image.new("RGB", (400, 300), "white")
    picture.paste("red", (220, 60, 250, 200))
    picture.save(folder / "mug.png")
    page = show(
        report(folder, [MUG_ON_TABLE, {**MUG_ON_TABLE, "image_id": "b"}]),
        "#view=phrases&head=spoon",
    )
    assert page.locator(".cell").evaluate_all(
        "all => all.map(e => e.innerText.split(/\\s*\\n/).join(' '))"
    ) == ["two spoons kitchen/0001", "two spoons kitchen/0001", "two spoons b", "two spoons b"]
    crop = page.locator(".crop").first
    page.locator("img").evaluate_all("all => Promise.all(all.map(e => e.decode()))")
    place, line = crop.bounding_box(), crop.locator(".line").bounding_box()
    middle = line["x"] + line["width"] / 2, line["y"] + line["height"] / 2
    assert abs(middle[0] - place["x"] - 80) < 1
    assert line["height"] / line["width"] == pytest.approx(140 / 30, rel=0.05)
    page.screenshot(path=str(folder / "shot.png"))
    shot = Image.open(folder / "shot.png").convert("RGB")
    inside, outside = (
        shot.getpixel((round(x), round(middle[1]))) for x in (middle[0], line["x"] - 12)
    )
    assert inside[0] > 200 > 60 > inside[1]
    assert min(outside) > 200
    page.locator(".cell").nth(2).click()
    page.locator("article").wait_for()
    assert page.locator("article h2").all_inner_texts() == ["b"]


def test_many_boxes_are_one_canvas_that_lights_up(folder: Path, show: Any) -> None:
    rows = [
        {
            "text": f"mug {n}",
            "instances": [
                box(4 + n % 20 * 19, 4 + n // 20 * 3, 20 + n % 20 * 19, 14 + n // 20 * 3)
            ],
        }
        for n in range(2000)
    ]
    page = show(report(folder, [{**MUG_ON_TABLE, "image_path": "gone.png", "expressions": rows}]))
    assert page.locator(".overlay *").count() == 0
    canvas = page.locator("canvas.overlay")
    painted = """e => e.getContext('2d').getImageData(0, 0, e.width, e.height).data
        .filter((value, n) => n % 4 === 3 && value > 250).length"""  # opaque pixels
    page.wait_for_timeout(300)
    before = canvas.evaluate(painted)
    place = canvas.bounding_box()
    canvas.hover(position={"x": place["width"] * 12 / 400, "y": place["height"] * 6 / 300})
    page.wait_for_timeout(300)
    assert 0 < canvas.evaluate(painted) < 0.1 * before
    assert page.locator("li.on .phrase").all_inner_texts() == ["mug 0"]


def test_what_a_step_changed_stands_beside_it(folder: Path, show: Any) -> None:
    def of(name: str, *rows: Any) -> dict[str, Any]:
        return {**MUG_ON_TABLE, "image_id": name, "expressions": list(rows)}

    mug, table = (
        expression(CAPTION, text, box(40, 30, 200, 150)) for text in ("A red mug", "a wooden table")
    )
    cat = {"text": "a cat", "instances": []}
    earlier = [
        of("same", mug),
        of("moved", mug),
        of("left", mug, table),
        of("told", mug),
        of("pending", cat),
    ]
    moved, none = (
        {**mug, "instances": [box(40, 30, 120, 150)]},
        {**mug, "instances": [], "status": "none"},
    )
    records = [
        of("same", {**mug, "verified": True}),
        of("moved", moved),
        of("left", mug),
        of("told", none, table),
        of("pending", mug),
        of("new", mug),
    ]
    page = show(
        report(folder, records, versions=[version(folder, earlier, "step 1")], own_name="step 2")
    )
    page.goto(page.url.split("#")[0] + "#show=changed")
    page.locator("[role=status]", has_text="1 to 3 of 3").wait_for()
    assert page.locator("article h2").all_inner_texts() == ["moved", "left", "told"]
    for summary in page.locator(".compared summary").all():
        summary.click()
    assert page.locator(".changes li").all_inner_texts() == [
        "step 2 A red mug: box moved, IoU 0.50",
        "step 2 a wooden table: left out",
        "step 2 A red mug: grounded → none · 1 → 0 boxes",
        "step 2 a wooden table: added",
    ]
    beside = page.locator(".compared").first
    assert beside.locator("h3").all_inner_texts() == ["step 1", "step 2"]
    assert beside.locator(".version:last-child .box .line").evaluate_all(PLACES)[0][
        2
    ] == pytest.approx(
        120 / 400 * beside.locator(".version:last-child img").bounding_box()["width"], abs=1
    )
    assert figures(page)["changed"] == "3"


def test_a_check_of_several_steps_that_says_yes_at_last_is_no_change(folder: Path) -> None:
    """As with `check: true`: what the first judge leaves open, the second one confirms."""
    mug = expression(CAPTION, "A red mug", box(40, 30, 200, 150))
    two = {**mug, "instances": [box(40, 30, 200, 150), box(0, 0, 9, 9)]}
    open_mug = {**mug, "verified": None, "verification": {"method": "check", "boxes": []}}

    def version_of(name: str, *rows: dict[str, Any]) -> Any:
        ids = ("confirmed", "dropped", "open", "refused")
        records = [
            {**MUG_ON_TABLE, "image_id": key, "expressions": [row]}
            for key, row in zip(ids, rows, strict=True)
        ]
        return records if not name else version(folder, records, name)

    yes, no = {**mug, "verified": True}, {**mug, "verified": False}
    undecided_two = {**open_mug, "instances": two["instances"]}
    path = report(
        folder,
        version_of("", yes, yes, open_mug, no),
        versions=[
            version_of("grounding", mug, two, mug, mug),
            version_of("check", open_mug, undecided_two, open_mug, open_mug),
        ],
        own_name="second check",
    )
    changes = {view["id"]: view.get("changes", []) for view in views_of(path)}
    told = {name: [(row["version"], row["said"]) for row in rows] for name, rows in changes.items()}
    assert told == {
        "open": [("check", "no check → undecided")],
        "refused": [
            ("check", "no check → undecided"),
            ("second check", "undecided → not verified"),
        ],
        "dropped": [("second check", "2 → 1 boxes")],
        "confirmed": [],
    }


def test_two_runs_begin_with_what_differs(folder: Path, show: Any) -> None:
    def of(name: str, bbox: dict[str, Any]) -> dict[str, Any]:
        mug = expression(CAPTION, "A red mug", bbox)
        return {**MUG_ON_TABLE, "image_id": name, "expressions": [mug]}

    here, there = box(40, 30, 200, 150), box(40, 30, 120, 150)
    earlier = version(folder, [of("same", here), of("moved", here)], "a")
    both = [of("same", here), of("moved", there)]
    compared = {"versions": [earlier], "own_name": "b", "begins_with": "changed"}
    page = show(report(folder, both, **compared))
    assert page.locator("article h2").all_inner_texts() == ["moved"]
    alike = show(report(folder, [of("same", here)], "alike.html", **compared))
    assert alike.locator("article h2").all_inner_texts() == ["same"], "nothing differs"


def test_a_caption_is_no_change_of_its_region(folder: Path) -> None:
    regions = {name: value for name, value in MUG_ON_TABLE.items() if name != "expressions"}
    regions["regions"] = [{"bbox": [40, 30, 200, 150], "type": "mug"}]
    captioned = {
        **regions,
        "region_captions": [{"region_id": 1, "text": "A red mug.", "bbox": [40, 30, 200, 150]}],
    }
    path = report(
        folder, [captioned], versions=[version(folder, [regions], "step 0")], own_name="step 1"
    )
    [view] = views_of(path)
    assert [row["text"] for row in view["expressions"]] == ["A red mug."]
    assert not view.get("changes")
    assert "changed" not in figures_of(path)


def test_a_page_without_its_folder_says_so(folder: Path, show: Any) -> None:
    path = report(folder, [MUG_ON_TABLE])
    page = show(path.rename(folder.parent / "alone.html"))
    assert "--single-file" in page.get_by_role("alert").inner_text()


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("more", "width", "scheme"),
    [
        ("", 1400, "light"),
        ("", 400, "dark"),
        ("#view=phrases", 1400, "dark"),
        ("#view=grid&head=mug&head=table", 1400, "light"),
        ("#view=grid&head=mug&head=table", 400, "dark"),
    ],
)
def test_axe_finds_nothing(folder: Path, show: Any, more: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    records = [{**MUG_ON_TABLE, "image_id": str(n)} for n in range(22)]
    versions = [version(folder, [{**records[0], "expressions": []}], "step 1")]
    failures = [failure(0), failure(1, "lost")]
    path = report(folder, records, failures=failures, versions=versions, own_name="step 2")
    size = {"width": width, "height": 900}
    page = show(path, more, color_scheme=scheme, bypass_csp=True, viewport=size)
    for closed in page.locator("summary:visible").all():
        closed.click()
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []


def test_it_prints_the_images_without_the_controls(folder: Path, show: Any) -> None:
    page = show(report(folder, [MUG_ON_TABLE] * 21))
    page.emulate_media(media="print")
    assert page.locator("article").first.is_visible()
    assert not page.locator(".filters, .fields, .views, .pages").locator("visible=true").count()
