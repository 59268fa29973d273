"""The report, opened from disk in a real browser: what it shows, where the boxes sit, and that data
stays data.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from PIL import Image

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.remarks import Remarks
from dataflow_grounding.images.image import ImageFile, file_at
from dataflow_grounding.review import _report_files as report_files
from dataflow_grounding.review._index import FLAGS
from dataflow_grounding.review._report import write_report
from dataflow_grounding.review._versions import Version
from tests.support.workplace import write_rows

pytestmark = pytest.mark.slow


def expression(
    caption: str, text: str, *instances: dict[str, Any], status: str | None = None, **more: Any
) -> dict[str, Any]:
    start = caption.find(text)
    row = {"text": text, "char_span": [start, start + len(text)] if start >= 0 else None}
    status = status or ("grounded" if instances else "none")
    return {**row, "instances": list(instances), "status": status, **more}


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
    usual = {"find_image": find_image, "title": "Run", "summary": {}}
    write_report(map(Record, records), out_path=out, **{**usual, **options})
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
    return Version(name, str(write_rows(path, *records)))


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
    page.wait_for_timeout(50)
    opacities = "all => all.map(e => Number(getComputedStyle(e).opacity))"
    values: list[float] = page.locator(selector).evaluate_all(opacities)
    return values


# Where each box is on its picture as shown, and how large that is. From the geometry: the line's
# width doesn't count.
PLACES = """all => all.map(line => {
  const p = line.closest('.picture').firstElementChild.getBoundingClientRect();
  const b = line.getBBox(), m = line.getScreenCTM();
  return [(b.x * m.a + m.e - p.x), (b.y * m.d + m.f - p.y),
          ((b.x + b.width) * m.a + m.e - p.x), ((b.y + b.height) * m.d + m.f - p.y), p.width, p.height];
})"""


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
    ("size", "copies", "upright"),
    [((1600, 1000), [(200, 320)], (1000, 1600)), ((1200, 800), [], (800, 1200))],
    ids=["large", "shown itself"],
)
def test_a_picture_is_upright_and_its_small_copy_without_metadata(
    folder: Path, size: tuple[int, int], copies: list[Any], upright: tuple[int, int]
) -> None:
    turned(folder, size)
    [view] = views_of(report(folder, [TURNED]))
    assert (view["width"], view["height"]) == upright
    assert (view["thumbnail"] == "turned.jpg") is (copies == [])
    made = [Image.open(path) for path in folder.glob("report_files/thumbnails/*")]
    assert [picture.size for picture in made] == copies
    assert not any(dict(picture.getexif()) for picture in made)


def test_large_pictures_and_those_of_odd_types_have_a_small_copy(folder: Path) -> None:
    Image.effect_noise((700, 500), 90).save(folder / "large.png", "PNG")
    Image.new("RGB", (400, 300)).save(folder / "odd.bmp", "BMP")
    Image.new("RGB", (400, 300)).save(folder / "odd.jpg", "TIFF")
    names = ("large.png", "odd.bmp", "odd.jpg")
    report(folder, [{**TURNED, "image_id": name, "image_path": name} for name in names])
    assert len(list(folder.glob("report_files/thumbnails/*.jpg"))) == 3


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


def test_text_stays_text_wherever_it_stands(folder: Path, show: Any) -> None:
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
    names = ("id", "step", "kind", "message")
    options = {"title": text, "summary": {"model": text}, "own_name": text}
    options |= {"failures": [dict.fromkeys(names, text), {}]}
    options |= {"versions": [version(folder, [before], text)]}
    page = show(report(folder, [record], find_image=lambda _: None, **options))
    assert page.title() == text
    assert page.locator(".caption").evaluate("e => e.textContent") == caption
    selectors = ["h1", "article h2", ".expressions .phrase", ".reason", "td"]
    selectors += ["label[for=kind-0] bdi", ".version h3", ".changes b", "header .facts"]
    for selector in selectors:
        assert page.locator(selector).first.evaluate("e => e.textContent") == text
    assert page.locator("article").first.is_visible()
    foreign = "article script, #report style, [onerror], [onload]"
    assert page.locator(foreign).count() == 0
    sources = "all => all.map(s => s.getAttribute('src'))"
    scripts = page.locator("head script").evaluate_all(sources)
    assert all(name.startswith("report_files/") for name in scripts)


SPANS = {
    "apart": [(0, 8), (12, 20)],
    "side by side": [(0, 8), (8, 20)],
    "one within the other": [(0, 20), (3, 8), (5, 7)],
    "crossing": [(0, 10), (5, 15), (12, 20)],
    "the same twice": [(2, 9), (2, 9), (2, 5)],
    "all of it": [(0, 26)],
}


REGIONS = [{"bbox": [40, 30, 200, 150], "type": "mug"}, {"bbox": [0, 100, 400, 300], "type": ""}]
STATUSES_OF_MUG = {"grounded": "3", "ambiguous": "1", "unsupported": "1"}


CHECKED: list[dict[str, Any]] = []
for each in MUG_ON_TABLE["expressions"]:  # type: ignore[attr-defined]
    CHECKED.append({**each, "verified": each["text"] != "two spoons"})
OF_ALL = {**MUG_ON_TABLE, "regions": REGIONS, "expressions": CHECKED}
COUNTS = {"regions": "2", "expressions": "5", **STATUSES_OF_MUG}
CAPTIONS = [{"bbox": REGIONS[0]["bbox"], "text": "A mug."}, REGIONS[1]]  # one without text


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (OF_ALL, {**COUNTS, "verified": "4", "not verified": "1"}),
        ({"regions": REGIONS, "region_captions": CAPTIONS}, {"regions": "2", "captions": "1"}),
        ({"caption": "A mug."}, {}),
    ],
    ids=["referring expressions", "region captions", "captions only"],
)
def test_the_figures_are_those_of_the_pipeline_shown(
    folder: Path, record: dict[str, Any], counts: dict[str, str]
) -> None:
    path = report(folder, [record])
    assert figures_of(path) == {"images": "1", **counts}
    [view] = views_of(path)
    of_two_captions = [{**record, "image_path": "mug.png", "image_id": id} for id in ("1", "2")]
    assert figures_of(report(folder, of_two_captions))["images"] == "1"
    assert len(view["expressions"]) == int(counts.get("expressions", counts.get("regions", 0)))


def test_of_the_summary_model_and_time_are_shown_and_nothing_else(folder: Path) -> None:
    """The counts are those of the records and of the failures, not what the summary says."""
    summary = {"images": 1234, "failed": 7, "seconds": 754.2, "model": "embedded-opencv"}
    summary["api_key"] = "sk-secret"
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
    row = {"id": f"street/{n}", "line": n, "step": "step_1_grounding", "reply": "long"}
    return {**row, "kind": kind, "message": message}


def test_secrets_in_messages_do_not_reach_the_page(folder: Path) -> None:
    said = "https://me:hunter22@example.org/v1?api_key=sk-abcdef0123456789 answered 500"
    record = {"image_path": said, "expressions": []}
    page = report(folder, [record], failures=[failure(0, message=said)], title=said)
    for text in (page.read_text(), data_of(page)):
        assert "hunter22" not in text
        assert "sk-abcdef0123456789" not in text


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
    records: list[dict[str, Any]] = []
    for number in range(37):
        records.append({"image_id": str(number), "image_path": "mug.png", "expressions": []})
    rows = [expression("a cat", "a cat", status="none")]
    records.append({"image_id": "37", "caption": "a cat", "expressions": rows})
    failures = map(failure, range(23))
    out = report(folder, records, name="a # b?.html", failures=failures, single=single)
    if single:
        assert sorted(os.listdir(folder)) == ["a # b?.html", "mug.png"]
        out = out.rename(folder.parent / "elsewhere.html")
    page = show(out)
    assert page.title() == "Run · page 1 of 2"
    found = page.locator("article h2").all_inner_texts()
    picture = page.locator("article img").first
    width = picture.evaluate("e => e.decode().then(() => e.naturalWidth)")
    assert width == (320 if single else 400)

    def next_of(name: str) -> None:
        pages = page.get_by_role("navigation", name=name, exact=True).first
        pages.get_by_role("link", name="Next").click()

    page.locator(".failures summary").click()
    failed = page.locator(".failures td:first-child").all_inner_texts()
    next_of("Pages of failures")
    page.locator(".failures td", has_text="street/22").wait_for()
    failed += page.locator(".failures td:first-child").all_inner_texts()
    next_of("Pages")
    page.locator("[role=status]", has_text="Images 21 to 38 of 38").wait_for()
    found += page.locator("article h2").all_inner_texts()
    assert found == [str(n) for n in range(38)]
    assert failed == [f"street/{n}" for n in range(23)]
    assert page.title() == "Run · page 2 of 2"


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
    (small,) = folder.glob("report_files/thumbnails/*")
    assert small.name.endswith("-40x30.jpg")
    (first.parent / "notes.txt").unlink()
    first.parent.rmdir()
    report(folder, [MUG_ON_TABLE], single=True)
    assert not (folder / "report_files").exists()


@pytest.mark.parametrize("name", ["report.html", "report_files", "report_files/index.js"])
def test_a_report_takes_no_place_of_the_users_files(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("the user's own")
    before = sorted(folder.rglob("*"))
    said = r"report(\.html|_files) is not the (page|folder) of a report: move it"
    with pytest.raises(FileExistsError, match=said):
        report(folder, [MUG_ON_TABLE])
    assert (folder / name).read_text() == "the user's own"
    assert sorted(folder.rglob("*")) == before


def test_a_file_that_a_browser_could_run_is_no_link(folder: Path) -> None:
    names = ("picture.html", "picture.svg", "picture")
    for name in names:
        shutil.copy(folder / "mug.png", folder / name)
    records = [{**MUG_ON_TABLE, "image_id": name, "image_path": name} for name in names]
    for view in views_of(report(folder, records)):
        assert "/thumbnails/" in view["thumbnail"]
        assert view["full"] == ""


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


# --- in a browser


def article_of(page: Any, name: str) -> Any:
    return page.locator("article", has=page.get_by_role("heading", name=name, exact=True))


def texts_of(rows: Any) -> list[str]:
    return [re.sub(r"\s+", " ", row) for row in rows.all_inner_texts()]


def test_a_report_opens_with_each_box_and_phrase_in_its_place(
    folder: Path, show: Any, new_page: Any
) -> None:
    absent = [each for each in MUG_ON_TABLE["expressions"] if not each["instances"]]  # type: ignore[attr-defined]
    edge = [expression(CAPTION, "a cat", box(376, 100, 400, 200), box(200, 200, 204, 204))]
    shown: dict[str, dict[str, Any]] = {
        "mug": {},
        "gone": {"image_path": "gone.png"},
        "edge": {"expressions": edge},
        "absent": {"expressions": absent},
        "a \u202egnp.exe": {"expressions": []},
    }
    records = [{**MUG_ON_TABLE, "image_id": name, **more} for name, more in shown.items()]
    asked: list[str] = []
    said: list[str] = []
    page = new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    load(page, report(folder, records))
    expected = [i["bbox"] for e in MUG_ON_TABLE["expressions"] for i in e["instances"]]  # type: ignore[attr-defined]
    for name in ("mug", "gone"):  # with its picture, and without
        places = article_of(page, name).locator(".box .line").evaluate_all(PLACES)
        assert len(places) == len(expected)
        for bbox in expected:
            assert min(farthest(bbox, place) for place in places) <= 1, name
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    mug = article_of(page, "mug")
    assert mug.locator(".absent summary").inner_text() == "1 unsupported, 1 ambiguous"
    assert not mug.locator(".absent li").first.is_visible()
    mug.locator(".absent summary").click()
    assert texts_of(mug.locator(".expressions li")) == [
        "1 A red mug on a wooden table 1 box · score 0.90 · seen",
        "2 a wooden table 1 box · region",
        "3 two spoons 2 boxes · score 0.50, 0.75 · seen",
        "4 a cat unsupported animals can't be looked for",
        "5 a dog ambiguous",
    ]
    dashes = mug.locator(".box .line").evaluate_all(
        "all => all.map(e => [e.parentNode.classList.contains('e1'), getComputedStyle(e).strokeDasharray != 'none'])"
    )
    assert all(is_region == dashed for is_region, dashed in dashes)
    assert "score 0.75 · evidence: seen" in mug.locator(".caption .link.e2").get_attribute("title")
    assert "The image file is not there." in article_of(page, "gone").inner_text()
    picture = article_of(page, "edge").locator(".picture > img").bounding_box()
    tag = article_of(page, "edge").locator(".tag rect").bounding_box()
    assert tag["x"] + tag["width"] <= picture["x"] + picture["width"] + 1
    # a number would hide the small box: it has none
    assert article_of(page, "edge").locator(".box").count() == 2
    assert article_of(page, "absent").locator(".caption ~ details.absent[open]").count() == 1
    assert page.locator("article h2", has_text="a [U+202E]gnp.exe").count() == 1
    mug.locator(".caption .link.e1").hover()
    assert opacity(page, "article:first-child .box.e1") == [1]
    assert max(opacity(page, "article:first-child .box:not(.e1)")) < 0.5
    mug.locator(".box.e2 .tag").first.hover()
    assert opacity(page, "article:first-child .box.e2") == [1, 1]
    with page.expect_popup() as opened:
        mug.locator("a.picture").click()
    opened.value.wait_for_load_state()
    assert opened.value.evaluate("document.querySelector('img').naturalWidth") == 400
    opened.value.close()
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
    alone = show((folder / "report.html").rename(folder.parent / "alone.html"))
    assert "--single-file" in alone.get_by_role("alert").inner_text()


def test_each_phrase_is_marked_exactly_whatever_overlaps(folder: Path, show: Any) -> None:
    caption = "abc \U0001f600 <b>&amp;</b> e\u0301 xyz 12"
    records = []
    for name, spans in SPANS.items():
        rows = []
        for s, e in spans:
            one = {"text": caption[s:e], "char_span": [s, e]}
            rows.append({**one, "instances": [box(1, 1, 9, 9)]})
        one = {"image_id": name, "caption": caption, "width": 9, "height": 9}
        records.append({**one, "expressions": rows})
    many = []
    for n, (y, x) in enumerate(itertools.product(range(11), range(20))):
        mug = box(4 + 19 * x, 4 + 25 * y, 20 + 19 * x, 24 + 25 * y)
        many.append({"text": f"mug {n}", "instances": [mug]})
    records.append({**MUG_ON_TABLE, "image_id": "many", "expressions": many})
    page = show(report(folder, records))
    for name, spans in SPANS.items():
        article = article_of(page, name)
        assert article.locator(".caption").evaluate("e => e.textContent") == caption
        for n, (start, end) in enumerate(spans):
            texts = "all => all.map(e => e.textContent)"
            parts = article.locator(f".mark.m{n}").evaluate_all(texts)
            assert "".join(parts) == caption[start:end], name
            assert article.locator(f'.mark.m{n}[data-n="{n + 1}"]').count() == 1
    # more boxes than that are one canvas, in which what is pointed at lights up
    canvas = article_of(page, "many").locator("canvas.overlay")
    painted = """e => e.getContext('2d').getImageData(0, 0, e.width, e.height).data
        .filter((value, n) => n % 4 === 3 && value > 250).length"""  # opaque pixels
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    before = canvas.evaluate(painted)
    place = canvas.bounding_box()
    canvas.hover(position={"x": place["width"] * 12 / 400, "y": place["height"] * 10 / 300})
    page.wait_for_timeout(300)
    assert 0 < canvas.evaluate(painted) < 0.1 * before
    assert page.locator("li.on .phrase").all_inner_texts() == ["mug 0"]


def test_keys_move_through_images_pages_and_phrases(folder: Path, show: Any, expect: Any) -> None:
    page = show(report(folder, [{**MUG_ON_TABLE, "image_id": str(n)} for n in range(85)]))
    status = page.locator("[role=status]")
    focused = "document.activeElement.querySelector('h2')?.textContent"
    for key, now in (("j", "0"), ("j", "1"), ("k", "0"), ("k", "0")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == now
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # the picture, then its name
    page.locator("li.e1").first.focus()
    assert opacity(page, "article:first-child .box.e1") == [1]
    assert max(opacity(page, "article:first-child .box:not(.e1)")) < 0.5
    links = page.get_by_role("navigation", name="Pages", exact=True).first.locator("> *")
    expect(links).to_have_text(["1", "2", "3", "…", "5", "Next"])
    for key, there in (
        ("ArrowRight", "Images 21 to 40 of 85"),
        ("ArrowLeft", "Images 1 to 20 of 85"),
        ("g", "Boxes 1 to 60 of 340"),
    ):
        page.keyboard.press(key)
        expect(status).to_contain_text(there)
    page.keyboard.press("-")
    expect(page.get_by_label("Picture size")).to_have_value("120")
    assert "side=120" in page.url
    assert page.locator(".crop").first.bounding_box()["width"] == 120
    page.keyboard.press("g")
    expect(status).to_contain_text("Images 1 to 20 of 85")
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("spoons? j")
    expect(status).to_contain_text("Images 0 to 0 of 0")
    assert page.get_by_label("Contains").input_value() == "spoons? j"


def test_filters_stand_in_the_address_and_hold_after_a_reload(
    folder: Path, show: Any, expect: Any
) -> None:
    checked = [expression("a cat", "a cat", box(1, 1, 20, 20, score=0.2), verified=True)]
    cat = {"caption": "a cat", "model": "other"}
    records = [
        MUG_ON_TABLE,
        {**cat, "image_id": "b", "expressions": [expression("a cat", "a cat")]},
        {**cat, "image_id": "c", "expressions": checked, "doubtful": True},
    ]
    path, mug = report(folder, records), "kitchen/0001"
    page = show(path, viewport={"width": 1400, "height": 900})
    names = page.locator("article h2")
    for more, expected in (
        ("", ["c", mug, "b"]),
        ("#show=none", ["b"]),
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
        page.goto(path.as_uri() + more)
        expect(names).to_have_text(expected)
    page.locator("label[for=show-none]").click()
    page.get_by_label("Head noun").fill("cat")
    page.get_by_label("Head noun").press("Enter")
    expect(names).to_have_text(["b"])
    page.reload()
    expect(names).to_have_text(["b"])
    assert page.get_by_label("Head noun").input_value() == "cat"
    assert page.locator("#show-none").is_checked()
    page.get_by_role("link", name="Clear filters").click()
    expect(names).to_have_count(3)
    page.get_by_label("also cat").check()
    expect(names).to_have_text(["c"])
    expect(page.get_by_label("also cat")).to_be_focused()  # though the list was made again
    page.get_by_label("also spoon").press("Space")
    expect(names).to_have_text(["c", mug])
    assert page.url.endswith("#head=cat&head=spoon")
    page.get_by_role("link", name="Phrases side by side").click()
    expect(page.locator(".cell bdi")).to_have_text(["a cat", "two spoons", "two spoons"])
    page.get_by_role("link", name="Clear filters").click()
    page.get_by_role("link", name="Grid").click()
    expect(page.locator(".card > a")).to_have_count(3)
    assert texts_of(page.locator(".card > a"))[:2] == ["c 1 box", f"{mug} 4 boxes"]
    page.locator(".card > a").nth(1).click()
    expect(names).to_have_text([mug])
    assert page.locator("article .caption").count() == 1


def test_a_comparison_begins_with_the_records_that_differ(
    folder: Path, show: Any, expect: Any
) -> None:
    mug = {**MUG_ON_TABLE, "expressions": [expression("", "a mug", box(0, 0, 10, 10))]}
    gone = {**MUG_ON_TABLE, "image_id": "gone", "expressions": [expression("", "a mug")]}
    earlier = [mug, {**mug, "image_id": "gone"}]
    compared = {"versions": [version(folder, earlier, "a")], "own_name": "b"}
    begins = report(folder, [mug, gone], **compared, begins_with="changed")
    assert figures_of(begins)["changed"] == "1"
    expect(show(begins).locator("article h2")).to_have_text(["gone"])


def test_failures_are_first_with_reasons_and_a_filter_by_kind(
    folder: Path, show: Any, expect: Any
) -> None:
    failures = [failure(0), failure(1, "image_missing", "no image 'a.jpg'")]
    failures.append({**failure(2, "broken_row"), "id": None})
    failures += [failure(n, f"kind {n}") for n in range(3, 30)]
    path = report(folder, [MUG_ON_TABLE], failures=iter(failures))
    page = show(path)
    cells = page.locator(".failures td")
    assert not page.locator(".failures table").is_visible()
    page.locator(".failures summary").click()
    assert cells.all_inner_texts()[:4] == ["street/0", "no", "refused", "step_1_grounding"]
    assert cells.all_inner_texts()[8] == "line 2"
    assert "long" not in page.locator(".failures").inner_text()
    tops = [page.locator(one).first.bounding_box()["y"] for one in (".failures", "article")]
    assert tops[0] < tops[1]
    for kind, name in (("image_missing", "street/1"), ("refused", "street/0")):
        page.locator(".by-kind label", has_text=kind).click()
        expect(page.locator(".failures tr:visible td:first-child")).to_have_text([name])
        assert page.locator("article").is_visible()
    labels = page.locator(".by-kind label").all_inner_texts()  # kinds without end share one
    assert (labels[0], labels[-1], len(labels)) == ("all30", "other10", 22)
    page.locator("label[for=kind-all]").click()
    expect(page.locator(".failures tr")).to_have_count(21)
    report(folder, [], failures=failures)
    page.reload()
    page.locator(".failures table").wait_for()  # where there is nothing else it isn't folded
    for selector in (".views", ".fields", ".labels", ".by-show"):
        assert page.locator(selector).count() == 0


def test_nothing_is_cut_on_a_narrow_dark_screen_and_anyone_can_read_it(
    folder: Path, show: Any
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    statuses = ("grounded", "none", "ambiguous", "unsupported")
    rows = [[expression("a mug", "a mug", status=status)] for status in statuses[1:]]
    records = [MUG_ON_TABLE, *({**MUG_ON_TABLE, "expressions": row} for row in rows)]
    records += [{**MUG_ON_TABLE, "expressions": []}] * 17  # on two pages
    records = [{**record, "image_id": str(n)} for n, record in enumerate(records)]
    kinds = ["refused", "image_missing", "unreadable_reply", "truncated_reply", "server_overloaded"]
    word = "a_word_without_any_break_in_it_" * 3
    failures = [failure(n, kind, word) for n, kind in enumerate(kinds)]
    narrow = {"color_scheme": "dark", "viewport": {"width": 400, "height": 860}}
    page = show(report(folder, records[:4], failures=failures[:3]), bypass_csp=True, **narrow)
    picture = page.locator("article .picture").first.bounding_box()
    assert picture["y"] <= 480  # on the first screen
    assert picture["y"] + picture["height"] <= 860
    report(folder, records, failures=failures)
    page.reload()
    for closed in page.locator("summary:visible").all():
        closed.click()
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map(e => e.outerHTML.slice(0, 90))"
    for width in (833, 320, 400):
        page.set_viewport_size({"width": width, "height": 860})
        page.get_by_role("cell", name="server_overloaded").scroll_into_view_if_needed()
        boxes = page.locator("html, fieldset, table, tr, .failures div, .text")
        assert boxes.evaluate_all(cut) == [], width
        ends = "all => all.map(e => e.getBoundingClientRect().right)"
        assert max(page.locator("label, td, h2").evaluate_all(ends)) <= width
    earlier = {**records[0], "expressions": MUG_ON_TABLE["expressions"][1:]}  # type: ignore[index]
    versions = [version(folder, [earlier], "step 1")]
    compared = report(folder, records, "compared.html", versions=versions, own_name="step 2")
    for more in ("", "#view=grid&head=mug&head=table"):
        load(page, compared, more)
        page.locator(".card" if more else ".compared").first.wait_for()
        found = axe.Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found] == [], more
    page.emulate_media(media="print")
    assert page.locator(".card").first.is_visible()
    assert not page.locator(".filters, .fields, .views, .pages").locator("visible=true").count()


# --- what a page is told, which its scripts show


def test_a_record_without_its_picture_is_still_shown(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nthis is no picture")
    names = ("broken.png", "missing.png")
    records = [{**MUG_ON_TABLE, "image_id": name, "image_path": name} for name in names]
    views = views_of(report(folder, records))
    said = ["The image file can't be read.", "The image file is not there."]
    assert [view["missing"] for view in views] == said
    assert [len(view["expressions"]) for view in views] == [5, 5]


def test_a_picture_leads_to_its_full_size(tmp_path: Path) -> None:
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
    for view, (name, href) in zip(views_of(out), links.items(), strict=True):
        if href:
            assert view["full"] == href
        else:
            assert os.fsdecode(unquote_to_bytes(view["full"])) == name
            assert not {"#", "?", '"', "<"} & {*view["full"]}


def test_without_scripts_the_page_says_what_it_is_and_counts(folder: Path) -> None:
    path = report(folder, [MUG_ON_TABLE], failures=[failure(0)], summary={"notes": {"bbox_cut": 3}})
    head = path.read_text().partition("</header>")[0]
    assert "<h1>Run</h1>" in head.replace(' dir="auto"', "")
    assert figures_of(path)["grounded"] == "3"
    assert "refused 1" in head
    assert "3 boxes cut at the edge" in head
    assert "need scripts" in path.read_text()


def test_classes_have_one_colour_on_all_of_the_page(folder: Path) -> None:
    def found(*names: str) -> list[dict[str, Any]]:
        """Of these classes there is a box each."""
        rows = []
        for name in ("lamp", "red mug", "Traffic Light"):
            boxes = [box(10, 100, 100, 200)] if name in names else []
            rows.append(expression("", name, *boxes, **{"class": name}))
        return rows

    pictures = {"a": found("red mug", "Traffic Light"), "b": found("Traffic Light")}
    records = [{"image_id": name, "expressions": rows} for name, rows in pictures.items()]
    colors: dict[str, set[int | None]] = {}
    for view in views_of(report(folder, records)):
        for row in view["expressions"]:
            colors.setdefault(row["class"], set()).add(row["color"])
    assert colors["lamp"] == {None}
    assert colors["Traffic Light"] != colors["red mug"] | {None}
    assert len(colors["Traffic Light"]) == len(colors["red mug"] - {None}) == 1


def test_one_thing_is_one_box_with_the_words_of_all_its_phrases(
    folder: Path, show: Any, expect: Any
) -> None:
    """Two wordings of a class found one person; "a human" has another, too."""
    person, hat = {"class": "person"}, {"class": "hat"}
    same, other = box(11, 10, 110, 210, score=0.7), box(200, 10, 300, 210)
    rows = [
        expression("", "a person", box(10, 10, 110, 210, score=0.8), **person),
        expression("", "a human", same, other, **person),
        expression("", "a hat", box(10, 10, 110, 208), **hat),
    ]
    path = report(folder, [{**MUG_ON_TABLE, "cleaned_caption": "", "expressions": rows}])
    page = show(path, viewport={"width": 1400, "height": 900})
    labels = [text.split("\n") for text in page.locator(".labels a").all_inner_texts()]
    assert labels == [["all", "3"], ["person", "2"], ["hat", "1"]]
    titles = page.locator(".box title").all_text_contents()
    assert {title.split("\n")[0] for title in titles} == {"a person, a human", "a human", "a hat"}
    numbers = sorted(page.locator(".tag text").all_text_contents())
    assert numbers == ["1, 2 person", "2 person", "3 hat"]
    said = page.locator("li.e1 .detail").inner_text()
    assert said == "2 boxes · same thing as 1 · score 0.70, 0.90 · seen"
    words = page.locator(".cell > bdi")
    page.goto(path.as_uri() + "#view=phrases")
    expect(words).to_have_text(["a person, a human", "a human", "a hat"])
    page.goto(path.as_uri() + "#view=phrases&q=human")  # each wording finds all of its boxes
    expect(words).to_have_text(["a person, a human", "a human"])


def flags_of(page: Path) -> list[set[str]]:
    """What each record is filtered by, in the order of the page."""
    [index] = page.parent.glob(f"{page.stem}_files/*/index.js")
    rows = json.loads(index.read_text().partition(", ")[2].removesuffix(");\n"))
    return [{flag for n, flag in enumerate(FLAGS) if row[1] & 1 << n} for row in rows]


def test_doubtful_and_unverified_images_come_first_each_with_a_filter(folder: Path) -> None:
    differ = {"method": "check", "boxes": [], "reason": "the answers differ"}
    checks: dict[str, dict[str, Any]] = {
        "wrong": {"verified": False, "verification": {"reason": "it fits 2 regions"}},
        "unchecked": {"verified": None, "verification": {"reason": "not checked"}},
        "right": {"verified": True, "verification": {"reason": None}},
        "several": {"disagreement": True},
        "differ": {"verified": None, "doubtful": True, "verification": differ},
        "plain": {},
    }

    def checked(name: str, check: dict[str, Any], **more: Any) -> dict[str, Any]:
        rows = [expression("a mug", "a mug", box(1, 1, 9, 9), **check)]
        return {"image_id": name, "caption": "a mug", "expressions": rows, **more}

    records = []
    for name, check in checks.items():
        of_record = {"doubtful": True} if check.get("doubtful") else {}
        records.append(checked(name, check, **of_record))
    records.append(checked("much dropped", {}, doubtful=True))
    records.append(checked("everywhere", {}, doubtful=True, doubt="each has all"))
    records.append({"image_id": "broken", "caption": "a mug", "expressions": "a mug"})
    path = report(folder, records)
    marked = {
        "unreadable": ["broken"],
        "doubtful": ["much dropped", "everywhere"],
        "disputed": ["several"],
        "undecided": ["differ"],
        "unverified": ["wrong", "unchecked"],
    }
    views = views_of(path)
    in_order = [name for names in marked.values() for name in names]
    assert [view["id"] for view in views] == [*in_order, "right", "plain"]
    flags = flags_of(path)
    for flag, names in marked.items():
        assert [view["id"] for view, own in zip(views, flags, strict=True) if flag in own] == names
    by_id = {view["id"]: view for view in views}
    for name, check, reasons in (
        ("differ", "undecided", ["the answers differ"]),
        ("wrong", "not verified", ["it fits 2 regions"]),
        ("unchecked", "not checked", []),
        ("right", "verified", []),
        ("several", "", []),
    ):
        [row] = by_id[name]["expressions"]
        assert (row["check"], row["reasons"], row["disputed"]) == (check, reasons, not check), name
    [dropped], [everywhere] = by_id["much dropped"]["notes"], by_id["everywhere"]["notes"]
    assert dropped.startswith("Doubtful: it is marked as doubtful, without a reason")
    assert everywhere.startswith("Doubtful: each has all.")
    assert "column 'expressions'" in by_id["broken"]["problem"]
    noted = [view["id"] for view in views if view["notes"]]
    assert noted == marked["doubtful"]


def test_rare_remarks_have_a_filter_and_come_before_usual_ones(folder: Path) -> None:
    records = []
    for number in range(6):
        words = "The mug is a <b>guess</b>." if number == 4 else f"I found {number} mugs."
        rows = [expression("a mug", "a mug", box(1, 1, 9, 9))]
        records.append({"image_id": str(number), "remark": words, "expressions": rows})
    remarks = Remarks()
    for record in records:
        remarks.add(record)
    path = report(folder, records, remarks=remarks)
    views = views_of(path)
    assert [view["id"] for view in views] == [*"401235"]
    assert ["unusual" in flags for flags in flags_of(path)] == [True] + [False] * 5
    assert figures_of(path)["unusual"] == "1"
    said = "5 records: I found N mugs; 1 record: The mug is a b guess /b; 1 record with a rare"
    assert said in re.sub("<.*?>", "", path.read_text())
    assert views[0]["notes"] == ["The model said with its answer: The mug is a <b>guess</b>."]
