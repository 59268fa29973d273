"""The closed word lists that captions and phrases are read with, as words.yaml has them."""

from typing import Any

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.data.nouns import singular

_LISTS: dict[str, Any] = load_table(__package__, "words.yaml")


def _words(name: str) -> frozenset[str]:
    """Return the words of a list of words.yaml."""
    return frozenset(_LISTS[name].split())


def _terms(name: str) -> dict[str, str]:
    """Return word → the term that it means, of a table of words.yaml: "crimson" → "red"."""
    terms = {}
    for term, words in _LISTS[name].items():
        for word in words.split():
            terms[word] = term
    return terms


def _inflected(stem: str) -> tuple[str, ...]:
    """Return the forms of a regular verb in -s, -ing and -ed, and the stem itself.

    Some of them no verb has, such as "runed". They do no harm, as nobody writes them.
    """
    base = stem[:-1] if stem.endswith("e") else stem
    doubled = stem + stem[-1]
    if stem.endswith("y") and stem[-2] not in "aeou":
        third = stem[:-1] + "ies"
    elif stem.endswith(("s", "x", "ch", "sh", "o")):
        third = stem + "es"
    else:
        third = stem + "s"
    return (stem, third, base + "ing", base + "ed", doubled + "ing", doubled + "ed")


ARTICLES = _words("articles")
NEGATIONS = _words("negations")
VAGUE_COUNTS = _words("vague_counts")
TONES = _words("tones")
NUMBERS = {word: number for number, word in enumerate(_LISTS["numbers"].split(), start=1)}
COLOR_BOUNDS: dict[str, Any] = _LISTS["color_bounds"]
CHROMATIC = _terms("chromatic")
ACHROMATIC = _terms("achromatic")
SIZES = _terms("sizes")
POSITIONS = _terms("positions")
MANY_COLORED = _words("many_colored")
OTHER_COLORS = _words("other_colors")
DEPTHS = _words("depths")
PLACES = _words("places")
PICTURES = _words("pictures")
ORDINALS = _words("ordinals")
SHAPES = _terms("shapes")
KINDS = _terms("kinds")
NEVER = _terms("never")
PEOPLE = frozenset(word for word, kind in KINDS.items() if kind == "person")
ANYONE = _words("anyone")
NOT_COLORED = _words("not_colored")
ANYTHING = _words("anything")
ROUND = _words("round")
ONE_COLORED = _words("one_colored") | ANYTHING
FIGURES = _words("figures") | ROUND | ANYTHING
NOT_OBJECTS = (PICTURES | DEPTHS | PLACES | _words("not_objects")) - {"hand"}
OF_HEADS = _words("of_heads")
OF_AN_OWNER = _words("of_an_owner")
NAMED_BY_COLOR = _words("named_by_color")
DRINKS = _words("drinks")
QUANTITIES = _words("quantities")
PREPOSITIONS = _words("prepositions")
CONJUNCTIONS = _words("conjunctions")
STOPS = (
    PREPOSITIONS
    | CONJUNCTIONS
    | NEGATIONS
    | _words("pronouns")
    | _words("auxiliaries")
    | _words("adverbs")
)
VERB_STEMS = _words("verb_stems")
_REGULAR_VERBS = {form for stem in VERB_STEMS for form in _inflected(stem)}
VERBS = _words("verb_irregular").union(_REGULAR_VERBS) - {"leaves"}
ADJECTIVES = _words("adjectives")
FOREIGN = _words("foreign")
TESTED = _words("tested")
ANIMALS = frozenset(_LISTS["never"]["animals"].split())
NOUNS_IN_ING = _words("nouns_in_ing")
NOUNS_OR_PARTICIPLES = _words("nouns_or_participles")
NOUNS = _words("common_nouns").union(KINDS, NEVER, SHAPES, OF_HEADS)
RELATIONS: dict[str, str] = _LISTS["relations"]
LOOSE_SHAPES: dict[str, str] = _LISTS["loose_shapes"]
_KNOWN = STOPS.union(
    ARTICLES,
    NUMBERS,
    VERBS,
    ADJECTIVES,
    CHROMATIC,
    ACHROMATIC,
    SIZES,
    POSITIONS,
    TONES,
    VAGUE_COUNTS,
    NOT_OBJECTS,
    OTHER_COLORS,
    MANY_COLORED,
)


def is_plural(word: str) -> bool:
    """Whether an English noun is plural."""
    return singular(word) != word


def is_known_noun(word: str) -> bool:
    """Whether the word, or its singular, is in the noun lists."""
    return word in NOUNS or singular(word) in NOUNS


def is_known(word: str) -> bool:
    """Whether the word is in any of the English lists."""
    return word in _KNOWN or is_known_noun(word)
