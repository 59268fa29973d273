"""Reading boxes and points out of a model's reply, in any of the shapes that models write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.geometry import Size
from dataflow_grounding.replies.box_reader import to_reading
from dataflow_grounding.replies.finding import parse_reply
from dataflow_grounding.replies.reading import FoundPoint, Reading


def read_boxes(
    reply: str,
    *,
    format: BoxFormat | str,
    image_size: Size,
    sent_size: Size | None = None,
    phrases: Sequence[str] | Mapping[int, str] = (),
) -> Reading:
    """Read the boxes in a model's reply, whatever shape it has.

    Args:
        reply: The reply's text: JSON of any shape, a model family's tokens, a table, or prose with numbers.
        format: The box format that the reply was asked for, or its name, such as `xyxy_1000` or `qwen3-vl`.
        image_size: Width and height of the upright image in pixels.
        sent_size: Width and height of the picture as sent, if it was resized.
        phrases: The request's phrases, by id or in order from 1. Every box then belongs to one of them or is dropped
            with a note; without phrases, all boxes are kept.

    Returns:
        The boxes in pixels of the upright image, inside it, and notes on what was done to read them. No boxes means that
        the reply says nothing is there.

    Raises:
        UnreadableReply: There is nothing to read, or nothing that was read can be used; the message says why.
        TruncatedReply: The reply is cut off before its first complete box.
        SpecError: The format is unknown.

    Example:
        >>> reply = '[{"label": "cat", "bbox_2d": [100, 200, 500, 800]}]'
        >>> reading = read_boxes(reply, format="xyxy_1000", image_size=(640, 480), phrases=["a cat"])
        >>> [(box.id, box.bbox) for box in reading.boxes]
        [(1, (64.0, 96.0, 320.0, 384.0))]
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    parsed = parse_reply(reply, box_format.key)
    wanted = dict(phrases) if isinstance(phrases, Mapping) else dict(enumerate(phrases, start=1))
    return to_reading(parsed, box_format, image_size, sent_size or image_size, wanted)


def read_points(
    reply: str, *, format: BoxFormat | str, image_size: Size, sent_size: Size | None = None
) -> list[FoundPoint]:
    """Read the points in the reply of a model that points.

    Args:
        reply: The reply's text, in any of the shapes that `read_boxes` takes.
        format: The box format whose scale and frame the points are in, or its name.
        image_size: Width and height of the upright image in pixels.
        sent_size: Width and height of the picture as sent, if it was resized.

    Returns:
        The points in pixels of the upright image; none if the reply says nothing is there.

    Raises:
        UnreadableReply: There is no point, and the reply doesn't say that nothing is there.
        SpecError: The format is unknown.

    Example:
        >>> read_points('<point x="25" y="50" alt="cup">cup</point>', format="xyxy_100", image_size=(640, 480))
        [FoundPoint(point=(160.0, 240.0), label='cup', numbers=(25.0, 50.0))]
    """
    box_format = find_box_format(format, "") if isinstance(format, str) else format
    parsed = parse_reply(reply, box_format.key)
    if not parsed.points and not parsed.absences:
        raise UnreadableReply("there is no point in the reply")
    found = []
    last = max((raw.answer for raw in parsed.points), default=0)
    for raw in parsed.points:
        if raw.answer < last:
            continue
        meant = replace(box_format, order=raw.order) if raw.order else box_format
        point = meant.point_to_pixels(raw.numbers, original=image_size, sent=sent_size)
        found.append(FoundPoint(point, raw.said.labels[0] if raw.said.labels else None, raw.numbers))
    return found
