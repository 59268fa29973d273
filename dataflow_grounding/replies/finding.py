"""Finding boxes and points in a reply: as it was asked for, else whichever shape it has."""

from dataclasses import replace

from dataflow_grounding.replies._as_asked import read_as_asked
from dataflow_grounding.replies.reading import ParsedReply, with_entities_resolved


def parse_reply(reply: str, key: str = "bbox_2d") -> ParsedReply:
    """Return a reply's boxes and points as written; `key` is the box key that was asked for.

    Raises:
        UnreadableReply: The reply has none, and doesn't say that there are none.
        TruncatedReply: The reply is cut off before its first complete box.
    """
    parsed = read_as_asked(reply, key)
    if parsed is None:
        # here, with all shapes that there are: most runs meet none but the one asked for
        from dataflow_grounding.replies._any_shape import parse_any

        parsed = parse_any(reply, key)
    if "&" in reply:
        _resolve_entities(parsed)
    return parsed


def _resolve_entities(parsed: ParsedReply) -> None:
    """Resolve HTML's entities in all labels of a parsed reply, in place."""
    parsed.boxes[:] = [
        replace(raw, details=with_entities_resolved(raw.details)) for raw in parsed.boxes
    ]
    parsed.points[:] = [
        replace(raw, details=with_entities_resolved(raw.details)) for raw in parsed.points
    ]
    for i, dropped in enumerate(parsed.dropped):
        parsed.dropped[i] = dropped._replace(details=with_entities_resolved(dropped.details))
