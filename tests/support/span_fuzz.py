"""Spans: made-up captions and phrases, spelt in typography's many ways, and places that are right
by construction.

A caption is put together from words and what is between them. Each piece is spelt independently
every time: capitals, the four normal forms, full-width digits and letters, kinds of apostrophe,
quotation mark, hyphen and blank, soft hyphens and zero-width characters inside words. In every
other caption some words are between Markdown's marks of emphasis, code and links. A phrase is some
of the same pieces, or others, spelt independently. Where it may be found follows from the pieces'
numbers and places alone, without the package. Words are traps for one another: cart, car; cafe,
café; 한, 하.
"""

from __future__ import annotations

import itertools
import random
import string
import unicodedata
from dataclasses import dataclass

from dataflow_grounding.data.spans import find_spans

WORDS = [
    "a",
    "the",
    "car",
    "cart",
    "scar",
    "park",
    "dog",
    "dogs",
    "s",
    "cafe",
    "café",
    "caf",
    "é",
    "e",
    "naïve",
    "naive",
    "señor",
    "Ångström",
    "Straße",
    "Strasse",
    "œuvre",
    "10",
    "12",
    "2nd",
    "x2",
    "ệ",
    "ê",
    "αβγ",
    "λόγος",
    "машина",
    "й",
    "и",
    "सड़क",
    "की",
    "क",
    "İzmir",
    "ﬁsh",
    "fish",
    "vis_a",
]
# no gap needed between them
SIGNS = ["狗", "猫", "黑", "が", "か", "한", "하", "赤", "👍🏽", "👍", "👩\u200d👧", "👩"]

BLANKS = ("  ", "\u00a0", "\t", " \n ", "\u3000", "\u2009", " \u200b ")
UNSEEN = ("\u00ad", "\u200b", "\u2060")
SPELT = {
    " ": BLANKS,
    "'": ("’", "‘", "ʼ", "′", "‹", "›", "´", "＇"),
    '"': ("“", "”", "„", "«", "»", "「", "」", "＂"),
    "-": ("–", "‑", "‐", "−", "—", "－"),
}
MARKS = (
    ("**", "**"),
    ("*", "*"),
    ("_", "_"),
    ("__", "__"),
    ("***", "***"),
    ("~~", "~~"),
    ("`", "`"),
    ("_`", "`_"),
    ("[", "](https://example.org/q_q)"),
    ("**[", "](q)**"),
)
WIDE = {ord(c): ord(c) + 0xFEE0 for c in string.ascii_letters + string.digits}
BETWEEN = (" ", " ", " ", " ", "-", "'", ", ", ' "', '" ', " - ", ". ", " (", ") ")
SAME = {"strasse": "straße", "fish": "ﬁsh"}  # one word, up to case


@dataclass(frozen=True)
class Piece:
    """A word or what is between two, as it is meant."""

    text: str
    is_word: bool

    @property
    def meant(self) -> str:
        return SAME.get(self.text.lower(), self.text.lower()) if self.is_word else self.text


def pieces(dice: random.Random, words: int) -> list[Piece]:
    """A row of words with something between them; between signs of scripts without blanks there may
    be nothing.
    """
    row: list[Piece] = []
    for number in range(words):
        word = Piece(dice.choice(SIGNS if dice.random() < 0.25 else WORDS), True)
        if number and not (word.text in SIGNS and row[-1].text in SIGNS and dice.random() < 0.6):
            row.append(Piece(dice.choice(BETWEEN), False))
        row.append(word)
    return row


