"""The examples of docs/only_this_part.md, each as it stands, and what the page says it prints."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.scripts import printed_by
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import REPOSITORY

pytestmark = pytest.mark.slow

PAGE = (REPOSITORY / "docs" / "only_this_part.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"<!-- part: (\w+) -->\n```python\n(.*?)^```\n\n<!-- prints -->\n```text\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)
EXAMPLES = EXAMPLE.findall(PAGE)


@pytest.mark.parametrize(
    ("script", "printed"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES]
)
def test_an_example_prints_what_the_page_says(tmp_path: Path, script: str, printed: str) -> None:
    shutil.copytree(REPOSITORY / "example_data", tmp_path / "example_data")
    with LoopbackServer(ProbeModel("yxyx_1000"), key="sk-mine") as server:
        environment = {"DF_BASE_URL": server.base_url, "DF_MODEL": "mine", "DF_API_KEY": "sk-mine"}
        assert printed_by(script, tmp_path, **environment) == printed


def test_an_iterator_is_grounded_one_record_at_a_time(tmp_path: Path) -> None:
    from dataflow_grounding import OpenAIServing, PhraseGrounder

    picture = str(REPOSITORY / "example_data" / "images" / "cat.jpg")
    asked = []

    def records() -> object:
        for number in range(3):
            asked.append(number)
            yield {"image_path": picture, "expressions": [f"cat {number}"]}

    with LoopbackServer(ProbeModel("xyxy_px")) as server:
        serving = OpenAIServing(server.base_url, "mine", box_format="xyxy_px@sent")
        grounder = PhraseGrounder(serving, check_every=None)
        grounded = map(grounder, records())
        first = next(grounded)
        assert (asked, server.count()) == ([0], 1)
        assert first["expressions"][0]["status"] == "grounded"
        assert len(list(grounded)) == 2
    assert not list(tmp_path.iterdir())
