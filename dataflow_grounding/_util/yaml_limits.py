"""YAML of others, of which a few hundred bytes may stand for more values than memory holds."""

from dataclasses import dataclass

import yaml

DEEPEST = 50
"""How deep lists and mappings may be nested: at some thousands libyaml ends the process."""
MOST_VALUES = 1_000_000
"""Values of a text, those that an alias stands for counted each time."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml, where it is there


@dataclass
class _OpenCollection:
    """A list or mapping that has begun and not ended, with how many values it has so far."""

    anchor: str | None  # `a` of `&a [1, 2]`, which an alias `*a` repeats
    count: int


def check_values(text: str) -> None:
    """Raise ValueError, one line, for YAML of too many or too deep values; none of it is made."""
    # What is open at the event, from the outermost in: first the text as a whole, then lists and
    # mappings.
    around = [_OpenCollection(None, 0)]
    count_by_anchor: dict[str, int] = {}  # how many values each alias of an anchor has
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(_OpenCollection(event.anchor, 1))  # the collection counts itself
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = around.pop()
            if ended.anchor is not None:
                count_by_anchor[ended.anchor] = ended.count
            around[-1].count += ended.count
        elif isinstance(event, yaml.AliasEvent):
            # Anchors of single values aren't in `count_by_anchor`: each alias of them is one value.
            around[-1].count += count_by_anchor.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            around[-1].count += 1
        if len(around) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and mappings inside each other")
        if around[-1].count > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