def spelt(piece: Piece, dice: random.Random) -> str:
    """One way to write a piece."""
    if not piece.is_word:
        return "".join(
            dice.choice(SPELT[c]) if c in SPELT and dice.random() < 0.4 else c for c in piece.text
        )
    way = dice.choice((str, str, str.lower, str.upper, str.title, str.swapcase))
    text = unicodedata.normalize(dice.choice(("NFC", "NFD", "NFKC", "NFKD")), way(piece.text))
    if dice.random() < 0.1:
        text = text.translate(WIDE)
    if piece.text in WORDS and len(text) > 1 and dice.random() < 0.15:
        place = dice.randrange(1, len(text))
        if not unicodedata.combining(text[place]) and not unicodedata.category(
            text[place]
        ).startswith("M"):
            text = text[:place] + dice.choice(UNSEEN) + text[place:]
    return text


def written(
    row: list[Piece], dice: random.Random, marked: bool = False
) -> tuple[str, list[tuple[int, int]]]:
    """The row as one text, and where each piece is in it; if `marked`, with Markdown's marks
    around some words.
    """
    text, places = "", []
    closing, last = "", -1
    words = [n for n, piece in enumerate(row) if piece.is_word]
    for number, piece in enumerate(row):
        if marked and not closing and piece.is_word and dice.random() < 0.3:
            opening, closing = dice.choice(MARKS)
            last = dice.choice([n for n in words if number <= n <= number + 6])
            text += opening
        start = len(text)
        text += spelt(piece, dice)
        places.append((start, len(text)))
        if number == last:
            text, closing = text + closing, ""
    return text, places


def where(
    wanted: list[Piece], row: list[Piece], places: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Every place at which these pieces are in the row, one after the other."""
    meant, here = [p.meant for p in wanted], [p.meant for p in row]
    size = len(wanted)
    return [
        (places[n][0], places[n + size - 1][1])
        for n in range(len(row) - size + 1)
        if here[n : n + size] == meant
    ]


@dataclass
class Tally:
    """`wrong` slices of `phrases`, and those `missed`: there, and not found."""

    captions: int = 0
    phrases: int = 0
    found: int = 0
    wrong: int = 0
    missed: int = 0
    first: str = ""

    def add(
        self,
        phrase: str,
        caption: str,
        given: list[tuple[int, int] | None],
        right: list[tuple[int, int]],
    ) -> None:
        """Count the spans that equal phrases were given, in order."""
        spans = [span for span in given if span is not None]
        apart, end = 0, -1
        for span in right:
            if span[0] >= end:
                apart, end = apart + 1, span[1]
        wrong = [span for span in spans if span not in right]
        wrong += [b for a, b in itertools.pairwise(spans) if a[1] > b[0]]
        missed = min(apart, len(given)) - len(spans)
        self.phrases += len(given)
        self.found += len(spans)
        self.wrong += len(wrong)
        self.missed += max(0, missed)
        if not self.first and (wrong or missed > 0):
            self.first = f"{phrase!r} in {caption!r}: {given}, right are {right}"


def fuzz(captions: int, seed: int = 0) -> Tally:
    """Look for phrases in this many made-up captions."""
    tally = Tally()
    for number in range(captions):
        dice = random.Random(f"{seed}/{number}")
        row = pieces(dice, dice.randrange(1, 14))
        caption, places = written(row, dice, marked=number % 2 == 1)
        asked: list[list[Piece]] = []
        for _ in range(dice.randrange(1, 5)):
            source = row if dice.random() < 0.8 else pieces(dice, 4)
            words = [n for n, piece in enumerate(source) if piece.is_word]
            first = dice.choice(words)
            last = dice.choice([n for n in words if first <= n <= first + 8])
            asked += [source[first : last + 1]] * dice.choice((1, 1, 1, 2))
        phrases = [dice.choice(("", " ", "\u200b")) + written(wanted, dice)[0] for wanted in asked]
        spans = find_spans(phrases, caption)
        for wanted in {tuple(piece.meant for piece in wanted): wanted for wanted in asked}.values():
            same = [
                n
                for n, other in enumerate(asked)
                if [p.meant for p in other] == [p.meant for p in wanted]
            ]
            tally.add(
                phrases[same[0]], caption, [spans[n] for n in same], where(wanted, row, places)
            )
        tally.captions += 1
    return tally
