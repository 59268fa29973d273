"""Names of colours, each with the term that it is a name of: "crimson" is red."""


def _terms(names: dict[str, str]) -> dict[str, str]:
    return {word: term for term, words in names.items() for word in words.split()}


CHROMATIC = _terms(
    {
        "red": "red crimson scarlet",
        "orange": "orange",
        "yellow": "yellow gold",
        "green": "green lime",
        "cyan": "cyan turquoise teal aqua",
        "blue": "blue",
        "purple": "purple violet",
        "pink": "pink",
        "magenta": "magenta fuchsia",
    }
)
COLORS = CHROMATIC | _terms(
    {
        "black": "black",
        "white": "white",
        "gray": "grey gray silver",
        "brown": "brown beige tan",
    }
)
