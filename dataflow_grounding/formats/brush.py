"""The runs of Label Studio's brush: four bytes for each pixel, red, green, blue and alpha.

A stream of bits: 32 bits of how many values follow, 5 of a value's bits less one, four times 4 of
the bits of a length less one; then pieces. A piece begins with a bit, set where all its values are
equal, and two bits that choose one of the four; then comes its length less one, and its values, or
the one value. Source: the format of rle-pack, which label-studio's editor uses.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.rle import MOST_PIXELS

if TYPE_CHECKING:
    from dataflow_grounding.boxes.rle import Pixels

_CHANNELS = 4
_BITS = 8  # of a value
_LENGTHS = (3, 4, 8, 16)  # bits of a length that are written


def inside_of(runs: Any, size: Size) -> "Pixels":
    """Return an array of a brush's runs, true where alpha is above nothing.

    `size` is the picture's width and height. Raises BrokenRow.
    """
    import numpy as np

    width, height = size
    count = width * height * _CHANNELS
    if not isinstance(runs, list) or not 0 < count <= MOST_PIXELS * _CHANNELS:
        raise BrokenRow("the brush has no rle, or its picture no size")
    if not all(type(number) is int and 0 <= number < 256 for number in runs):
        raise BrokenRow("the rle of the brush should be bytes")
    bits = _Bits(np.unpackbits(np.array(runs, dtype=np.uint8)))
    if bits.number(32) != count or bits.number(5) + 1 != _BITS:
        raise BrokenRow(f"the brush is not of {width} x {height} px")
    lengths = [bits.number(4) + 1 for _ in range(4)]
    alpha = np.zeros(width * height, dtype=bool)
    start = 0
    while start < count:
        are_equal = bits.number(1)
        end = start + bits.number(lengths[bits.number(2)]) + 1
        if end > count:
            raise BrokenRow("the rle of the brush has more values than its picture")
        # Every fourth value is an alpha.
        part = alpha[start // _CHANNELS : end // _CHANNELS]
        if are_equal:
            part[:] = bits.number(_BITS) > 0
        else:
            part[:] = bits.bytes(end - start)[(_CHANNELS - 1 - start) % _CHANNELS :: _CHANNELS] > 0
        start = end
    return alpha.reshape((height, width))


class _Bits:
    """Bits that are read from their beginning on. Raises BrokenRow at their end."""

    def __init__(self, bits: Any) -> None:
        self._bits = bits
        self._at = 0

    def _next(self, count: int) -> Any:
        taken = self._bits[self._at : self._at + count]
        if len(taken) < count:
            raise BrokenRow("the rle of the brush ends too early")
        self._at += count
        return taken

    def number(self, bits: int) -> int:
        """Return the number that the next `bits` bits write."""
        value = 0
        for bit in self._next(bits).tolist():
            value = value * 2 + bit
        return value

    def bytes(self, count: int) -> Any:
        """Return the next `count` bytes, as an array."""
        import numpy as np

        return np.packbits(self._next(count * _BITS))


def runs_of(inside: "Pixels") -> list[int]:
    """Return the runs of an array: all four bytes of a pixel are 255 where it is true, else 0."""
    import numpy as np

    flat = inside.reshape(-1)
    edges = [0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    text = [f"{flat.size * _CHANNELS:032b}{_BITS - 1:05b}"]
    text += [f"{bits - 1:04b}" for bits in _LENGTHS]
    for start, end in pairwise(edges):
        text += _pieces((end - start) * _CHANNELS, 255 if flat[start] else 0)
    return _bytes_of("".join(text))


def _pieces(count: int, value: int) -> list[str]:
    pieces = []
    while count > 0:
        length = min(count, 2 ** _LENGTHS[-1])
        choice = next(n for n, bits in enumerate(_LENGTHS) if length <= 2**bits)
        bits = _LENGTHS[choice]
        pieces.append(f"1{choice:02b}{length - 1:0{bits}b}{value:08b}")
        count -= length
    return pieces


def _bytes_of(bits: str) -> list[int]:
    padded = bits + "0" * (-len(bits) % _BITS)
    parts: Sequence[str] = [padded[at : at + _BITS] for at in range(0, len(padded), _BITS)]
    return [int(part, 2) for part in parts]
