"""Reading a reply as most tests of replies do: boxes in thousandths, in a picture of 1000 x 1000."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes


def read(
    reply: str | None,
    phrases: Sequence[str] | Mapping[int, str] = (),
    format: str = "xyxy_1000",
    **settings: Any,
) -> Reading:
    usual: dict[str, Any] = {"image_size": (1000, 1000)}
    return read_boxes(reply, format=format, phrases=phrases, **{**usual, **settings})


def refused(reply: str, phrases: Sequence[str] = (), **settings: Any) -> str:
    """Return why a reply is refused."""
    with pytest.raises(UnreadableReply) as error:
        read(reply, phrases, **settings)
    return str(error.value)
