"""How many tokens a request takes, by the rules that providers publish: `TokenRules`.

The numbers are for estimates before anything is sent. token_rules.yaml has the rules.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import JsonObject

ASSUMED = 1000  # tokens that an image is taken to have where the model's rule isn't known
LEAST_CACHED = 1024  # equal tokens from which providers bill a beginning as cached
# OpenAI's models fit a picture into a square with sides of FITTED pixels, then its shorter side to
# SHORTER, and count tiles; newer ones count at most MOST_PATCHES patches instead.
FITTED = 2048
SHORTER = 768
TILE = 512
PATCH = 32
MOST_PATCHES = 1536
# Of Qwen's models, whose squares the table has.
FEWEST_SQUARES = 4
MOST_SQUARES = 16384


@dataclass(frozen=True)
class TokenRules:
    """How a model counts tokens; Gemini's counts depend on its setting `media_resolution`."""

    model: str
    media_resolution: str = ""

    @property
    def known(self) -> bool:
        """Whether the provider publishes a rule for images; without one they count ASSUMED."""
        return self._published((512, 512)) is not None

    @property
    def least_cached(self) -> int:
        """Equal tokens from which a beginning is billed as cached; 0 for models that cache any."""
        return LEAST_CACHED if re.match(r"gemini|gpt|o\d", self._name) else 0

    def image(self, size: Size) -> int:
        """Return the tokens of an image, by the size in which it is sent."""
        return int(self._published(size) or ASSUMED)

    def text(self, text: str) -> int:
        """Return about how many tokens a text has: 1/4 for an ASCII character, 3/4 for others."""
        ascii_count = len(text.encode("ascii", "ignore"))
        return math.ceil(ascii_count / 4 + (len(text) - ascii_count) * 3 / 4)

    @lru_cache(4096)  # noqa: B019  pictures of a data set have few sizes
    def _published(self, size: Size) -> Any:
        """An image's tokens; None without a rule. token_rules.yaml explains the keys of a row."""
        width, height = size
        rule = self._rule()
        # Gemini: {"MEDIA_RESOLUTION_LOW": 64, "other": 1120}. Older models have no "other".
        count_by_resolution = rule.get("by_resolution", {})
        usual_count = count_by_resolution.get("other")
        count = count_by_resolution.get(self.media_resolution, usual_count)
        if count:
            return count
        if "crop" in rule:  # older models of Gemini, at a resolution without a fixed count
            return _tokens_in_crops(size, rule)
        if "tile" in rule:  # OpenAI
            return _tokens_in_tiles(size, rule)
        if "patch" in rule:  # OpenAI's newer models
            return math.ceil(min(_cells(size, PATCH), MOST_PATCHES) * rule["patch"])
        if "pixels" in rule:  # Claude
            return min(rule["most"], math.ceil(width * height / rule["pixels"]))
        if "square" in rule:  # Qwen
            squares = round(width / rule["square"]) * round(height / rule["square"])
            # two more mark the image's beginning and end
            return min(MOST_SQUARES, max(FEWEST_SQUARES, squares)) + 2
        return None

    def _rule(self) -> Any:
        for rule in load_table(__package__, "token_rules.yaml"):
            if re.match(rule["models"], self._name):
                return rule
        return {}

    @property
    def _name(self) -> str:
        """`gpt-4o` of `openai/GPT-4o`."""
        return self.model.lower().rsplit("/", 1)[-1]


def _tokens_in_crops(size: Size, rule: JsonObject) -> Any:
    if max(size) <= rule["one_up_to"]:
        return rule["crop"]
    # A larger picture is cut into squares, two thirds of its shorter side wide, each of which has
    # these tokens.
    side = max(1, math.floor(min(size) / 1.5))
    return rule["crop"] * _cells(size, side)


def _tokens_in_tiles(size: Size, rule: JsonObject) -> Any:
    """The picture is fitted into a square, then by its shorter side; it is never enlarged."""
    scale = min(1.0, FITTED / max(size))
    shorter_side = min(size) * scale
    scale *= min(1.0, SHORTER / shorter_side)
    width, height = size
    return rule["base"] + rule["tile"] * _cells((width * scale, height * scale), TILE)


def _cells(size: tuple[float, float], side: int) -> int:
    """How many squares cover a picture."""
    return math.ceil(size[0] / side) * math.ceil(size[1] / side)
