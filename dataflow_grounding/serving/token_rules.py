"""How many tokens a request takes, by what providers publish.

It is for estimates before anything is sent.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dataflow_grounding._util.tables import load_table
from dataflow_grounding.boxes.geometry import Size

ASSUMED = 1000  # tokens of an image where the model's rule isn't known


@dataclass(frozen=True)
class TokenRules:
    """A model's rules. `known` tells whether its provider publishes one for images."""

    model: str
    media_resolution: str = ""

    @property
    def known(self) -> bool:
        """Whether images are counted by a published rule; else ASSUMED."""
        return self._published((512, 512)) is not None

    @property
    def least_cached(self) -> int:
        """Tokens from which on an equal beginning is billed as cached.

        So Google's and OpenAI's pages say; vLLM caches any.
        """
        return 1024 if re.match(r"gemini|gpt|o\d", self._name) else 0

    def image(self, size: Size) -> int:
        """Tokens of an image of this width and height in pixels, as sent."""
        return int(self._published(size) or ASSUMED)

    def text(self, text: str) -> int:
        """Tokens of a text: one for four ASCII characters, three for four others."""
        ascii_ = len(text.encode("ascii", "ignore"))
        return math.ceil(ascii_ / 4 + (len(text) - ascii_) * 3 / 4)

    @lru_cache(4096)  # noqa: B019  pictures of a data set have few sizes
    def _published(self, size: Size) -> Any:
        """Return the tokens of a picture by its provider's published rule; None without one.

        `size` is (width, height) in pixels, as sent.
        """
        width, height = size
        rule = self._rule()
        counts = rule.get("by_resolution", {})
        count = counts.get(self.media_resolution, counts.get("other"))
        if count:
            return count
        if "crop" in rule:
            if max(size) <= rule["one_up_to"]:
                return rule["crop"]
            side = max(1, math.floor(min(size) / 1.5))
            return rule["crop"] * _cells(size, side)
        if "tile" in rule:
            # it is fitted in 2048 x 2048, and its shorter side to 768; it is never enlarged
            scale = min(1.0, 2048 / max(size))
            scale *= min(1.0, 768 / (min(size) * scale))
            return rule["base"] + rule["tile"] * _cells((width * scale, height * scale), 512)
        if "patch" in rule:
            return math.ceil(min(_cells(size, 32), 1536) * rule["patch"])
        if "pixels" in rule:
            return min(rule["most"], math.ceil(width * height / rule["pixels"]))
        if "square" in rule:
            squares = round(width / rule["square"]) * round(height / rule["square"])
            return min(16384, max(4, squares)) + 2  # two mark the image's beginning and end
        return None

    def _rule(self) -> Any:
        """The table's first rule for this model; an empty one where there is none."""
        for rule in load_table(__package__, "token_rules.yaml"):
            if re.match(rule["models"], self._name):
                return rule
        return {}

    @property
    def _name(self) -> str:
        return self.model.lower().rsplit("/", 1)[-1]


def _cells(size: tuple[float, float], side: int) -> int:
    return math.ceil(size[0] / side) * math.ceil(size[1] / side)
