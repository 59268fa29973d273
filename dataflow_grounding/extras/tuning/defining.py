"""Definitions of classes, written from errors on some pictures and judged on others.

The model is shown a sheet of crops of what it got wrong on some of the pictures, and proposes what
counts as a class. A proposal is kept only where a paired comparison on the other pictures, the
held-out ones, says so.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from dataflow_grounding._util.files import portable, within
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.extras.tuning.gold import GoldPicture, Phrase, boxes_by_text, f1_of
from dataflow_grounding.extras.tuning.race import Comparison, Race, Rules
from dataflow_grounding.images.files import decode

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MOST_CLASSES = 6
"""So many classes are defined anew, those with the most errors."""
LEAST_ERRORS = 3
"""Of a class with fewer errors on the shown pictures, nothing is to be learned."""
MOST_CROPS = {"false": 6, "missed": 5, "right": 5}
"""The most crops of each kind in a sheet: false boxes, missed things, and things found rightly."""
RULES = Rules(replaces_at=0.88)
"""A proposal has to be better with this chance."""
_TILE = 256  # px of a crop's longer side in the sheet
_GAP = 32  # px between crops, where their numbers stand
_MARGIN = 0.25  # of the box's longer side, shown around it
_LEAST_MARGIN = 8  # px of it at least
_COLUMNS = 4  # of the sheet
_NUMBER_SIZE = 20  # px, the font of a crop's number
_NUMBER_ABOVE = 26  # px from the top of the number to that of its crop


@dataclass(frozen=True)
class Crop:
    """A box to be shown.

    Attributes:
        path: The picture's.
        bbox: In pixels of the picture.
        error: "false", "missed" or "right", as DefinitionWriter has it.
        shows: The class of another thing that is there, for a false box; else empty.
    """

    path: str
    bbox: Bbox
    error: str
    shows: str = ""


@dataclass
class ClassErrors:
    """What went wrong with a class on some pictures.

    Attributes:
        label: The class.
        phrases: The phrases that it was asked by, as keys: each once, in order.
        crops: All boxes by kind of error, those found rightly among them.
    """

    label: str
    phrases: dict[str, None] = field(default_factory=dict)
    crops: dict[str, list[Crop]] = field(
        default_factory=lambda: {error: [] for error in MOST_CROPS}
    )

    @property
    def count(self) -> int:
        """How many errors there are: false boxes and missed things."""
        return len(self.crops["false"]) + len(self.crops["missed"])

    def shown(self) -> list[Crop]:
        """Return the crops of the sheet in its order: the first of each kind, up to MOST_CROPS."""
        crops = []
        for error, most in MOST_CROPS.items():
            crops.extend(self.crops[error][:most])
        return crops


def errors_of(
    pictures: Sequence[GoldPicture], answers: Mapping[str, Mapping[str, Any]], first: int = 0
) -> list[ClassErrors]:
    """Return the classes with enough errors to learn from, the MOST_CLASSES with the most of them.

    Those with the most come first, of equal ones in the order of their names.

    Args:
        pictures: Pictures with gold.
        answers: What a run left of each, by its number as text. One without an answer counts as
            one in which nothing was found.
        first: The number of the first picture.
    """
    by_class: dict[str, ClassErrors] = {}
    for number, picture in enumerate(pictures, first):
        answered_boxes = boxes_by_text(answers.get(str(number), {"expressions": []}))
        for phrase in picture.phrases:
            errors = by_class.setdefault(phrase.label, ClassErrors(phrase.label))
            _add_answer(errors, picture, phrase, answered_boxes.get(phrase.text, []))
    with_enough = [errors for errors in by_class.values() if errors.count >= LEAST_ERRORS]
    with_enough.sort(key=lambda errors: (-errors.count, errors.label))
    return with_enough[:MOST_CLASSES]


def _add_answer(
    errors: ClassErrors, picture: GoldPicture, phrase: Phrase, boxes: Sequence[Bbox]
) -> None:
    """Add to a class what was right and wrong in the boxes that a phrase of it got in a picture."""
    errors.phrases[phrase.text] = None
    matches = match_boxes(boxes, phrase.boxes)  # by the index of the gold box
    right_indices = {index for index, _ in matches.values()}
    for index, bbox in enumerate(boxes):
        if index in right_indices:
            errors.crops["right"].append(Crop(picture.path, bbox, "right"))
        else:
            shows = _class_at(bbox, picture, phrase.label)
            errors.crops["false"].append(Crop(picture.path, bbox, "false", shows))
    for index, bbox in enumerate(phrase.boxes):
        if index not in matches:
            errors.crops["missed"].append(Crop(picture.path, bbox, "missed"))


def _class_at(bbox: Bbox, picture: GoldPicture, label: str) -> str:
    """Return the class of a thing other than `label` that the gold has at a box; "" for none."""
    for phrase in picture.phrases:
        if phrase.label != label and match_boxes([bbox], phrase.boxes):
            return phrase.label
    return ""


def row_of(errors: ClassErrors, folder: str, definition: str = "") -> dict[str, Any]:
    """Draw the sheet of a class into a folder, and return the record that DefinitionWriter reads.

    `definition` is the class's former one; without it, the record has none. Raises ImageBroken,
    ImageMissing.
    """
    crops = errors.shown()
    name = portable(errors.label).replace("/", "_")[:60]
    # Two classes may come to the same portable name: the digest tells them apart.
    digest = sha256(errors.label.encode(errors="replace")).hexdigest()[:8]
    path = within(folder, f"{name}-{digest}.png")
    draw_sheet(crops, path)
    crop_items = []
    for number, crop in enumerate(crops, 1):
        item: dict[str, Any] = {"id": number, "error": crop.error}
        if crop.shows:
            item["is"] = crop.shows
        crop_items.append(item)
    row = {
        "image_path": path,
        "class": errors.label,
        "phrases": list(errors.phrases),
        "crops": crop_items,
    }
    if definition:
        row["definition"] = definition
    return row


def draw_sheet(crops: Sequence[Crop], path: str) -> None:
    """Draw crops in rows, each in a tile of its own with its number from 1 above it, as a PNG.

    A box that lies outside of its picture has neither: its number is left out. Raises ImageBroken,
    ImageMissing.
    """
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    step = _TILE + _GAP
    columns = min(_COLUMNS, len(crops))
    rows = -(-len(crops) // columns)
    sheet = PIL.Image.new("RGB", (_GAP + columns * step, _GAP + rows * step), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_NUMBER_SIZE)
    for index, crop in enumerate(crops):
        row, column = divmod(index, columns)
        left = _GAP + column * step
        top = _GAP + row * step
        tile = _tile_of(crop)
        if tile is None:
            continue
        sheet.paste(tile, (left, top))
        pen.text((left, top - _NUMBER_ABOVE), str(index + 1), fill="black", font=font)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sheet.save(path)


def _tile_of(crop: Crop) -> "PillowImage | None":
    """Return what is shown of a crop: its box with a margin, its longer side `_TILE` px.

    None for a box outside of its picture. Raises ImageBroken, ImageMissing.
    """
    picture = decode(crop.path)
    x1, y1, x2, y2 = crop.bbox
    if min(x2, y2) <= 0 or x1 >= picture.width or y1 >= picture.height:
        return None
    margin = max(_MARGIN * max(x2 - x1, y2 - y1), _LEAST_MARGIN)
    left = max(round(x1 - margin), 0)
    top = max(round(y1 - margin), 0)
    right = min(round(x2 + margin), picture.width)
    bottom = min(round(y2 + margin), picture.height)
    if left >= right or top >= bottom:  # its corners are swapped
        return None
    region = picture.crop((left, top, right, bottom))
    scale = _TILE / max(region.size)
    size = (max(1, round(region.width * scale)), max(1, round(region.height * scale)))
    return region.resize(size)


def scores_of(
    label: str,
    pictures: Sequence[GoldPicture],
    answers: Mapping[str, Mapping[str, Any]],
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Yield the number of each picture that a class is asked about in, and its F1 there.

    Where it has several phrases in a picture, that is their mean. A picture without an answer
    counts as one in which nothing was found.

    Args:
        label: The class.
        pictures: The pictures with their gold.
        answers: The records of the answers, by the picture's number as text.
        first: The number of the first of the pictures.
    """
    for number, picture in enumerate(pictures, first):
        phrases = [phrase for phrase in picture.phrases if phrase.label == label]
        if not phrases:
            continue
        answered_boxes = boxes_by_text(answers.get(str(number), {"expressions": []}))
        scores = [f1_of(answered_boxes.get(phrase.text, []), phrase.boxes) for phrase in phrases]
        yield number, sum(scores) / len(scores)


