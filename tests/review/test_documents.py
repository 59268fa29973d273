"""Documents of one file (`tune`'s, and with it those of `bench`, `certify` and a pilot, which are
made of the same parts) in a real browser: nothing is cut, whatever it is called, and anyone can
read it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.places.workplace import Workplace, command
from benchmarks.stand_ins.asking_model import AskingModel
from benchmarks.stand_ins.check_quality import scenes
from dataflow_grounding.extras.testing import LoopbackServer

pytestmark = pytest.mark.slow

LONG = "a way of asking with <b>a name</b> that says in so many words what it asks for"
WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtenverein"
CANDIDATES = f"""
- {{name: "{LONG}", set: {{workflow.guidance: LOUDLY}}}}
- {{name: {WORD}, set: {{workflow.guidance: "SOFTLY {WORD}"}}}}
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of `tune`."""
    folder = tmp_path_factory.mktemp("tune")
    gold = scenes(folder, 20)
    (folder / "gold.jsonl").write_text("".join(json.dumps(record) + "\n" for record in gold))
    (folder / "ways.yaml").write_text(CANDIDATES)
    model = AskingModel({"": 0.4, "LOUDLY": 0.9, "SOFTLY": 0.4})
    with LoopbackServer(model, keep_bodies=True) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        place = Workplace(folder, server.base_url, **{"vlm.box_format": "xyxy_1000"})
        place.rows([{"image_path": "a.jpg", "caption": "A box."}])
        spec = str(place.spec())
        done = command(["tune", spec, "--gold", "gold.jsonl", "--candidates", "ways.yaml"])
    assert done.code == 0, done
    return folder / "tuning/tuning.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_document_is_read_whole_by_anyone(
    document: Path, new_page: Any, width: int, scheme: str
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs axe-playwright-python"
    )
    page = new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.goto(document.as_uri())
    assert LONG in page.inner_text("table")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    [wide] = page.locator(".wide").all()
    assert wide.evaluate("e => e.scrollWidth - e.clientWidth") == 0, "nothing is to be scrolled to"
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
