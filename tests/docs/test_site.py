"""The pages are a site that builds without a warning and lacks nothing of what a user looks up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dataflow_grounding
import dataflow_grounding.operators
import dataflow_grounding.serving
import dataflow_grounding.tasks
from tests.support.workplace import REPOSITORY

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings")

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


def build(folder: Path, address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder, *options],
        cwd=REPOSITORY,
        env={**os.environ, "DATAFLOW_GROUNDING_REPOSITORY": address, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_the_site_builds_and_has_what_pages_and_stubs_have(tmp_path: Path) -> None:
    done = build(tmp_path, ADDRESS)  # once for all: it takes seconds
    assert done.returncode == 0, done.stdout + done.stderr
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
    assert {"pages", "changelog", "contributing", "decisions", "measurements/performance"} <= pages
    assert (site / "pictures" / "report.jpg").is_file()
    assert not [*site.rglob("hooks.*"), *site.rglob("report.py")]
    formats = (site / "formats" / "index.html").read_text(encoding="utf-8")
    assert "&lt;|object_ref_start|&gt;" in formats


@pytest.mark.slow
def test_without_an_address_it_links_nowhere_else(tmp_path: Path) -> None:
    # without the API reference, which takes most of a build's time and has no such links
    config = tmp_path / "mkdocs.yml"
    settings = {
        "INHERIT": str(REPOSITORY / "mkdocs.yml"),
        "docs_dir": str(REPOSITORY / "docs"),
        "hooks": [str(REPOSITORY / "docs" / "_site" / "hooks.py")],
        "plugins": ["search"],
        "watch": [],
    }
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    site = tmp_path / "site"
    done = build(site, "", "--config-file", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    page = site / "extending" / "index.html"
    assert "operator_of_your_own.py" in page.read_text(encoding="utf-8")
    assert not [link for link in Site(page).links if re.search(r"extensions|blob/HEAD", link)]
