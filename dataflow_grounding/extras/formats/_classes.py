"""Phrases as a detector's classes, and numbers for names."""

from collections.abc import Callable

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.spans import clean_caption
from dataflow_grounding.engine.number_table import NumberTable
from dataflow_grounding.replies.labels import head_word

ONE = "object"
_REST = "*"
_WAYS = ("phrase", "head", "one")


class Numbers:
    """Numbers from 1 for names, in the order in which they come first.

    Only hashes are kept: there may be millions.

    Example:
        >>> numbers = Numbers()
        >>> [numbers.of(name) for name in ("cat", "dog", "cat")]
        [(1, True), (2, True), (1, False)]

    `on_new` is called with each new number and name.
    """

    def __init__(self, on_new: Callable[[int, str], object] = lambda number, name: None) -> None:
        self._known = NumberTable()
        self._on_new = on_new

    def __len__(self) -> int:
        return self._known.count

    def of(self, name: str) -> tuple[int, bool]:
        """The name's number, and whether it is new."""
        key = hash(name)
        known = self._known.get(key)
        if known is not None:
            return known, False
        number = len(self) + 1
        self._known.set(key, number)
        self._on_new(number, name)
        return number, True


class Classes:
    """Which class each phrase is of.

    Args:
        how: `phrase`: the phrase itself, in lower case; `head`: its head noun; `one`: all are
            `object`; else the path of a YAML file, phrase → class, where `*` is any other phrase.
        joint: What stands for something else in a class's name, and becomes a blank there.

    `fixed` are the classes whose order doesn't depend on the data: those of the file.

    Raises:
        InputError: The file can't be read, or says something else.
    """

    def __init__(self, how: str, joint: str = " ") -> None:
        self._how = how
        self._joint = joint
        self._map: dict[str, str] = {}
        if how not in _WAYS:
            for phrase, name in read_texts(how, _plain).items():
                self._map[phrase] = self._class_name(name)
        self.fixed = list(dict.fromkeys(self._map.values()))

    def of(self, phrase: str) -> str:
        """The phrase's class. Raises InputError for one that the file doesn't have."""
        if self._how == "one":
            return ONE
        plain = _plain(phrase)
        if self._how == "phrase":
            return self._class_name(plain)
        if self._how == "head":
            return self._class_name(head_word(plain) or plain)
        if plain not in self._map and _REST not in self._map:
            raise InputError(
                f"{self._how} has no class for {plain!r}: add it, or {_REST!r} for all others"
            )
        return self._map.get(plain) or self._map[_REST]

    def _class_name(self, name: str) -> str:
        return " ".join(name.replace(self._joint, " ").split()) or ONE


def _plain(phrase: str) -> str:
    return clean_caption(phrase).lower()


def read_texts(path: str, plain: Callable[[str], str] = str) -> dict[str, str]:
    """A YAML file of phrase: class, or class: phrase.

    `plain` is applied to what stands before the colon. Raises InputError.
    """
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        data = yaml.safe_load(text)
    except OSError as error:
        why = f"{error.strerror or error} (classes: {', '.join(_WAYS)} or such a file)"
        raise InputError(f"can't read {path}: {why}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not _is_of_texts(data):
        raise InputError(
            f"{path} should have lines of a phrase and its class, `a red mug: mug`, both texts"
        )
    _refuse_two_values(path, text, plain)
    return {plain(key): value for key, value in data.items()}


def _is_of_texts(data: object) -> bool:
    if not isinstance(data, dict):
        return False
    return all(isinstance(key, str) and isinstance(value, str) for key, value in data.items())


def _refuse_two_values(path: str, text: str, plain: Callable[[str], str]) -> None:
    """Raises InputError where a key stands twice with different values.

    PyYAML keeps the last without a word, so that its nodes are looked at.
    """
    import yaml

    root = yaml.compose(text, yaml.SafeLoader)
    values: dict[str, str] = {}
    if root is None:
        return
    for key, value in root.value:
        if values.setdefault(plain(key.value), value.value) != value.value:
            raise InputError(f"{path} has two lines of {plain(key.value)!r} that differ: leave one")
