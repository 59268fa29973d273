"""What is known of image files, remembered by path and believed while their state is the same.

So a run that goes on reads no image again, unless its file was touched. Then its bytes are read
once, which tell whether it is the same picture. A file is far if reading it waits for a store, and
young if it may change again and keep its state.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from dataflow_grounding._util.errors import RecordError, StorageFailed
from dataflow_grounding._util.threads import off_loop
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.keyed_log import KeyedLog, key_of
from dataflow_grounding.images import image as images
from dataflow_grounding.images.files import ImageFacts, read_file

T = TypeVar("T")

SLOW = 0.005  # seconds; a reading on the event loop that takes longer is slow
SLOW_IN_A_ROW = 3  # slow readings, after which threads read
YOUNG_NS = 2 * 10**9  # since its last change, a file may change again without a new time
_FACTS = ImageFacts.__dataclass_fields__
# Facts that aren't written, because most pictures have them.
_USUAL = {"media_type": "image/jpeg", "plain": True, "stretched": False}


class ImageMemo:
    """Makes images' facts known before an operator asks; unless it `keeps`, only reads its log."""

    def __init__(self, log: KeyedLog | None, *, keeps: bool = True) -> None:
        self._log = log
        self._keeps = keeps
        self._slow_in_a_row = 0  # readings on the event loop

    async def prepare(
        self, record: Record, key: str, limits: images.ImageLimits | None
    ) -> images.Image:
        """Return the record's image, with facts of this process, of the log, or of the file."""
        if images.opened(record, key) is None:  # no earlier step has looked for it
            if images.is_far(record, key):
                file = await off_loop(images.find_image, record, key)
            else:
                file = images.find_image(record, key)
            # Stays empty unless `_facts` has to read the file: then it puts the bytes here that
            # will be sent, so that nobody reads them again.
            kept: images.Kept = {}
            facts = images.kept_facts.get(file)
            if facts is None:
                facts = await self._facts(file, limits, kept)
            image = images.Image(file, facts, limits or images.ImageLimits(), kept=kept)
            record.images[record[key]] = image
        # an earlier step may have opened it, within other limits than these
        return images.open_image(record, key, limits)

    async def _facts(
        self, file: images.ImageFile, limits: images.ImageLimits | None, kept: images.Kept
    ) -> ImageFacts:
        """Return facts of the log, else of the file; `kept` gets its bytes, if these are sent."""
        facts = None
        if self._log is not None and len(self._log):
            facts = remembered(self._log, file)
        if facts is None:
            keep_for = limits if self._keeps else None  # None: no bytes are kept to be sent
            read = partial(images.read_facts, file, keep_for, kept)
            if file.is_far:
                facts = await off_loop(read)
            else:
                facts = await self.of_disk(read)
            if self._log is not None and self._keeps and not is_young(file):
                usual = _usual(file)
                line = {name: fact for name, fact in vars(facts).items() if usual.get(name) != fact}
                self._log.put(_key(file.path), {**line, "state": _state(file)})
        return images.keep_facts(file, facts)

    def forget(self, record: Record, key: str) -> None:
        """Forget the facts of the record's image, which was found to be another one."""
        images.let_go(record)
        with suppress(RecordError):  # it may be gone by now
            file = images.find_image(record, key)
            images.kept_facts.pop(file, None)
            if self._log is not None and self._keeps:
                self._log.put(_key(file.path), {})

    async def of_disk(self, read: Callable[[], T]) -> T:
        """Return what `read` returns: by the event loop, or by threads once the disk is slow."""
        # Handing a file to a thread takes longer than reading one from a quick disk.
        if self._slow_in_a_row >= SLOW_IN_A_ROW:
            return await asyncio.to_thread(read)
        import PIL.Image  # noqa: F401  the first reading's time is not that of its import

        start = time.perf_counter()
        try:
            return read()
        finally:
            is_slow = time.perf_counter() - start > SLOW
            self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0


def log_of(checkpoint_folder: str) -> KeyedLog:
    """Return what a run remembers of its images, only to be read; empty without a readable file."""
    try:
        path = os.path.join(checkpoint_folder, "images.jsonl")
        return KeyedLog(path, buffered=True, read_only=True)
    except StorageFailed:
        return KeyedLog("")


def remembered(log: KeyedLog, file: images.ImageFile) -> ImageFacts | None:
    """Return what the log says of a file in this state; None for nothing, or a damaged line."""
    line = log.get(_key(file.path))
    if line is None or line.get("state") != _state(file):
        return None
    facts = _usual(file)
    for name, value in line.items():
        if name in _FACTS:
            facts[name] = value
    is_whole = facts.keys() == _FACTS.keys()
    return ImageFacts(**facts) if is_whole else None


def digest_of(file: images.ImageFile, log: KeyedLog) -> str:
    """Return the SHA-256 of a file: the one that the log says of this state, else a new one."""
    facts = remembered(log, file)
    return facts.digest if facts else hashlib.sha256(read_file(file.path)).hexdigest()


def is_young(file: images.ImageFile) -> bool:
    """Whether a file has changed so lately that it may change again and keep its state."""
    # where a system counts whole seconds, `changed_ns` is the end of the file's second
    changed = file.changed_ns if file.counts_seconds else file.mtime_ns
    return time.time_ns() - changed <= YOUNG_NS


def _key(text: str) -> str:
    return key_of(repr(text))  # so are the keys of logs that are there


def _usual(file: images.ImageFile) -> Update:
    return {**_USUAL, "file_bytes": file.file_bytes}


def _state(file: images.ImageFile) -> str:
    numbers = (file.file_bytes, file.mtime_ns, file.ctime_ns, file.inode)
    # it is only compared, and a digest takes a third of the numbers' place in the log
    return hashlib.blake2b(repr(numbers).encode(), digest_size=8).hexdigest()
