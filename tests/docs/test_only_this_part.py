"""The examples of docs/only_this_part.md, each as it stands, and what the page says it prints."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.endpoint import Serves
from tests.support.pages import blocks_of
from tests.support.scripts import printed_by
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import REPOSITORY

pytestmark = pytest.mark.slow

EXAMPLES = {
    block.mark: (block.text, below.text)
    for block, below in pairwise(blocks_of(REPOSITORY / "docs" / "only_this_part.md"))
    if block.mark.startswith("part: ") and below.mark == "prints"
}


@pytest.mark.parametrize(("script", "printed"), EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_prints_what_the_page_says(
    tmp_path: Path, script: str, printed: str, serves: Serves
) -> None:
    shutil.copytree(REPOSITORY / "example_data", tmp_path / "example_data")
    server = serves(ProbeModel("yxyx_1000"), key="sk-mine")
    environment = {"DF_BASE_URL": server.base_url, "DF_MODEL": "mine", "DF_API_KEY": "sk-mine"}
    assert printed_by(script, tmp_path, **environment) == printed
