"""Messages between a driver and a worker that it has started on this machine.

They are pickled and go over two pipes.

Both are of one user and one installation, so that each may trust what the other pickles.
"""

import pickle
import struct
from typing import Any

_SIZE = struct.Struct(">Q")
HEAD_BYTES = _SIZE.size
"""How many bytes the size takes that stands before each message."""


def framed(message: Any) -> bytes:
    """Return a message as bytes to send: its size, then the message, pickled."""
    data = pickle.dumps(message)
    return _SIZE.pack(len(data)) + data


def size_of(head: bytes) -> int:
    """Return how many bytes follow `head`, the first HEAD_BYTES of a message."""
    size: int = _SIZE.unpack(head)[0]
    return size
