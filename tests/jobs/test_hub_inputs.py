"""Inputs and pictures on the Hub: huggingface_hub itself, and a server on this machine that answers
what it asks.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from dataflow_grounding._util import stores
from dataflow_grounding.images import image as images
from tests.jobs import test_remote_inputs as of_s3
from tests.support.workplace import Workplace, ended, rows_of

pytestmark = pytest.mark.slow

REPO, TOKEN = "datasets/someone/pictures", "hf_Loopback0123456789"
CLASSES = {"data.classes": ["cup"]}
place = of_s3.place


class Hub(ThreadingHTTPServer):
    """Repositories by name, revision and path, private where `token` is set. `faults`: by what is
    asked (`tree`, `cdn`) and the end of its path, what goes wrong with the first few: a status, or
    `cut`.
    """

    request_queue_size, daemon_threads = 256, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.url, self.token = f"http://127.0.0.1:{self.server_address[1]}", ""
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.pause = 0.0  # before a folder is listed
        self.faults: dict[tuple[str, str], list[str]] = {}
        self.asked: Counter[tuple[str, str]] = Counter()

    def put_all(self, folder: Path, repo: str = REPO, revision: str = "main") -> str:
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        self.repos.setdefault(repo, {})[revision] = files
        return f"hf://{repo}" + (f"@{revision}" if revision != "main" else "")

    def count(self, kind: str, ending: str = "") -> int:
        return sum(
            n for (asked, path), n in self.asked.items() if asked == kind and path.endswith(ending)
        )


class _Api(BaseHTTPRequestHandler):
    server: Hub
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def do_GET(self) -> None:
        hub, url = self.server, urlsplit(self.path)
        parts = [unquote(part) for part in url.path.removeprefix("/api").strip("/").split("/")]
        own = 3 if parts[0] == "datasets" else 2 + (parts[0] == "models")
        repo, (kind, revision) = (
            "/".join(parts[:own]).removeprefix("models/"),
            [*parts[own:], "main", "main"][:2],
        )
        path, sent = (
            "/".join(parts[own + 2 :]),
            self.headers.get("Authorization", "").removeprefix("Bearer "),
        )
        files = hub.repos.get(repo, {}).get(revision, {})
        hub.asked[kind, path] += 1
        faults = next(
            (
                f
                for (what, end), f in hub.faults.items()
                if what == kind and path.endswith(end) and f
            ),
            [],
        )
        fault = faults.pop(0) if faults else ""
        if fault.isdigit():
            self.answer(int(fault), headers={"Retry-After": "0"} if fault == "429" else {})
        elif sent not in ("", hub.token):
            self.answer(
                401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        elif repo not in hub.repos or sent != hub.token:
            self.answer(404 if sent else 401, headers={"X-Error-Code": "RepoNotFound"})
        elif not files:
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif kind in ("main", "revision"):
            self.answer(200, json.dumps({"id": repo, "sha": revision}).encode())
        elif kind == "tree":
            self.tree(files, path, parse_qs(url.query))
        elif path not in files:
            self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
        elif kind == "resolve":
            self.answer(
                302, headers={"Location": f"/{repo}/cdn/{quote(revision, safe='')}/{quote(path)}"}
            )
        else:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            self.answer(206, files[path][first : last + 1], cut=fault == "cut")

    def tree(self, files: dict[str, bytes], folder: str, query: dict[str, list[str]]) -> None:
        """What is below a folder, two a page, as the Hub gives a thousand."""
        time.sleep(self.server.pause)
        below = [
            path.removeprefix(f"{folder}/")
            for path in files
            if not folder or path.startswith(f"{folder}/")
        ]
        every = {
            path[:n]
            for path in below
            for n in range(1, len(path) + 1)
            if path[n : n + 1] in ("", "/")
        }
        names = sorted(name for name in every if query["recursive"] == ["true"] or "/" not in name)
        at, entries = int(query.get("cursor", ["0"])[0]), []
        for path in (f"{folder}/{name}".lstrip("/") for name in names[at : at + 2]):
            data, kind = files.get(path, b""), "file" if path in files else "directory"
            entries.append(
                {"type": kind, "path": path, "size": len(data), "oid": f"{hash(data):x}"}
            )
        more = f"{self.server.url}{self.path.partition('&cursor')[0]}&cursor={at + 2}"
        links = {"Link": f'<{more}>; rel="next"'} if at + 2 < len(names) else {}
        if names:
            self.answer(200, json.dumps(entries).encode(), links)
        else:
            self.answer(404, headers={"X-Error-Code": "EntryNotFound"})

    def answer(
        self,
        status: int,
        data: bytes = b"{}",
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = cut

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        serving = partial(running.serve_forever, poll_interval=0.01)
        threading.Thread(target=serving, daemon=True).start()
        constants, made = "huggingface_hub.constants.", "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        # the environment is read when it is imported
        monkeypatch.setattr(f"{constants}ENDPOINT", running.url)
        monkeypatch.setattr(f"{constants}HUGGINGFACE_CO_URL_TEMPLATE", running.url + made)
        monkeypatch.setattr(f"{constants}HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setenv("HF_TOKEN", "")
        forget()
        yield running
        running.shutdown()


def forget() -> None:
    stores._hub_file_system.cache_clear()
    for kept in (images.kept_facts, images.kept_files):
        kept.clear()


@pytest.mark.parametrize("kind", ["jsonl", "b"])
def test_a_file_there_gives_what_the_same_one_here_does(
    place: Workplace, hub: Hub, kind: str
) -> None:
    place.input = of_s3.KINDS[kind](rows_of(place.input), place.folder / "data")
    expected = of_s3.alone(place)
    given = {"data.input_jsonl": f"{hub.put_all(place.folder / 'data')}/{place.input.name}"}
    shutil.rmtree(place.folder / "data")
    assert place.check(**given).code == 0
    forget()
    hub.asked.clear()
    hub.pause = 0.3  # so that all threads ask for a list before one has it
    done = place.run(**given, **{"workflow.max_workers": 32})
    hub.pause = 0.0
    assert (done.code, place.files()) == (0, expected), done
    # all threads share a folder's list
    assert max(hub.asked["tree", folder] for folder in "01") <= 2
    forget()
    hub.asked.clear()
    (place.results / "annotations.jsonl").unlink()
    again = place.run(**given)
    assert (again.code, again.summary["requests"], hub.count("cdn", ".jpg")) == (0, 0, 0)
    assert place.files() == expected


def test_a_folder_and_a_glob_there_name_the_pictures_in_it(place: Workplace, hub: Hub) -> None:
    data = place.folder / "data"
    expected = of_s3.alone(place, **{"data.input_jsonl": f"{data}", **CLASSES})
    folder = hub.put_all(data)
    glob = hub.put_all(data, "someone/net", "refs/pr/1").replace("hf://some", "hf://models/some")
    for given in (folder, f"{glob}/**/*.jpg"):
        shutil.rmtree(place.results, ignore_errors=True)
        forget()
        hub.asked.clear()
        done = place.run(**{"data.input_jsonl": given, **CLASSES})
        assert (done.code, place.files()) == (0, expected), done
        assert hub.count("cdn", ".jpg") >= of_s3.PICTURES, given


@pytest.mark.parametrize("token", [f"{TOKEN}wrong", "", TOKEN])
def test_a_private_repository(
    place: Workplace, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    address, hub.token = f"{hub.put_all(place.folder / 'data')}/captions.jsonl", TOKEN
    monkeypatch.setenv("HF_TOKEN", token)
    forget()
    done = place.run(**{"data.input_jsonl": address})
    if token == TOKEN:
        assert done.code == 0, done
        written = "".join(str(data) for _, data in place.everything())
        assert TOKEN not in done.out + done.err + written
    else:
        why = "no such repository, or no token that may use it: set HF_TOKEN to one"
        assert (done.code, place.results.exists()) == (2, False), done
        assert done.err.endswith(f"can't read {address}: {why}\n"), done


@pytest.mark.parametrize("path", ["/none.jsonl", "/captions.json"])
def test_what_is_not_there_is_told_in_a_line(place: Workplace, hub: Hub, path: str) -> None:
    (place.folder / "data/captions.json").write_text("{}")
    address = f"{hub.put_all(place.folder / 'data')}{path}"
    # forbidden since
    hub.faults["cdn", "json"] = ["403"]
    done = place.run(**{"data.input_jsonl": address})
    assert (done.code, done.err.count("\n"), address in done.err) == (2, 1, True), done


def test_faults_pass_and_nothing_is_said_of_them(place: Workplace, hub: Hub) -> None:
    expected, root = of_s3.alone(place), hub.put_all(place.folder / "data")
    hub.faults = {
        ("main", ""): ["503"],
        ("tree", "1"): ["503"],
        ("resolve", "c0.jpg"): ["429"],
        ("cdn", "c1.jpg"): ["cut"],
    }
    done = ended(place.start(**of_s3.there(root)))
    assert (done.code, done.err.strip(), place.files()) == (0, "", expected), done
    assert not any(hub.faults.values())


def test_a_picture_that_went_fails_its_records_alone(place: Workplace, hub: Hub) -> None:
    root, hub.faults["resolve", "c2.jpg"] = hub.put_all(place.folder / "data"), ["404"] * 99
    done = place.run(**of_s3.there(root))
    of_it = of_s3.ROWS // of_s3.PICTURES  # rows of that picture
    assert (done.code, done.summary["failures"]) == (1, {"image_missing": of_it}), done
    assert hub.count("resolve", "c2.jpg") <= 8  # not asked for patiently
    hub.faults.clear()
    assert place.run(**of_s3.there(root)).summary["requests"] == 2 * of_it
