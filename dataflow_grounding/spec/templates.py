"""The text of a default spec: all keys of a pipeline, or those that most people set."""

import re
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import yaml

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.spec.problems import value_at

ALL_KEYS = "# All keys: dataflowgrounding default_specs --all results_dir=all_keys"
"""Where a short spec's other keys are: in a folder, as a spec that is there isn't overwritten."""

_SHORT: dict[str, dict[str, list[str]]] = load_table(__package__, "short_keys.yaml")
# A line of a template with a key: `    backend: gemini  # or openai`. The line of a block has no
# value, perhaps a comment: `  vlm:  # which model answers`.
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: (?!#)(?P<value>.*?))?(?P<comment>\s*(?: #.*)?)")


class _Line(NamedTuple):
    text: str
    place: tuple[str, ...]  # of its key in the pipeline's block, ("vlm", "backend"); () without


def template_of(pipeline: str) -> str:
    """Return the spec of a shipped pipeline with every key, its default and its meaning."""
    shipped = resources.files("dataflow_grounding.spec").joinpath(f"{pipeline}.yaml")
    return shipped.read_text(encoding="utf-8")


def with_settings(text: str, settings: JsonObject) -> str:
    """Return a template with the values of `settings` on their keys' lines.

    A row of endpoints.yaml is such settings: {"vlm": {"backend": "openai", …}, "first": "…"}.
    `first`, what to type before a run, comes above all lines as comments.
    """
    lines = []
    if "first" in settings:
        lines.append("# First type:")
        lines += [f"#   {line}" for line in settings["first"].splitlines()]
    for line, place in _lines(text):
        value = value_at(settings, place) if place else None
        parts = _KEY.fullmatch(line)
        if parts and parts["value"] and value is not None:  # a block's own line has no value
            in_yaml = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
            stated = in_yaml.splitlines()[0]
            lines.append(f"{parts['indent']}{parts['key']}: {stated}{parts['comment']}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def shortened(text: str, pipeline: str, settings: JsonObject) -> str:
    """Return a template with only the keys that most people set, and those of `settings`."""
    backend = settings["vlm"]["backend"]  # of the backends' blocks, only its own is kept
    short_keys = _SHORT["pipelines"][pipeline] + _SHORT["backends"][backend]  # as "vlm.backend"
    lines = []
    for line, place in _lines(text):
        key = ".".join(place)
        is_short_key = key in short_keys
        is_block_of_one = any(short_key.startswith(f"{key}.") for short_key in short_keys)
        is_in_settings = value_at(settings, place) is not None
        has_no_key = not place
        if has_no_key or is_short_key or is_block_of_one or is_in_settings:
            lines.append(line)
    head_end = lines.index("")  # the line after the head's comments
    return "\n".join([*lines[:head_end], ALL_KEYS, *lines[head_end:]]) + "\n"


def _lines(text: str) -> Iterator[_Line]:
    keys: list[str] = []  # that of the line last seen, after those of the blocks around it
    for line in text.splitlines():
        parts = _KEY.fullmatch(line)
        if not parts or not parts["indent"]:
            keys = []
            yield _Line(line, ())
            continue
        # Each level has two spaces more. The outermost block, without any, is the pipeline's.
        depth_in_block = len(parts["indent"]) // 2 - 1
        keys = [*keys[:depth_in_block], parts["key"]]
        yield _Line(line, tuple(keys))
