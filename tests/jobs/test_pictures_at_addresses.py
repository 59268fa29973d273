"""Pictures at http(s) addresses: only where switched on, once, within limits, and never from this
machine's own networks.

`Downloads` takes who may be connected to as an argument, which no spec, option or variable reaches:
here it lets a server on 127.0.0.1 be reached, and still refuses 127.0.0.2 and all others.
"""

from __future__ import annotations

import functools
import gzip
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from dataflow_grounding.jobs import downloads
from dataflow_grounding.jobs.downloads import Downloads, is_public
from tests.support.workplace import Workplace, command, rows_of


class Site(ThreadingHTTPServer):
    """A site with a picture at /a.jpg and /b.jpg, and with much that goes wrong."""

    request_queue_size = 64

    def __init__(self, picture: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.picture = picture
        self.asked: Counter[str] = Counter()
        self.over = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked[path] += 1
        if path == "/loop":
            return self.redirect("/loop")
        if path == "/to":
            return self.redirect(unquote(self.path.partition("?")[2]))
        if path == "/slow":
            self.server.over.wait(60)
        body = {"/large": b"\xff" * 5000, "/squeezed": gzip.compress(self.server.picture)}.get(
            path, self.server.picture
        )
        found = path in ("/a.jpg", "/b.jpg", "/slow", "/large", "/squeezed")
        self.send_response(200 if found else 404)
        if path != "/large":  # which says nothing of its length
            self.send_header("Content-Length", str(len(body)))
        if path == "/squeezed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)
        return None

    def redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def site(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """It may be fetched from, as no spec can say."""
    door = functools.partial(Downloads, allowed=only_the_site)
    monkeypatch.setattr("dataflow_grounding.jobs.rows_job.Downloads", door)
    path = workplace.folder / workplace.picture("a picture.jpg")
    server = Site(path.read_bytes())
    path.unlink()
    serving = functools.partial(server.serve_forever, poll_interval=0.01)
    threading.Thread(target=serving, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def only_the_site(address: object) -> bool:
    return address == ip_address("127.0.0.1")


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.settings |= {"vlm.backend": "embedded", "vlm.box_format": "auto"}
    workplace.settings["data.allow_http"] = True
    return workplace


def rows(place: Workplace, *addresses: str) -> None:
    place.rows(
        {"image_path": address, "caption": f"Cup {n} on a table."}
        for n, address in enumerate(addresses)
    )


def told_of(place: Workplace) -> list[str]:
    """What the failures say."""
    return [failure["message"] for failure in place.failures()]


NO_PUBLIC_ADDRESS = "it is an address of this machine or of a private network"


def test_a_picture_is_fetched_once_by_content(workplace: Workplace, site: Site) -> None:
    rows(workplace, site.at("a.jpg"), site.at("b.jpg"), site.at("to?/a.jpg"), site.at("a.jpg"))
    workplace.settings["data.allow_http"] = True
    spec = str(workplace.spec())
    assert command(["check", "-e", spec]).code == 0
    asked = dict(site.asked)
    assert asked == {"/a.jpg": 2, "/b.jpg": 1, "/to": 1}
    assert command(["estimate", "-e", spec, "--json"]).summary["requests"] == 8
    assert workplace.run().code == 0
    assert workplace.run().summary["already_complete"]
    assert dict(site.asked) == asked
    [picture] = (workplace.results / "pictures").iterdir()
    assert picture.read_bytes() == site.picture
    records = workplace.annotations()
    assert {record["image_path"] for record in records} == {f"pictures/{picture.name}"}
    assert records[1]["image_url"] == site.at("b.jpg")


def test_what_cant_be_fetched_fails_alone_and_is_tried_again(
    place: Workplace, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "MAX_BYTES", 4000)
    monkeypatch.setattr(downloads, "SECONDS", 3)
    bad = {
        "gone.jpg?signature=sk-hidden": "it answered 404",
        "loop": "more than 5 redirects",
        "large": "it has more than 0 MiB",
        "slow": "it took more than 3 s",
        f"to?http://127.0.0.2:{site.port}/a.jpg": f"no picture from 127.0.0.2: {NO_PUBLIC_ADDRESS}",
        "to?http://10.0.0.1/a.jpg": f"no picture from 10.0.0.1: {NO_PUBLIC_ADDRESS}",
        "to?http://[::1]/a.jpg": f"no picture from ::1: {NO_PUBLIC_ADDRESS}",
        "to?file:///etc/passwd": "is not an http or https address",
    }
    rows(place, site.at("a.jpg"), *map(site.at, bad), "http://nowhere.invalid/a.jpg")
    done = place.run()
    assert done.code == 1, done
    failures = place.failures()
    assert [failure["line"] for failure in failures] == [*range(2, 11)]
    assert all(failure["retry"] for failure in failures)
    for said, expected in zip(told_of(place), [*bad.values(), "nowhere.invalid"], strict=True):
        assert expected in said
    assert "sk-hidden" not in (place.results / "failures.jsonl").read_text() + done.err
    site.asked.clear()
    site.over.set()
    assert place.run().code == 1
    assert (site.asked["/a.jpg"], site.asked["/gone.jpg"]) == (0, 1)


def test_what_is_sent_squeezed_is_not_unpacked(place: Workplace, site: Site) -> None:
    """So that no small answer becomes a large one; servers are asked for pictures as they are."""
    rows(place, site.at("squeezed"))
    assert place.run().code == 4
    assert place.failures()[0]["kind"] == "image_broken"


def test_without_the_door_nothing_here_is_connected_to(
    place: Workplace, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow_grounding.jobs.rows_job.Downloads", Downloads)
    hosts = (
        "127.0.0.1:PORT",
        "localhost:PORT",
        "[::ffff:127.0.0.1]:PORT",
        "2130706433:PORT",
        "0x7f.1:PORT",
        "0:PORT",
        "1.1.1.1@127.0.0.1:PORT",
        "127.0.0.1:PORT#@example.org",
    )
    addresses = [f"http://{host.replace('PORT', str(site.port))}/a.jpg" for host in hosts]
    rows(place, place.picture(), *addresses)
    done = place.run()
    assert (done.code, done.summary["done"]) == (1, 1), done
    assert [NO_PUBLIC_ADDRESS in said for said in told_of(place)] == [True] * len(hosts)
    assert not site.asked
    assert not (place.results / "pictures").exists()


def test_names_of_private_addresses_are_refused_by_whatever_way(
    place: Workplace, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "ten.example": "10.0.0.1",
        "mapped.example": "::ffff:10.0.0.1",
        "site.example": "127.0.0.1",
    }
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *more: Any, **settings: Any) -> Any:
        if host == "both.example":  # one of them may be connected to
            return [*lookup("site.example", port), *lookup("ten.example", port)]
        if host not in names:
            return real(host, port, *more, **settings)
        kind = socket.AF_INET6 if ":" in names[host] else socket.AF_INET
        address = (names[host], port, *((0, 0) if ":" in names[host] else ()))
        return [(kind, socket.SOCK_STREAM, 6, "", address)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    hosts = ("ten.example", "mapped.example", "both.example")
    refused = [f"http://{name}:{site.port}/a.jpg" for name in hosts]
    redirected = [site.at(f"to?{address}") for address in refused]
    rows(place, f"http://site.example:{site.port}/a.jpg", *refused, *redirected)
    assert place.run().code == 1
    assert [failure["line"] for failure in place.failures()] == [*range(2, 8)]
    assert all("of this machine or of a private network" in said for said in told_of(place))
    assert site.asked == {"/a.jpg": 1, "/to": 3}


def test_nothing_is_fetched_unless_switched_on(place: Workplace, site: Site) -> None:
    rows(place, site.at("a.jpg"))
    done = place.check(**{"data.allow_http": False})
    assert "add image_grounding.data.allow_http=true" in done.err
    assert not site.asked


PRIVATE = """
    64:ff9b::5db8:d822 2002:5db8:d822:: 127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1
    169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 255.255.255.255 ::1 :: fe80::1 fc00::1 ff02::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::7f00:1 fec0::1
    64:ff9b:1::a00:1 2001:0:7f00:1:: 4000::1
"""


PUBLIC = "93.184.216.34 2606:2800:220:1::1"


def test_which_addresses_are_public() -> None:
    addresses = [*PUBLIC.split(), *PRIVATE.split()]
    assert [one for one in addresses if is_public(ip_address(one))] == PUBLIC.split()


def test_the_list_of_what_was_fetched_is_read_again(tmp_path: Path, site: Site) -> None:
    url = site.at("a.jpg")
    first = Downloads(str(tmp_path), only_the_site).fetch([url])
    assert Downloads(str(tmp_path), only_the_site).fetch([url]) == first
    assert site.asked["/a.jpg"] == 1
    (tmp_path / str(first[url])).unlink()
    assert Downloads(str(tmp_path), only_the_site).fetch([url]) == first
    assert site.asked["/a.jpg"] == 2
    assert rows_of(tmp_path / ".ckpt/addresses.jsonl")[0]["url"] == url


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost"])
def test_a_host_that_the_user_names_may_be_in_a_private_network(
    place: Workplace, site: Site, host: str
) -> None:
    at, other = f"http://{host.split(':')[0]}:{site.port}", f"http://127.0.0.2:{site.port}/a.jpg"
    rows(place, f"{at}/a.jpg", f"{at}/to?{other}", other, "http://nowhere.invalid/a.jpg")
    place.settings["data.allow_hosts"] = [host.replace("PORT", str(site.port))]
    done = place.run(**{"data.allow_http": False})
    assert (done.code, done.summary["done"]) == (1, 1), done
    assert all("it is not one of data.allow_hosts" in said for said in told_of(place))
    public_too = place.run()
    assert (public_too.code, public_too.summary["done"]) == (1, 1), public_too
    assert [failure["line"] for failure in place.failures()] == [2, 3, 4]
    assert "a private network" in told_of(place)[1]
    shutil.rmtree(place.results)
    another_port = place.run(**{"data.allow_http": False, "data.allow_hosts": ["127.0.0.1:9"]})
    assert (another_port.code, "not one of data.allow_hosts" in another_port.err) == (2, True)


@pytest.mark.parametrize("host", ["http://images.lan", "*"])
def test_what_is_no_host_is_refused(place: Workplace, host: str) -> None:
    done = place.run(**{"data.allow_hosts": [host]})
    assert done.code == 2, done
    assert "should be the name or the IP address of a host" in done.err
