"""Makes README.md the description that a package index shows: an index has no other file of the
repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

ADDRESS = "DATAFLOW_GROUNDING_REPOSITORY"
"""Variable with the repository's public address at the time of a release,
`https://host/owner/name`.
"""
LINK = re.compile(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def described(readme: str, address: str, version: str) -> str:
    """`readme` with its relative links led to the release's files at `address`; without one, their
    text alone.
    """

    def absolute(found: re.Match[str]) -> str:
        picture, text, path = found.groups()
        if not address:
            return "" if picture else text
        kind = "raw" if picture else "blob"
        return f"{picture}[{text}]({address.rstrip('/')}/{kind}/v{version}/{path})"

    return LINK.sub(absolute, readme)


class Description(MetadataHookInterface):
    """Fills in `readme`, and `urls` where the repository has an address."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling when it builds."""
        address = os.environ.get(ADDRESS, "").rstrip("/")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        version = re.findall(
            r'__version__ = "(.*)"',
            Path(self.root, "dataflow_grounding/_util/version.py").read_text(),
        )[0]
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": described(text, address, version),
        }
        metadata["urls"] = {"Repository": address, "Issues": f"{address}/issues"} if address else {}
