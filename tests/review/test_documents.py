"""The page of `bench`, a document of one file, in a real browser: nothing is cut, whatever it is called, and anyone can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.bench_model import BenchModel
from tests.support.workplace import command

pytestmark = pytest.mark.slow

LONG = "a model with <b>a name</b> that says in so many words what it can do"
WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtenverein"


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of a run of `bench`."""
    with LoopbackServer(BenchModel()) as server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DF_BASE_URL", server.base_url)
        monkeypatch.setenv("DF_MODEL", f"{LONG} {WORD}")
        monkeypatch.setenv("DF_BOX_FORMAT", "xyxy_1000")
        done = command(["bench", "--ways", "plain", "--pictures", "1"])
    assert done.code == 0, done
    return tmp_path / "bench_results/bench.html"


def test_a_document_is_read_whole_by_anyone(document: Path, new_page: Any) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    page = new_page(bypass_csp=True)
    page.goto(document.as_uri())
    assert f"{LONG} {WORD}" in page.inner_text("h1")
    for width, scheme in ((1400, "light"), (400, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for wide in page.locator(".wide:visible").all():
            hidden = wide.evaluate("e => e.scrollWidth - e.clientWidth")
            assert hidden == 0, "nothing is to be scrolled to"
        assert axe.Axe().run(page).response["violations"] == [], scheme
    page.close()
    # the document's policy allows its own style alone
    page = new_page()
    page.goto(document.as_uri())
    radius = "e => getComputedStyle(e).borderRadius"
    assert page.locator("section").first.evaluate(radius) == "12px"
    page.evaluate("""() => document.body.insertAdjacentHTML(
        'beforeend', '<style>section { border-radius: 0 }</style>')""")
    assert page.locator("section").first.evaluate(radius) == "12px"
    page.close()
