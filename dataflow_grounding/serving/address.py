"""The address of an endpoint: looked over before the first request, and as it may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from dataflow_grounding.errors import SpecError
from dataflow_grounding.secrets import learn_address

_API_KEY = re.compile(r"(?:^|&)[^=&]*key=", re.IGNORECASE)


def shown_address(url: str, block: str, key: str = "base_url") -> str:
    """The address without its secrets, which are remembered; `block.key` is its place. Raises SpecError."""
    name = f"{block}.{key}"
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{name} should begin with http:// or https://")
    try:
        address = urlsplit(url)
        usable = bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise SpecError(f"{name} is not an address: write it like http://host:8000/v1")
    if address.fragment:
        raise SpecError(f"{name} holds a '#': leave out what follows it, as it is never sent")
    if address.username or address.password or re.search(":[^/]*@", address.path) or _API_KEY.search(address.query):
        raise SpecError(f"{name} holds a name, a password or a key: give it as {block}.api_key")
    return learn_address(url)
