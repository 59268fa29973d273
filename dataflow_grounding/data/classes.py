"""A data set's classes: which are listed, in their order, and of which one an expression is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import splitext
from typing import Any

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.paths import joined, kind_of, open_file
from dataflow_grounding.data.results_folder import folder_of_results, run_of, stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.data.spans import clean_caption

PHRASES = "phrases"
DEFINITION = "definition"
"""What a class may state in `data.classes`, rather than being the class of a phrase."""

CLASSES_FILE = "classes.txt"
"""One name in a line, beside records: `split` and `import` write it, so that numbers stay."""


def class_key(name: str) -> str:
    """What names of one class have in common: without case, and with single blanks.

    Example:
        >>> class_key(" Traffic  Light")
        'traffic light'
    """
    return clean_caption(name).lower()


def phrases_with_classes(
    classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]],
) -> dict[str, str]:
    """Return each phrase to look for, with its class.

    Args:
        classes: Names of classes; or phrase → class, or class → its `phrases` and `definition`.

    Raises:
        SpecError: There is something that isn't a text, or a phrase twice, in capitals or not.

    Example:
        >>> phrases_with_classes({"person": {"phrases": ["a man", "a woman"]}, "a car": "vehicle"})
        {'a man': 'person', 'a woman': 'person', 'a car': 'vehicle'}
    """
    pairs: list[tuple[Any, Any]] = []
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)):
        raise SpecError(
            "classes: should be a list of class names, or a mapping of phrases to classes"
        )
    if not isinstance(classes, Mapping):
        pairs = [(name, name) for name in classes]
        classes = {}
    for name, stated in classes.items():
        if not isinstance(stated, Mapping):
            pairs.append((name, stated))
            continue
        phrases = stated.get(PHRASES) or [name]
        if isinstance(phrases, str) or not isinstance(phrases, Sequence):
            raise SpecError(f"classes: the {PHRASES} of {name!r} should be a list")
        pairs += [(phrase, name) for phrase in phrases]
    by_phrase: dict[str, str] = {}
    first_by_key: dict[str, str] = {}
    for phrase, name in pairs:
        for text in (phrase, name):
            if not isinstance(text, str) or not text.strip():
                raise SpecError(f"classes: {text!r} is not a text to look for")
        first = first_by_key.setdefault(class_key(phrase), phrase)
        if first != phrase:
            raise SpecError(f"classes: {first!r} and {phrase!r} are one phrase: leave one")
        if phrase in by_phrase:
            raise SpecError(f"classes: {phrase!r} stands there twice")
        by_phrase[phrase] = name
    return by_phrase


def definitions_of(
    classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]],
) -> dict[str, str]:
    """Return what counts as each phrase of `data.classes` whose class has a definition.

    Example:
        >>> definitions_of({"person": {"definition": "people, not on posters"}})
        {'person': 'people, not on posters'}
    """
    definitions: dict[str, str] = {}
    if not isinstance(classes, Mapping):
        return definitions
    for name, stated in classes.items():
        if isinstance(stated, Mapping) and stated.get(DEFINITION):
            for phrase in stated.get(PHRASES) or [name]:
                definitions[phrase] = stated[DEFINITION]
    return definitions


def class_of(expression: Mapping[str, Any]) -> str:
    """The class that an expression states, else its phrase without case.

    Example:
        >>> class_of({"text": "A dog", "class": "animal"}), class_of({"text": "A dog"})
        ('animal', 'a dog')
    """
    stated = expression.get("class")
    if isinstance(stated, str) and stated.strip():
        return " ".join(stated.split())
    return class_key(expression["text"])


def classes_of(results: str) -> list[str]:
    """Return the names of classes that are known for RESULTS, in the order of their numbers.

    They are those of the file's own list (`train.classes.txt` of `train.jsonl`), else of
    `classes.txt` beside the records, else the run's `data.classes`; empty where none is there.

    Raises:
        InputError: A list can't be read.
    """
    names: Iterable[str] = _stated_names(results)
    for path in (list_of_file(results), joined(folder_of_results(results), CLASSES_FILE)):
        if kind_of(path) == "file":
            names = _names_in(path)
            break
    by_key: dict[str, str] = {}
    for name in names:
        if name.strip():
            by_key.setdefault(class_key(name), " ".join(name.split()))
    return list(by_key.values())


def list_of_file(path: str) -> str:
    """Return where a file of records has a list of classes of its own, beside it.

    Example:
        >>> list_of_file("sets/train.jsonl")
        'sets/train.classes.txt'
    """
    return f"{splitext(path)[0]}.{CLASSES_FILE}"


def keep_classes(results: str, out: str) -> None:
    """Write the classes of RESULTS beside a file made of them, unless they are known there.

    So a file that `apply -o` or `lint --fix -o` leaves elsewhere is exported with the same numbers.
    Raises InputError.
    """
    names = classes_of(results)
    if names and classes_of(out) != names:
        write_text(list_of_file(out), "".join(f"{name}\n" for name in names))


def _names_in(path: str) -> list[str]:
    try:
        with open_file(path) as file:
            return list(file.read().decode("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the names of classes in {path}: {error}") from None


def _stated_names(results: str) -> Iterator[str]:
    """Return the names of the run's spec: a list or a mapping, as `data.classes` takes it."""
    for data in stated_in(run_of(results), "data"):
        classes = data.get("classes")
        names = classes
        if isinstance(classes, dict):
            # phrase → class, or class → what it states
            names = [
                stated if isinstance(stated, str) else name for name, stated in classes.items()
            ]
        if names and not isinstance(names, str):
            yield from (name for name in names if isinstance(name, str))
            return


class ClassList:
    """Collects the names of classes of records, behind those that are known.

    Example:
        >>> classes = ClassList(["cat"])
        >>> classes.add({"expressions": [{"text": "A dog", "instances": [{"bbox": [0, 0, 9, 9]}]}]})
        >>> classes.names
        ['cat', 'a dog']
    """

    def __init__(self, known: list[str]) -> None:
        self._by_key = {class_key(name): name for name in known}

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return list(self._by_key.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the classes of a record: those with a box, and those that are stated as classes."""
        expressions = record.get("expressions")
        if not isinstance(expressions, list):
            return  # what can't be read is told by who writes it
        for expression in expressions:
            if not isinstance(expression, dict) or not isinstance(expression.get("text"), str):
                continue
            if expression.get("instances") or "class" in expression:
                name = class_of(expression)
                self._by_key.setdefault(class_key(name), name)


def parts_of(results: str) -> dict[str, str]:
    """The files of a split's parts by name, where RESULTS is a folder of them; else empty."""
    if kind_of(results) != "folder" or kind_of(joined(results, "annotations.jsonl")):
        return {}
    paths = {name: joined(results, f"{name}.jsonl") for name in ("train", "val", "test")}
    parts = {name: path for name, path in paths.items() if kind_of(path) == "file"}
    return parts if len(parts) > 1 else {}


def split_of(results: str) -> str:
    """The folder of the split of which RESULTS is one part; empty where it is none."""
    folder = folder_of_results(results)
    return folder if results in parts_of(folder).values() else ""
