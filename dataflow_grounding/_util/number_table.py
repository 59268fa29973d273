"""A map from 64-bit keys to numbers that takes 24 to 48 bytes an entry; a dict takes over 120.

A run remembers the place of each of millions of replies in its log.
"""

from array import array
from collections.abc import Iterator

ALL_BITS = 2**64 - 1


class NumberTable:
    """Flat arrays: a key is at the slot of its low bits, or at the next free one."""

    def __init__(self) -> None:
        self.count = 0  # of keys
        self._resize(1024)

    def get(self, key: int) -> int | None:
        slot = self._slot((key & ALL_BITS) or 1)
        return self._values[slot] if self._keys[slot] else None

    def __setitem__(self, key: int, value: int) -> None:
        """Give `key` the number `value` (0 to 2**64 - 1)."""
        key = (key & ALL_BITS) or 1  # 0 marks a free slot
        slot = self._slot(key)
        if not self._keys[slot]:
            self.count += 1
            self._keys[slot] = key
        self._values[slot] = value
        if self.count * 3 > self._mask * 2:  # two thirds full: search would become slow
            self._grow()

    def _grow(self) -> None:
        old_keys = self._keys
        old_values = self._values
        self._resize((self._mask + 1) * 2)
        for key, value in zip(old_keys, old_values, strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot] = key
                self._values[slot] = value

    def items(self) -> Iterator[tuple[int, int]]:
        for key, number in zip(self._keys, self._values, strict=True):
            if key:
                yield key, number

    def _slot(self, key: int) -> int:
        """The slot of a key, or the free one where it belongs. A third is free: the search ends."""
        keys = self._keys
        mask = self._mask
        slot = key & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _resize(self, size: int) -> None:
        self._mask = size - 1  # `size` is a power of 2, so `key & mask` is a slot
        self._keys = array("Q", bytes(8 * size))
        self._values = array("Q", bytes(8 * size))
