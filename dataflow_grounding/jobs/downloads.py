"""Pictures at http(s) addresses, each fetched once into the results folder.

Addresses come from rows, which may be a stranger's. So this machine's own network is out of reach:
a host is connected to only if all IP addresses of its name are public, or if the user has named it.
"""

import asyncio
import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from dataflow_grounding._util.errors import BrokenRow, InputError, errors_as
from dataflow_grounding._util.files import open_log, within
from dataflow_grounding._util.results_names import PICTURES
from dataflow_grounding.data.records import dump_line
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.picture_folder import put_picture

if TYPE_CHECKING:
    import aiohttp
    import yarl

# the most for one picture
MAX_BYTES = 64 * 2**20
SECONDS = 60  # with all its redirects
REDIRECTS = 5

_REDIRECTING = (301, 302, 303, 307, 308)  # statuses with a `Location`
AT_ONCE = 16  # pictures that are fetched at a time
CHUNK = 2**16  # bytes that are read at a time

# why an address is refused that may be of a private network
_PRIVATE = (
    "it is an address of this machine or of a private network, which data.allow_hosts does not name"
)
_GLOBAL = IPv6Network("2000::/3")  # all IPv6 addresses that may be public

Address = IPv4Address | IPv6Address


def is_public(address: Address) -> bool:
    """Return whether an IP address is of the open internet. An IPv6 one for an IPv4 one isn't."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return True
    # Mapped and NAT64 addresses are outside of _GLOBAL.
    return address in _GLOBAL and address.sixtofour is None


class Fetcher:
    """Fetches pictures from http(s) addresses that are allowed.

    `hosts` (`name` or `name:port`) are those that the user names: all of their addresses are
    allowed. With `no_others`, no other host is. Without it, `allowed` is asked about every IP
    address of another host's name. Addresses of redirects are checked in the same way.
    """

    def __init__(
        self,
        allowed: Callable[[Address], bool] = is_public,
        *,
        hosts: Collection[str] = (),
        no_others: bool = False,
    ) -> None:
        self._allowed = allowed
        self._hosts = frozenset(hosts)
        self._no_others = no_others

    def session(self) -> "aiohttp.ClientSession":
        """Return a session for `fetched`, to be closed by the caller."""
        import aiohttp

        headers = {
            "User-Agent": "dataflow-grounding",
            "Accept": "image/*",
            "Accept-Encoding": "identity",  # not compressed: pictures are already
        }
        return aiohttp.ClientSession(
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(resolver=self._resolver()),
            timeout=aiohttp.ClientTimeout(total=SECONDS),
            auto_decompress=False,  # a few bytes could become more than memory holds
        )

    def _resolver(self) -> "aiohttp.ThreadedResolver":
        import aiohttp

        # `self` is the resolver in the methods below
        is_named = self._is_named
        is_allowed = self._allowed

        class GuardedResolver(aiohttp.ThreadedResolver):
            # aiohttp has it look up each host name, and connects to the addresses that it returns.
            # So no name is looked up a second time, when it might lead to another address.
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> Any:
                addresses = await super().resolve(host, port, family)
                if is_named(host, port):
                    return addresses
                for address in addresses:
                    if not is_allowed(ip_address(address["host"])):
                        raise BrokenRow(f"no picture from {host}: {_PRIVATE}")
                return addresses

        return GuardedResolver()

    async def fetched(self, session: "aiohttp.ClientSession", url: str) -> bytes | BrokenRow:
        """Return the bytes of a picture, or why there are none; a later try may get them."""
        import aiohttp

        no_picture = f"no picture from {shown_address(url)}"
        try:
            return await asyncio.wait_for(self._bytes(session, url), SECONDS)
        except BrokenRow as error:
            broken = error
        except asyncio.TimeoutError:
            broken = BrokenRow(f"{no_picture}: it took more than {SECONDS} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # aiohttp's texts may repeat the address, with its secrets; some errors have no text.
            why = str(error).replace(url, shown_address(url)) or type(error).__name__
            broken = BrokenRow(f"{no_picture}: {why}")
        broken.passing = True  # a later run tries again
        return broken

    async def _bytes(self, session: "aiohttp.ClientSession", url: str) -> bytes:
        """Return the bytes at an address, or at the one that its redirects lead to."""
        no_picture = f"no picture from {shown_address(url)}"
        present_url = url
        for _ in range(REDIRECTS + 1):
            # aiohttp would follow redirects without a check of each address.
            async with session.get(self._checked(present_url), allow_redirects=False) as response:
                target = response.headers.get("Location")
                if response.status in _REDIRECTING and target is not None:
                    present_url = urljoin(present_url, target)  # it may be relative
                    continue
                if response.status != 200:
                    raise BrokenRow(f"{no_picture}: it answered {response.status}")
                return await _body_of(response, no_picture)
        raise BrokenRow(f"{no_picture}: more than {REDIRECTS} redirects")

    def _is_named(self, host: str, port: int | None) -> bool:
        host = f"[{host}]" if ":" in host else host.lower()  # an IPv6 address is named in brackets
        return host in self._hosts or f"{host}:{port}" in self._hosts

    def _checked(self, url: str) -> "yarl.URL":
        """Return the parsed address. Raises BrokenRow where it isn't allowed."""
        import yarl

        parsed = yarl.URL(url)  # parsed once, so that what is checked is what is asked
        host = parsed.host or ""
        if parsed.scheme not in ("http", "https"):
            raise BrokenRow(f"{shown_address(url)} is not an http or https address")
        if self._is_named(host, parsed.port):
            return parsed
        if self._no_others:
            raise BrokenRow(f"no picture from {host}: it is not one of data.allow_hosts")
        # An IP address goes to the socket unseen by any resolver, so it is checked here. A name is
        # checked by the resolver that looks it up.
        is_ip_address = ":" in host or host.replace(".", "").isdigit()
        if is_ip_address and not self._is_allowed_ip(host):
            raise BrokenRow(f"no picture from {host}: {_PRIVATE}")
        return parsed

    def _is_allowed_ip(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:  # a short form that only a socket understands, such as 127.1
            return False
        return self._allowed(address)


async def _body_of(response: "aiohttp.ClientResponse", no_picture: str) -> bytes:
    """Return the body. Raises BrokenRow above MAX_BYTES, because a server may send without end."""
    data = bytearray()
    async for part in response.content.iter_chunked(CHUNK):
        data += part
        if len(data) > MAX_BYTES:
            raise BrokenRow(f"{no_picture}: it has more than {MAX_BYTES >> 20} MiB")
    return bytes(data)


class Downloads(Fetcher):
    """Pictures from http(s) addresses, each fetched once for a results folder."""

    def __init__(
        self,
        results_dir: str,
        allowed: Callable[[Address], bool] = is_public,
        *,
        hosts: Collection[str] = (),
        no_others: bool = False,
    ) -> None:
        super().__init__(allowed, hosts=hosts, no_others=no_others)
        self._results_dir = results_dir
        self._index = os.path.join(results_dir, ".ckpt", "addresses.jsonl")
        # of the pictures that were fetched by now; paths are relative to `results_dir`
        self._path_by_address: dict[str, str] = {}
        if os.path.exists(self._index):
            self._read_index()

    def _read_index(self) -> None:
        path_in_pictures = re.compile(rf"{PICTURES}/[^/]+")  # such as pictures/0a1b.jpg
        for row in read_rows(self._index):
            if row.data is not None:
                path = str(row.data.get("path"))
                if path_in_pictures.fullmatch(path):  # the file may be a stranger's
                    self._path_by_address[str(row.data.get("url"))] = path

    def fetch(self, addresses: Iterable[str]) -> Mapping[str, str | BrokenRow]:
        """Return each address's path, relative to `results_dir`, or why there is none this time."""
        distinct_addresses = list(dict.fromkeys(addresses))
        to_fetch = [url for url in distinct_addresses if not self._has_file_of(url)]
        results: dict[str, str | BrokenRow] = {}
        if to_fetch:
            results = run_blocking(lambda: self._fetch_all(to_fetch))
        self._remember({url: path for url, path in results.items() if isinstance(path, str)})
        for url in distinct_addresses:
            if url not in results:  # it has a file already
                results[url] = self._path_by_address[url]
        return results

    def _has_file_of(self, url: str) -> bool:
        if url not in self._path_by_address:
            return False
        return os.path.exists(within(self._results_dir, self._path_by_address[url]))

    def _remember(self, fetched: Mapping[str, str]) -> None:
        self._path_by_address |= fetched
        with errors_as(InputError, f"can't write {self._index}"):
            os.makedirs(os.path.dirname(self._index), exist_ok=True)
            with open(open_log(self._index), "a", encoding="utf-8") as file:
                for url, path in fetched.items():
                    file.write(dump_line({"url": url, "path": path}))

    async def _fetch_all(self, urls: list[str]) -> dict[str, str | BrokenRow]:
        async with self.session() as session:
            turns = asyncio.Semaphore(AT_ONCE)

            async def in_turn(url: str) -> str | BrokenRow:
                async with turns:
                    data = await self.fetched(session, url)
                    if isinstance(data, BrokenRow):
                        return data
                    return await asyncio.to_thread(put_picture, data, self._results_dir)

            results = await asyncio.gather(*map(in_turn, urls))
            return dict(zip(urls, results, strict=True))


def fetched_picture(url: str, *, hosts: Collection[str] = (), no_others: bool = False) -> bytes:
    """Return the bytes of a picture at an address, as `Downloads` fetches it. Raises BrokenRow."""

    async def fetched() -> bytes | BrokenRow:
        fetcher = Fetcher(hosts=hosts, no_others=no_others)
        async with fetcher.session() as session:
            return await fetcher.fetched(session, url)

    result = run_blocking(fetched)
    if isinstance(result, BrokenRow):
        raise result
    return result


def shown_address(url: str) -> str:
    """Return an address as it may be shown: 200 characters without user, password, port, query."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"[:200]
    except ValueError:
        return "an address"
