"""YAML of others, of which a few hundred bytes may stand for more values than memory holds."""

import yaml

DEEPEST = 50
"""How deep lists and mappings may be nested: at some thousands libyaml ends the process."""
MOST_VALUES = 1_000_000
"""Values of a text, those that an alias stands for counted each time."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml, where it is there


def check_values(text: str) -> None:
    """Raise ValueError, one line, for YAML of too many or too deep values; none of it is made."""
    counts = [0]  # of the values in each list or mapping around
    anchors: list[str | None] = [None]  # of the same lists and mappings
    count_of_anchor: dict[str, int] = {}  # of the values that each alias of an anchor stands for
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            count = counts.pop()
            anchor = anchors.pop()
            if anchor is not None:
                count_of_anchor[anchor] = count
            counts[-1] += count
        elif isinstance(event, yaml.AliasEvent):
            counts[-1] += count_of_anchor.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
        if len(counts) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and mappings inside each other")
        if counts[-1] > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES:,} values")
