"""Makes a site of the pages as they are in the repository, see mkdocs.yml.

The README and its like are pages too; so is an API reference, made of the names that the package's
stubs state. Links are written for the repository: here they lead to the site's page where the file
is one, else to the file at the repository's address.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "dataflow_grounding"
MOVED = {
    "README.md": "index.md",
    "docs/README.md": "pages.md",
    "AGENTS.md": "agents.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages that are not in docs/: file of the repository, page."""
SOURCES = {page: source for source, page in MOVED.items()}
ROOMS = {
    "operators": ("Operators", "What works on a record: steps of a pipeline, or called by hand."),
    "tasks": ("Tasks", "Questions to a model, and how their replies are read."),
    "serving": ("Servings", "Who answers a request."),
}
"""Rooms of the package with a page of their own: title, first sentence."""
GIVEN = ("grounded.GroundedPhrase", "grounded.GroundedBox")
"""What public names give back without being public names themselves."""
FENCE_OR_LINK = re.compile(
    r"^[ ]*```.*?^[ ]*```|(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)",
    re.MULTILINE | re.DOTALL,
)

TABLE_ROW = re.compile(r"^\|.*", re.MULTILINE)
CODE = re.compile(r"(`+)[^`]+\1")


class PublicName(NamedTuple):
    """A name that a stub exports; `room` is the part of the package that it comes from."""

    name: str
    room: str


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that aren't in docs/ under the name that they have here."""
    index = files.get_file_from_path("README.md")
    assert index is not None
    files.remove(index)
    for source, page in MOVED.items():
        path = str(REPOSITORY / source)
        files.append(File.generated(config, page, abs_src_path=path))
    files.append(File.generated(config, "api/package.md", content=package_page()))
    for room, (title, sentence) in ROOMS.items():
        content = f"# {title}\n\n{sentence}\n\n" + "\n\n".join(
            f"::: {PACKAGE}.{room}.{public.name}" for public in public_names(room)
        )
        files.append(File.generated(config, f"api/{room}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the page's links to where their files are on the site, or in the repository.

    Code in tables loses the backslashes before its bars: GitHub wants them, and Python-Markdown
    would show them.
    """
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def led(found: re.Match[str]) -> str:
        picture, text, path, anchor = found.groups()
        if path is None:  # a fenced block
            return found[0]
        target = posixpath.normpath(posixpath.join(folder, path))
        on_site = MOVED.get(target, target.removeprefix("docs/"))
        if (target.startswith("docs/") or target in MOVED) and files.get_file_from_path(on_site):
            link = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
        elif not (REPOSITORY / target).exists():
            return found[0]  # for the strict build to refuse
        elif not config.repo_url:
            return "" if picture else text
        else:
            kind = "tree" if (REPOSITORY / target).is_dir() else "blob"
            link = f"{config.repo_url.rstrip('/')}/{kind}/HEAD/{target}"
        return f"{picture}[{text}]({link}{anchor or ''})"

    return TABLE_ROW.sub(bare_bars, FENCE_OR_LINK.sub(led, markdown))


def bare_bars(row: re.Match[str]) -> str:
    """A table's row with `|` for `\\|` in its code."""
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])


def public_names(room: str = "") -> Iterator[PublicName]:
    """The names that a stub exports, `room` being a folder of the package or the package itself."""
    stub = REPOSITORY / PACKAGE / room / "__init__.pyi"
    for statement in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                yield PublicName(alias.name, (statement.module or "").split(".")[0])


def package_page() -> str:
    """All names of the package, each with where it is described, and those that no room's page
    describes.
    """
    names = sorted(public_names(), key=lambda public: public.name.lower())
    table = ["| `from dataflow_grounding import …` | described under |", "|---|---|"]
    described = []
    for public in names:
        page = ROOMS[public.room][0] if public.room in ROOMS else "this page"
        place = f"{public.room}." if public.room in ROOMS else ""
        table.append(f"| [`{public.name}`][{PACKAGE}.{place}{public.name}] | {page} |")
        if public.room not in ROOMS:
            described.append(f"::: {PACKAGE}.{public.name}")
    described += [f"::: {PACKAGE}.{name}" for name in GIVEN]
    return "# The package\n\n" + "\n".join(table) + "\n\n" + "\n\n".join(described) + "\n"
