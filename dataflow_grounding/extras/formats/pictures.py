"""Pictures that are no files yet, bytes in a row or at http(s) addresses, put into the results
folder once.
"""

import asyncio
import hashlib
import io
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from dataflow_grounding._util.errors import BrokenRow, InputError, told_as
from dataflow_grounding._util.files import open_log, within
from dataflow_grounding.data.records import dump_line, write_bytes
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.images.files import open_picture

if TYPE_CHECKING:
    import aiohttp
    import yarl

FOLDER = "pictures"
"""The folder in `results_dir`."""
MAX_BYTES, SECONDS, REDIRECTS, AT_ONCE = 64 * 2**20, 60, 5, 16
"""Of one picture from an address: bytes, seconds for all of it, redirects; and how many are fetched
at a time.
"""

_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}
_PRIVATE = "it is an address of this machine or of a private network"
_NAT64, _OPEN = IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")

Address = IPv4Address | IPv6Address


def put_picture(data: bytes, results_dir: str) -> str:
    """Write a picture, once, under its digest; the path is relative to `results_dir`. Raises
    InputError.
    """
    try:
        with open_picture(io.BytesIO(data)) as picture:
            kind = str(picture.format)
            ending = _ENDINGS.get(kind, f".{kind.lower()}")
    except Exception:
        # Pillow's readers raise all kinds; the record with this picture will fail, and say so
        ending = ".bin"
    name = f"{FOLDER}/{hashlib.sha256(data).hexdigest()[:32]}{ending}"
    path = within(results_dir, name)
    with told_as(InputError, f"can't write {path}"):
        if not (os.path.exists(path) and os.path.getsize(path) == len(data)):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_bytes(path, data, alone=False)  # of two equal pictures each thread writes its own
    return name


def is_public(address: Address) -> bool:
    """Whether an IP address is one of the open internet: neither this machine's, nor of a network
    behind the router.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return (
        address in _OPEN
        and address.is_global
        and (address.sixtofour is None or is_public(address.sixtofour))
    )


class Downloads:
    """Pictures from http(s) addresses, each fetched once for a results folder.

    Args:
        results_dir: Where they are put; which address gave which stands in `.ckpt/addresses.jsonl`.
        allowed: Whether an IP address may be connected to. It is asked about every address that a
            name stands for, of every redirect too, and no other than those is connected to.
    """

    def __init__(self, results_dir: str, allowed: Callable[[Address], bool] = is_public) -> None:
        self._results_dir, self._allowed = results_dir, allowed
        self._index = os.path.join(results_dir, ".ckpt", "addresses.jsonl")
        rows = read_rows(self._index) if os.path.exists(self._index) else ()
        known = (row.data for row in rows if row.data is not None)
        kept = re.compile(rf"{FOLDER}/[^/]+")
        self._known = {
            str(one.get("url")): at for one in known if kept.fullmatch(at := str(one.get("path")))
        }

    def fetch(self, addresses: Iterable[str]) -> Mapping[str, str | BrokenRow]:
        """Of each address the picture's path, relative to `results_dir`, or why there is none."""
        wanted = dict.fromkeys(addresses)
        places = {
            url: within(self._results_dir, self._known[url]) for url in wanted if url in self._known
        }
        new = [url for url in wanted if not os.path.exists(places.get(url, ""))]
        found = run_blocking(lambda: self._fetch_all(new)) if new else {}
        got = {url: path for url, path in found.items() if isinstance(path, str)}
        self._known |= got
        with told_as(InputError, f"can't write {self._index}"):
            os.makedirs(os.path.dirname(self._index), exist_ok=True)
            with open(open_log(self._index), "a", encoding="utf-8") as file:
                file.writelines(dump_line({"url": url, "path": path}) for url, path in got.items())
        for error in found.values():
            if isinstance(error, BrokenRow):
                error.passing = True  # the next run tries again
        return {url: found.get(url) or self._known[url] for url in wanted}

    async def _fetch_all(self, urls: list[str]) -> dict[str, str | BrokenRow]:
        import aiohttp

        allowed = self._allowed

        class Guarded(aiohttp.ThreadedResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> Any:
                found = await super().resolve(host, port, family)
                if not all(allowed(ip_address(item["host"])) for item in found):
                    raise BrokenRow(f"no picture from {host}: {_PRIVATE}")
                return found

        connector, timeout = (
            aiohttp.TCPConnector(resolver=Guarded()),
            aiohttp.ClientTimeout(total=SECONDS),
        )
        settings: dict[str, Any] = {
            "connector": connector,
            "timeout": timeout,
            "auto_decompress": False,
        }
        headers = {
            "User-Agent": "dataflow-grounding",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
        }
        async with aiohttp.ClientSession(
            headers=headers, cookie_jar=aiohttp.DummyCookieJar(), **settings
        ) as session:
            turns = asyncio.Semaphore(AT_ONCE)

            async def one(url: str) -> str | BrokenRow:
                async with turns:
                    return await self._fetch(session, url)

            return dict(zip(urls, await asyncio.gather(*map(one, urls)), strict=True))

    async def _fetch(self, session: "aiohttp.ClientSession", url: str) -> str | BrokenRow:
        import aiohttp

        try:
            data = await asyncio.wait_for(self._bytes(session, url), SECONDS)
            return await asyncio.to_thread(put_picture, data, self._results_dir)
        except BrokenRow as error:
            return error
        except asyncio.TimeoutError:
            why = f"it took more than {SECONDS} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error).replace(url, shown_address(url)) or type(error).__name__
        return BrokenRow(f"no picture from {shown_address(url)}: {why}")

    async def _bytes(self, session: "aiohttp.ClientSession", url: str) -> bytes:
        """The picture at an address. Raises BrokenRow, and all that aiohttp raises."""
        none = f"no picture from {shown_address(url)}"
        at = url
        for _ in range(REDIRECTS + 1):
            async with session.get(self._checked(at), allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                    at = urljoin(at, response.headers["Location"])
                    continue
                if response.status != 200:
                    raise BrokenRow(f"{none}: it answered {response.status}")
                data = bytearray()
                async for part in response.content.iter_chunked(1 << 16):
                    data += part
                    if len(data) > MAX_BYTES:
                        raise BrokenRow(f"{none}: it has more than {MAX_BYTES >> 20} MiB")
                return bytes(data)
        raise BrokenRow(f"{none}: more than {REDIRECTS} redirects")

    def _checked(self, url: str) -> "yarl.URL":
        """The address as it will be connected to; a name in it is checked when it is looked up.
        Raises BrokenRow.
        """
        import yarl

        parsed = yarl.URL(url)  # read once, so that what is checked is what is asked
        host = parsed.host or ""
        if parsed.scheme not in ("http", "https"):
            raise BrokenRow(f"{shown_address(url)} is not an http or https address")
        if ":" in host or host.replace(".", "").isdigit():
            # these go to the socket unseen by any resolver
            try:
                allowed = self._allowed(ip_address(host))
            except ValueError:  # 127.1, say
                allowed = False
            if not allowed:
                raise BrokenRow(f"no picture from {host}: {_PRIVATE}")
        return parsed


def shown_address(url: str) -> str:
    """An address without what may be secret in it."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"[:200]
    except ValueError:
        return "an address"
