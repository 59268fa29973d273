"""What is known of image files, remembered on disk by path, size and time, so that resuming reads no image again."""

from __future__ import annotations

import asyncio
import hashlib
import time

from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.images import (
    FactsKey,
    ImageFacts,
    ImageLimits,
    facts_key,
    find_image,
    known_facts,
    read_facts,
    remember_facts,
)
from dataflow_grounding.records import Record


class ImageMemo:
    """Makes an image's facts known before an operator asks for them, off the event loop."""

    def __init__(self, log: KeyedLog | None) -> None:
        self._log = log

    async def prepare(self, record: Record, key: str, limits: ImageLimits | None) -> None:
        """Know the facts of the record's image. Raises BrokenRow, ImageMissing, ImageBroken."""
        known, facts = await asyncio.to_thread(self._look, record, key, limits)
        if not known and self._log is not None:
            path, size, mtime_ns = facts[0]
            if (
                time.time_ns() - mtime_ns > 2 * 10**9
            ):  # a file written just now may be written again within its time's grain
                self._log.put(_digest(facts[0]), {"path": path, "size": size, "mtime_ns": mtime_ns, **vars(facts[1])})

    def _look(self, record: Record, key: str, limits: ImageLimits | None) -> tuple[bool, tuple[FactsKey, ImageFacts]]:
        path = find_image(record, key)
        file = facts_key(path)
        facts = known_facts(file)
        if facts is not None:
            return True, (file, facts)
        line = self._log.get(_digest(file)) if self._log is not None else None
        if line is not None:
            stored = ImageFacts(*(line[name] for name in ImageFacts.__dataclass_fields__))
            return True, (file, remember_facts(file, stored))
        return False, (file, remember_facts(file, read_facts(path, limits)))


def _digest(key: FactsKey) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:32]
