"""The project's own files say what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from benchmarks.workplace import REPOSITORY
from dataflow_grounding._util.version import __version__

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
    kinds = ["raw" if path.endswith(".jpg") else "blob" for path in readme]
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
    assert "the tutorial" in text


def test_the_readmes_picture_is_small() -> None:
    from PIL import Image

    path = REPOSITORY / "docs" / "pictures" / "report.jpg"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.width == 1000


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    headings = re.findall(
        r"^## \[([^]]*)\]", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert headings[:2] == ["Unreleased", __version__]


@pytest.mark.parametrize("name", ["bug.yml", "wrong_box.yml"])
def test_issue_forms_ask_for_what_is_needed(name: str) -> None:
    form = yaml.safe_load(Path(REPOSITORY, ".github", "ISSUE_TEMPLATE", name).read_text("utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    asked = " ".join(str(part["attributes"]) for part in form["body"])
    wanted = {
        "bug.yml": ["version", "Command", "run.json"],
        "wrong_box.yml": ["reply", "Model", "format"],
    }[name]
    assert all(word in asked for word in wanted)
    assert len({part["id"] for part in form["body"]}) == len(form["body"])


def test_the_hooks_run_tools_of_the_projects_own_environment() -> None:
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text("utf-8"))
    [repository] = config["repos"]
    assert repository["repo"] == "local"
    assert all(hook["entry"].startswith(".venv/bin/") for hook in repository["hooks"])
    assert {"ruff-format", "ruff-check", "mypy"} <= {hook["id"] for hook in repository["hooks"]}
