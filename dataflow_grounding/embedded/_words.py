"""The closed word lists of words.yaml."""

from dataflow_grounding._util.lazy import load_table

_LISTS = load_table(__package__, "words.yaml")


def _words(name: str) -> frozenset[str]:
    return frozenset(_LISTS[name].split())


def _terms(name: str) -> dict[str, str]:
    return {word: term for term, words in _LISTS[name].items() for word in words.split()}


ARTICLES = _words("articles")
NUMBERS = {word: number for number, word in enumerate(_LISTS["numbers"].split(), start=1)}
NEGATIONS = _words("negations")
COLOR_BOUNDS: dict[str, list[list[float]]] = _LISTS["color_bounds"]
SIZES = _words("sizes")
POSITIONS = _terms("positions")
HARMLESS = _words("harmless")
PEOPLE = _words("people")
NOT_COLORED = _words("not_colored") | PEOPLE
SHAPES = _terms("shapes")
ROUND = _words("round")
ONE_COLORED = _words("one_colored") | ROUND
NO_THINGS = _words("no_things")
VERBS = _words("verbs")
FOREIGN = _words("foreign")
GREENERY = _words("greenery")
FOUND = frozenset({"face", "sky", *PEOPLE, *GREENERY, *SHAPES, *ONE_COLORED})
