"""How many tokens a request takes, by what providers publish: for estimates before anything is sent."""

import math
import re
from dataclasses import dataclass

from dataflow_grounding.geometry import Size

ASSUMED = 1000  # tokens of an image where the model's rule isn't known
_GEMINI_3 = {"MEDIA_RESOLUTION_LOW": 280, "MEDIA_RESOLUTION_MEDIUM": 560}
_TILES = [  # (model, base, tokens of a tile); developers.openai.com/api/docs/guides/images-vision
    (r"gpt-4o-mini", 2833, 5667),
    (r"gpt-4o|gpt-4\.1(?!-mini|-nano)|gpt-4\.5", 85, 170),
    (r"gpt-5(?:-\d{4}.*|-chat.*)?$", 70, 140),
    (r"o1|o3(?!-mini)", 75, 150),
]
_PATCHES = [  # (model, tokens of a patch of 32 x 32); the same page
    (r"(?:gpt-4\.1|gpt-5)-mini", 1.62),
    (r"(?:gpt-4\.1|gpt-5)-nano", 2.46),
    (r"o4-mini", 1.72),
]


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
        """Tokens from which on an equal beginning is billed as cached (Google's and OpenAI's pages); vLLM: any."""
        return 1024 if re.match(r"gemini|gpt|o\d", self._name) else 0

    def image(self, size: Size) -> int:
        """Tokens of an image of this width and height in pixels, as sent."""
        found = self._published(size)
        return ASSUMED if found is None else found

    def text(self, text: str) -> int:
        """Tokens of a text: one for four ASCII characters, three for four others."""
        ascii_ = sum(character.isascii() for character in text)
        return math.ceil(ascii_ / 4 + (len(text) - ascii_) * 3 / 4)

    def _published(self, size: Size) -> int | None:
        width, height = size
        model, resolution = self._name, self.media_resolution
        if model.startswith(("gemini-1", "gemini-2")):
            return _gemini_2(resolution, size)
        if model.startswith("gemini-"):  # ai.google.dev/gemini-api/docs/media-resolution
            return _GEMINI_3.get(resolution, 1120)
        for pattern, base, tile in _TILES:
            if re.match(pattern, model):
                return base + tile * _tiles(size)
        for pattern, factor in _PATCHES:
            if re.match(pattern, model):
                return math.ceil(min(math.ceil(width / 32) * math.ceil(height / 32), 1536) * factor)
        if re.match(r"claude", model):  # platform.claude.com/docs, vision: a token for 750 pixels, at most about 1,600
            return min(1600, math.ceil(width * height / 750))
        if match := re.match(
            r"qwen-?(2\.5|2|3(?:\.\d)?)-?vl", model
        ):  # their preprocessors: two by two patches a token
            side = 28 if match[1].startswith("2") else 32
            return min(16384, max(4, round(width / side) * round(height / side))) + 2
        return None

    @property
    def _name(self) -> str:
        return self.model.lower().rsplit("/", 1)[-1]


def _gemini_2(resolution: str, size: Size) -> int:
    """ai.google.dev/gemini-api/docs/media-resolution, image-understanding: 258 a tile, one if both sides are small."""
    if resolution == "MEDIA_RESOLUTION_LOW":
        return 64
    if resolution == "MEDIA_RESOLUTION_MEDIUM":
        return 256
    if max(size) <= 384:
        return 258
    unit = max(1, math.floor(min(size) / 1.5))
    return 258 * math.ceil(size[0] / unit) * math.ceil(size[1] / unit)


def _tiles(size: Size) -> int:
    """Tiles of 512 after fitting the image in 2048 x 2048 and its shorter side to 768; it is never enlarged."""
    scale = min(1.0, 2048 / max(size))
    scale *= min(1.0, 768 / (min(size) * scale))
    return math.ceil(size[0] * scale / 512) * math.ceil(size[1] * scale / 512)
