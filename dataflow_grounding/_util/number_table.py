"""A map from 64-bit keys to numbers that takes 16 to 50 bytes an entry; a dict takes over 120."""

from array import array
from collections.abc import Iterator

_ALL_BITS = 2**64 - 1


class NumberTable:
    """Open addressing in two flat arrays. Keys are taken modulo 2**64; 0 counts as 1."""

    def __init__(self) -> None:
        self.count = 0
        self._resize(1024)

    def get(self, key: int) -> int | None:
        """The number of `key`, or None."""
        slot = self._slot(key & _ALL_BITS or 1)
        return self._values[slot] if self._keys[slot] else None

    def set(self, key: int, value: int) -> None:
        """Give `key` the number `value` (0 to 2**64 - 1)."""
        key = key & _ALL_BITS or 1
        slot = self._slot(key)
        if not self._keys[slot]:
            self.count += 1
            self._keys[slot] = key
        self._values[slot] = value
        if self.count * 3 > self._mask * 2:
            keys, values = self._keys, self._values
            self._resize((self._mask + 1) * 2)
            for known, number in zip(keys, values, strict=True):
                if known:
                    slot = self._slot(known)
                    self._keys[slot], self._values[slot] = known, number

    def items(self) -> Iterator[tuple[int, int]]:
        """All keys, as they are kept, with their numbers, in no order."""
        for key, number in zip(self._keys, self._values, strict=True):
            if key:
                yield key, number

    def _slot(self, key: int) -> int:
        keys, mask = self._keys, self._mask
        slot = key & mask
        while keys[slot] and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _resize(self, size: int) -> None:
        self._mask = size - 1
        self._keys = array("Q", bytes(8 * size))
        self._values = array("Q", bytes(8 * size))
