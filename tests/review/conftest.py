"""A folder of results, servers of its review, and the browser in which pages are looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.review_page import RECORD, Process, Server, write

# Chromium without the windows of a browser takes a quarter less time, and shows pages alike.
BROWSERS = ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium")
CHROMIUM = next(filter(os.path.exists, BROWSERS), BROWSERS[-1])
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
# Each takes half a second: a renderer more than pages need, one in reserve, and one for what the
# address bar would show.
NEEDLESS = (
    "SpareRendererForSitePerProcess",
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxFullPopup",
)
FLAGS += ["--renderer-process-limit=1", f"--disable-features={','.join(NEEDLESS)}"]
# Of the time that a page takes to load, a third goes to a process of its own, which ends with it.
# Without site isolation all pages share one; what a page shows or may do stays the same.
FLAGS += ["--disable-site-isolation-trials"]


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs a browser at {CHROMIUM}: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def expect() -> Any:
    """Playwright's `expect`, which waits until a page shows what it should.

    `page.wait_for_function` can't: our pages forbid `eval` by their content security policy, by
    which it looks a second time, so that it waits only where nothing has to be waited for.
    """
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="package")
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of its own, in a context that pages of the same options share.

    A context takes the browser as long to begin as most tests take, and a process, which ends with
    its last page: so each keeps an empty one. Reports and reviews store nothing in a browser, so no
    page sees what was in another.
    """
    contexts: dict[str, Any] = {}

    def opened(**options: Any) -> Any:
        usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
        options = {**usual, **options}
        if repr(options) not in contexts:
            contexts[repr(options)] = browser.new_context(**options)
            contexts[repr(options)].new_page()
        return contexts[repr(options)].new_page()

    yield opened
    for context in contexts.values():
        context.close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write(tmp_path / "out", RECORD)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(results: Path, *arguments: str, **options: Any) -> Server:
        kind = Process if arguments else Server
        servers.append(kind(results, *arguments, **options))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


# A page of the grid waits for half a second, in which nobody has seen it.
HURRIED = "const later = setTimeout; window.setTimeout = (what, after) => later(what, after / 10);"


@pytest.fixture
def show(new_page: Any) -> Iterator[Any]:
    """Opens a page of a review, whose waits are a tenth unless it is not `hurried`. None of them
    may have an error at the end, but those that are said to, because their server goes away.
    """
    pages: dict[Any, list[str]] = {}

    def open_page(
        address: str, may_fail: bool = False, hurried: bool = True, **options: Any
    ) -> Any:
        page = new_page(**options)
        if hurried:
            page.add_init_script(HURRIED)
        problems: list[str] = []
        pages[page] = [] if may_fail else problems
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: message.type == "error" and problems.append(message.text)
        )
        page.problems = problems
        page.goto(address)
        page.locator("#main > *").first.wait_for()
        # a page of the grid may be accepted now
        page.locator(".cells[aria-busy]").wait_for(state="detached")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert [*pages.values()] == [[]] * len(pages)
