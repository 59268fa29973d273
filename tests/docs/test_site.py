"""The pages are a site that builds without a warning and lacks nothing of what a user looks up."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import dataflow_grounding
import dataflow_grounding.operators
import dataflow_grounding.serving
import dataflow_grounding.tasks
from tests.support.workplace import REPOSITORY

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.structure.files import get_files
from mkdocs.structure.pages import Page
from mkdocs.utils.yaml import yaml_load

ADDRESS = "https://example.com/someone/dataflow-grounding"


class Site(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))


def settings(address: str, **other: Any) -> Any:
    """What mkdocs.yml says where this is the repository's public address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATAFLOW_GROUNDING_REPOSITORY", address)
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        return load_config(str(REPOSITORY / "mkdocs.yml"), **other)


@pytest.mark.slow
def test_the_site_builds_and_has_what_pages_and_stubs_have(tmp_path: Path) -> None:
    # once for all, as it takes seconds; the index for the search is a fifth of them
    plugins = yaml_load((REPOSITORY / "mkdocs.yml").open(encoding="utf-8"))["plugins"]
    plugins.remove("search")
    [python] = [of["mkdocstrings"]["handlers"]["python"] for of in plugins]
    python["options"]["separate_signature"] = False  # for each it would start ruff
    config = settings(ADDRESS, plugins=plugins, site_dir=str(tmp_path), strict=True)
    build(config)
    check_the_api_reference(tmp_path)
    check_links_to_files(tmp_path)
    check_pages(tmp_path)


def check_the_api_reference(site: Path) -> None:
    """Every public name is described, or linked to where it is."""
    rooms = {
        "operators": dataflow_grounding.operators,
        "tasks": dataflow_grounding.tasks,
        "serving": dataflow_grounding.serving,
    }
    described = set()
    for room, module in rooms.items():
        anchors = Site(site / "api" / room / "index.html").anchors
        names = set(module.__all__)
        assert {f"dataflow_grounding.{room}.{name}" for name in names} <= anchors
        described |= names
    package = Site(site / "api" / "package" / "index.html")
    for name in dataflow_grounding.__all__:
        if name in described:
            assert any(link.endswith(f".{name}") for link in package.links), name
        else:
            assert f"dataflow_grounding.{name}" in package.anchors


def check_links_to_files(site: Path) -> None:
    """Files that are no pages are linked at the repository; the README is a page."""
    links = Site(site / "extending" / "index.html").links
    assert f"{ADDRESS}/tree/HEAD/extensions" in links
    assert f"{ADDRESS}/blob/HEAD/extensions/operator_of_your_own.py" in links
    assert "../#try-it" in Site(site / "tutorial" / "index.html").links


def check_pages(site: Path) -> None:
    """Each page of docs/ is there, with its pictures, and no program."""
    pages = {path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")}
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert page.stem in pages or page.name == "README.md"
    assert {"pages", "changelog", "contributing", "decisions", "measurements"} <= pages
    assert (site / "pictures" / "report.jpg").is_file()
    assert not [*site.rglob("hooks.*"), *site.rglob("report.py")]
    formats = (site / "formats" / "index.html").read_text(encoding="utf-8")
    assert "&lt;|object_ref_start|&gt;" in formats


@pytest.mark.slow
def test_without_an_address_it_links_nowhere_else() -> None:
    config = settings("", plugins=[])
    files = config.plugins.on_files(get_files(config), config=config)
    file = files.get_file_from_path("extending.md")
    page = Page(None, file, config)
    page.read_source(config)
    assert "](../extensions/operator_of_your_own.py)" in page.markdown
    markdown = config.plugins.on_page_markdown(page.markdown, page=page, config=config, files=files)
    assert "operator_of_your_own.py" in markdown
    assert not re.findall(r"\]\([^)]*(?:extensions|blob/HEAD)", markdown)
