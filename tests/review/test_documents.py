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


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of `bench`."""
    folder = tmp_path_factory.mktemp("bench")
    with LoopbackServer(BenchModel()) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DF_BASE_URL", server.base_url)
        patch.setenv("DF_MODEL", f"{LONG} {WORD}")
        patch.setenv("DF_BOX_FORMAT", "xyxy_1000")
        done = command(["bench", "--ways", "plain,zoom", "--pictures", "1"])
    assert done.code == 0, done
    return folder / "bench_results/bench.html"


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (400, "dark")])
def test_a_document_is_read_whole_by_anyone(
    document: Path, new_page: Any, width: int, scheme: str
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.goto(document.as_uri())
    assert f"{LONG} {WORD}" in page.inner_text("h1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for wide in page.locator(".wide:visible").all():
        hidden = wide.evaluate("e => e.scrollWidth - e.clientWidth")
        assert hidden == 0, "nothing is to be scrolled to"
    assert axe.Axe().run(page).response["violations"] == []
    page.close()


def test_a_documents_policy_allows_its_own_style_alone(document: Path, new_page: Any) -> None:
    page = new_page()
    page.goto(document.as_uri())
    assert page.locator("section").first.evaluate("e => getComputedStyle(e).borderRadius") == "12px"
    page.evaluate("""() => document.body.insertAdjacentHTML(
        'beforeend', '<style>section { border-radius: 0 }</style>')""")
    assert page.locator("section").first.evaluate("e => getComputedStyle(e).borderRadius") == "12px"
    page.close()