@dataclass(frozen=True)
class Judgement:
    """Whether a proposal is kept, and the paired comparison that says so.

    Attributes:
        kept: Whether it is.
        before: Mean F1 of the class without the proposal.
        after: Mean F1 with it.
        chance: How likely the proposal is to be better, from 0 to 1.
        compared: The comparison, picture by picture.
    """

    kept: bool
    before: float
    after: float
    chance: float
    compared: Comparison


def judged(before: Mapping[int, float], after: Mapping[int, float]) -> Judgement:
    """Compare a class's F1 with a proposal and without it, on pictures that it was not made of.

    Without any picture, the proposal isn't kept.

    Args:
        before: Number of a picture → F1 of the class without the proposal.
        after: The same with it.

    Example:
        >>> without = {number: 0.5 for number in range(12)}
        >>> judged(without, {number: 0.9 for number in range(12)}).kept
        True
        >>> judged(without, {number: 0.4 for number in range(12)}).kept
        False
    """
    race = Race("before", ["after"], pictures=max(len(before), 1), rules=RULES)
    for number, score in before.items():
        race.tell("before", number, score)
    for number, score in after.items():
        race.tell("after", number, score)
    compared = race.compare("after", "before")
    return Judgement(
        race.winner == "after",
        race.mean("before") or 0.0,
        race.mean("after") or 0.0,
        race.chance("after"),
        compared,
    )
