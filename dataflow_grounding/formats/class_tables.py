"""The classes of phrases, for detectors, and numbers for names.

`class_key` makes one key of all spellings of a name: "Traffic  Light" and "traffic light" are one.
"""

from collections.abc import Callable, Iterable, Sequence

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.data.class_files import text_of, yaml_of
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.english.heads import head_of

ONE = "object"  # the class of all phrases, if there is only one
# Remarks about classes' numbers.
UNLISTED = "classes that aren't in the list, numbered after it"
NO_LIST = (
    "classes are numbered as they come, because no list of them was found: keep classes.txt of the"
    " run, or of the import, next to the records"
)
_REST = "*"  # in a file of classes: any phrase that isn't in there
_WAYS = ("class", "phrase", "head", "one")  # of finding an expression's class without a file


class Numbers:
    """Gives names numbers from 1, as they come; `number_of` calls `on_new` for each new name."""

    def __init__(self, on_new: Callable[[int, str], object]) -> None:
        self.count = 0  # of the numbers that are used
        self._number_of: dict[str, int] = {}
        self._on_new = on_new

    def number_of(self, name: str) -> int:
        if name not in self._number_of:
            self.reserve(name)
            self._on_new(self.count, name)
        return self._number_of[name]

    def reserve(self, name: str) -> None:
        """Use up the next number, for this name if it has none, without calling `on_new`."""
        self.count += 1
        self._number_of.setdefault(name, self.count)


class Classes:
    """Finds the class of each expression.

    `how` says where a class comes from:

    - `class`: what the expression states, else its phrase
    - `phrase`: the phrase, in lower case
    - `head`: the head noun of the phrase
    - `one`: all expressions are `object`
    - any other text: the path of a YAML file, phrase → class, where `*` is any other phrase

    `joint` is a character that means something else in the format's names, and becomes a blank.
    `listed` has names in the order of their numbers, and isn't used with a file. `fixed` are the
    classes whose order doesn't depend on the data.
    """

    def __init__(self, how: str, joint: str = " ", listed: Sequence[str] = ()) -> None:
        self._how = how
        self._joint = joint
        self._class_of_phrase: dict[str, str] = {}  # of the file, by class_key of the phrase
        self._listed: dict[str, str] = {}  # class_key → name as it is listed
        # Two facts for `remarks_on_numbers`, noted by `written_class_of`.
        self.lacks_list = False  # whether a stated class came and `listed` was empty
        self.as_they_are: set[str] = set()  # names that the format writes as an imported file did
        self._changed: dict[str, None] = {}  # names that the format has otherwise, in their order
        self._from_phrases = False  # whether the class of an expression was made of its phrase
        self._key_of_name: dict[str, str] = {}  # class_key by a class's name as it is written
        is_file = how not in _WAYS
        if is_file:
            for phrase, name in read_texts(how, class_key).items():
                self._class_of_phrase[phrase] = self._written_name(name)
            fixed = [*self._class_of_phrase.values()]
        else:
            if how in ("class", "phrase"):  # the two whose classes are written as they are listed
                self._listed = {class_key(name): self._written_name(name) for name in listed}
            # The class of a listed name is found as that of a phrase. For the listed "red mug" it
            # is "mug" with `head`, "object" with `one`, and else "red mug".
            fixed = [self._class_as_written(Expression(name)) for name in listed]
        self.fixed = list(dict.fromkeys(fixed))  # each once

    def remarks_on_numbers(self, class_count: int) -> list[str]:
        """Return what to say of the numbers of an export's classes, also of those without a box."""
        remarks = []
        if self._from_phrases and class_count > 1:
            remarks.append(f"{class_count} classes, each phrase is one: --classes head for nouns")
        if self.lacks_list:
            remarks.append(NO_LIST)
        remarks += counted_items(
            f"classes that are written otherwise, as {self._joint!r} is a blank here",
            [*self._changed],
        )
        unlisted = class_count - len(self.fixed)
        if self.fixed and unlisted:
            remarks.append(f"{UNLISTED}: {unlisted}")
        return remarks

    def written_class_of(self, expression: Expression) -> str:
        """Return the class as it is listed; InputError where the file lacks the phrase."""
        # A user should know that each phrase became a class, and that without a list of classes
        # their numbers follow the data.
        if self._how == "class":
            if expression.class_name is None:
                self._from_phrases = True
            elif not self._listed:
                self.lacks_list = True
        return self._class_as_written(expression)

    def _class_as_written(self, expression: Expression) -> str:
        if self._how == "one":
            return ONE
        if self._how == "class":
            name = expression.stated_class or class_key(expression.text)
            return self._listed.get(class_key(name)) or self._written_name(name)
        phrase = class_key(expression.text)
        if self._how == "phrase":
            return self._listed.get(phrase) or self._written_name(phrase)
        if self._how == "head":
            return self._written_name(head_of(phrase) or phrase)
        # `how` is the path of a file.
        listed_phrase = phrase if phrase in self._class_of_phrase else _REST
        if listed_phrase not in self._class_of_phrase:
            raise InputError(
                f"{self._how} has no class for {phrase!r}: add it, or {_REST!r} for all others"
            )
        return self._class_of_phrase[listed_phrase]

    def _written_name(self, name: str) -> str:
        """Return a class's name as the format has it: "left hand" for "left/hand", joint "/".

        Raises InputError where two classes would share it, such as these two.
        """
        written = " ".join(name.replace(self._joint, " ").split())
        if not written:
            return ONE
        if self._joint != " " and self._joint in name and name not in self.as_they_are:
            self._changed[name] = None
        key = class_key(name)
        if self._key_of_name.setdefault(written, key) != key:
            raise InputError(
                f"two classes would be {written!r}, as {self._joint!r} is a blank here: rename one"
                " (--classes takes a file of phrases and their classes)"
            )
        return written


def remarks_on_shared_names(classes: Iterable[tuple[object, str]], format: str) -> list[str]:
    """Return a remark on names that differ by capitals or blanks alone, if any do."""
    numbers_of: dict[str, list[str]] = {}
    for number, name in classes:
        numbers_of.setdefault(class_key(name), []).append(str(number))
    shared = []
    for key, numbers in numbers_of.items():
        if key and len(numbers) > 1:
            shared.append(f"{key!r:.80} of {' and '.join(numbers)}")
    return counted_items(f"names of several classes, which only {format} tells apart", shared)


def read_texts(path: str, key_of: Callable[[str], str] = str) -> dict[str, str]:
    """Return what a YAML file says, text → text. Keys are changed by `key_of`.

    Raises InputError for any other file, and where two keys become one and have different texts.
    """
    import yaml

    if kind_of(path) != "file":  # perhaps it is one of _WAYS, misspelt
        raise InputError(f"no file {path} (classes: {', '.join(_WAYS)} or such a file)")
    text = text_of(path)
    data = yaml_of(path, text)
    is_mapping = isinstance(data, dict)
    if not is_mapping or not all(isinstance(word, str) for pair in data.items() for word in pair):
        raise InputError(
            f"{path} should have lines of a phrase and its class, `a red mug: mug`, both texts"
        )
    root = yaml.compose(text, yaml.BaseLoader)
    assert isinstance(root, yaml.MappingNode)  # as `data` is, which lacks keys that come again
    texts: dict[str, str] = {}
    for key_node, value_node in root.value:
        key = key_of(key_node.value)
        if texts.setdefault(key, value_node.value) != value_node.value:
            raise InputError(f"{path} has two lines of {key!r} that differ: leave one")
    return texts
