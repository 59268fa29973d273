"""The last pictures that were sent, as `data:` URLs: the process keeps them for the record's next steps."""

from __future__ import annotations

from collections import OrderedDict


class _UrlCache:
    """The last data URLs, up to a total of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self.urls: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The URL kept under this digest."""
        return self.urls.get(key)

    def put(self, key: str, url: bytes) -> bytes:
        """Keep `url`; the oldest go where there are too many bytes."""
        if key not in self.urls:
            self.urls[key] = url
            self.held += len(url)
        while self.held > self.max_bytes and len(self.urls) > 1:
            self.held -= len(self.urls.popitem(last=False)[1])
        return url


kept_urls = _UrlCache(32 * 2**20)
