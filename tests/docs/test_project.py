"""The project's own files say what is so."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from dataflow_grounding._util.version import __version__
from tests.support.workplace import REPOSITORY

ADDRESS = "https://example.com/someone/dataflow-grounding"


def description(monkeypatch: pytest.MonkeyPatch, address: str) -> tuple[str, dict[str, str]]:
    """What an index is told: the long description, and the project URLs."""
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    monkeypatch.setenv("DATAFLOW_GROUNDING_REPOSITORY", address)
    core = WheelBuilder(str(REPOSITORY)).metadata.core
    return core.readme, core.urls


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_on_an_index_page_every_link_leads_to_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    text, urls = description(monkeypatch, f"{ADDRESS}/")
    readme = links((REPOSITORY / "README.md").read_text("utf-8"))  # all of them relative
    assert len(readme) > 10
    kinds = ["raw" if path.endswith((".jpg", ".png")) else "blob" for path in readme]
    assert links(text) == [
        f"{ADDRESS}/{kind}/v{__version__}/{path}" for kind, path in zip(kinds, readme, strict=True)
    ]
    assert urls["Repository"] == ADDRESS


def test_without_an_address_it_links_nowhere_and_names_no_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, urls = description(monkeypatch, "")
    assert links(text) == []
    assert not urls
    assert "The tutorial takes you" in " ".join(text.split())


@pytest.mark.slow
def test_the_first_picture_can_be_made_again(tmp_path: Path) -> None:
    """Of other versions of OpenCV and Pillow some pixels may differ, the panels may not."""
    from PIL import Image, ImageChops, ImageStat

    for part in ("docs/pictures", "example_data"):
        shutil.copytree(REPOSITORY / part, tmp_path / part)
    made = tmp_path / "docs" / "pictures" / "caption_to_boxes.png"
    made.unlink()
    runpy.run_path(str(made.with_suffix(".py")), run_name="__main__")
    with Image.open(made) as new, Image.open(REPOSITORY / "docs/pictures" / made.name) as kept:
        assert new.size == kept.size
        difference = ImageChops.difference(new.convert("L"), kept.convert("L"))
    assert ImageStat.Stat(difference).mean[0] < 2  # levels of grey, of 255


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    headings = re.findall(
        r"^## \[([^]]*)\]", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings == [__version__]
