"""A data set's classes: which there are, in which order, and which one an expression belongs to.

Users state classes in `data.classes`, with phrases to look for and definitions. A list of classes
next to records (classes.txt) fixes their numbers for exports.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import splitext
from typing import Any

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding._util.paths import joined, kind_of, open_file
from dataflow_grounding.data.results_folder import folder_of_results, run_of, stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.data.spans import clean_caption

# Keys of a class that is stated as a mapping in `data.classes`.
PHRASES = "phrases"
DEFINITION = "definition"

CLASSES_FILE = "classes.txt"
"""The file with one class name in a line, next to records.

`split` and `import` write it, so that classes keep their numbers.
"""


class ClassError(SpecError):
    """Something is wrong with the classes that a user states.

    Args:
        message: What is wrong.
        inside: Where: a number of the list, or a key of the mapping; () for the whole.
    """

    def __init__(self, message: str, inside: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.inside = inside


def class_key(name: str) -> str:
    """Return what all spellings of a class name have in common: lower case, single blanks.

    Example:
        >>> class_key(" Traffic  Light")
        'traffic light'
    """
    return clean_caption(name).lower()


def _pairs_stated(
    classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]],
) -> list[tuple[Any, Any, str | int]]:
    # Each pair of a phrase and a class has its place in `classes`. Whether these are texts isn't
    # checked.
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)):
        raise ClassError(
            "classes: should be a list of class names, or a mapping of phrases to classes"
        )
    if not isinstance(classes, Mapping):
        return [(name, name, number) for number, name in enumerate(classes)]
    pairs: list[tuple[Any, Any, str | int]] = []
    for name, stated in classes.items():
        if not isinstance(stated, Mapping):  # phrase → class
            pairs.append((name, stated, name))
            continue
        unknown = [str(key) for key in stated if key not in (PHRASES, DEFINITION)]
        if unknown:
            raise ClassError(
                f"classes: {name!r} has {unknown[0]!r:.40}: a class states {PHRASES}, {DEFINITION}",
                (name, unknown[0]),
            )
        if isinstance(stated.get(DEFINITION, ""), (Mapping, list)):
            what = f"classes: the {DEFINITION} of {name!r} should be a text"
            raise ClassError(what, (name, DEFINITION))
        phrases = stated.get(PHRASES) or [name]  # class → what is stated of it
        if isinstance(phrases, str) or not isinstance(phrases, Sequence):
            what = f"classes: the {PHRASES} of {name!r} should be a list"
            raise ClassError(what, (name, PHRASES))
        pairs += [(phrase, name, name) for phrase in phrases]
    return pairs


def phrases_with_classes(
    classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]],
) -> dict[str, str]:
    """Return each phrase to look for, with its class.

    Args:
        classes: As in `data.classes`: a list of class names, or a mapping. Its entries are phrase →
            class, or class → a mapping with `phrases`, `definition` or both.

    Raises:
        ClassError: There is something that isn't a text, or a phrase twice, in capitals or not.

    Example:
        >>> phrases_with_classes({"person": {"phrases": ["a man", "a woman"]}, "a car": "vehicle"})
        {'a man': 'person', 'a woman': 'person', 'a car': 'vehicle'}
    """
    by_phrase: dict[str, str] = {}
    first_by_key: dict[str, str] = {}
    for phrase, name, entry in _pairs_stated(classes):
        for text in (phrase, name):
            if not isinstance(text, str) or not text.strip():
                raise ClassError(f"classes: {text!r} is not a text to look for", (entry,))
        first = first_by_key.setdefault(class_key(phrase), phrase)
        if first != phrase:
            what = f"classes: {first!r} and {phrase!r} are one phrase: leave one"
            raise ClassError(what, (entry,))
        if phrase in by_phrase:
            raise ClassError(f"classes: {phrase!r} is there twice", (entry,))
        by_phrase[phrase] = name
    return by_phrase


def definitions_of(
    classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]],
) -> dict[str, str]:
    """Return each phrase of `data.classes` whose class states a definition, with that definition.

    A list of classes has none. `classes` isn't checked here: it should be what
    `phrases_with_classes` takes.

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
    """Return the class that an expression states, else its phrase in lower case; single-spaced.

    Example:
        >>> class_of({"text": "A dog", "class": "animal"}), class_of({"text": "A dog"})
        ('animal', 'a dog')
    """
    return stated_class_of(expression) or class_key(expression["text"])


def stated_class_of(expression: Mapping[str, Any]) -> str:
    """Return the class that an expression states, single-spaced; "" where it states none.

    Example:
        >>> stated_class_of({"text": "A dog", "class": " pet  animal"})
        'pet animal'
    """
    stated = expression.get("class")
    return " ".join(stated.split()) if isinstance(stated, str) else ""


def classes_of(results: str) -> list[str]:
    """Return the names of classes that are known for RESULTS, in the order of their numbers.

    The first of these that exists has them: the file's own list (`train.classes.txt` of
    `train.jsonl`), `classes.txt` next to the records, the run's `data.classes`. Without any, the
    list is empty. Of names with one `class_key` the first is returned.

    Raises:
        InputError: A list can't be read.
    """
    path = file_of_classes(results)
    names: Iterable[str] = _names_in_file(path) if path else names_stated_in(run_of(results))
    by_key: dict[str, str] = {}
    for name in names:
        if name.strip():
            by_key.setdefault(class_key(name), " ".join(name.split()))
    return list(by_key.values())


def file_of_classes(results: str) -> str:
    """Return the file that lists the classes of RESULTS, as `classes_of` takes it; "" for none."""
    paths = [joined(folder_of_results(results), CLASSES_FILE)]
    if kind_of(results) != "folder":  # a list next to a folder is of a file that is called like it
        paths.insert(0, list_of_file(results))
    for path in paths:
        if kind_of(path) == "file":
            return path
    return ""


def list_of_file(path: str) -> str:
    """Return the path of a file's own list of classes, which is next to it.

    Example:
        >>> list_of_file("sets/train.jsonl")
        'sets/train.classes.txt'
    """
    return f"{splitext(path)[0]}.{CLASSES_FILE}"


def keep_classes(results: str, out: str) -> None:
    """Write the classes of RESULTS next to `out`, a file made of them.

    So a file that `apply -o` writes to another folder is exported with the same numbers. Nothing is
    written if RESULTS has no classes, or `out` has the same ones already. Raises InputError.
    """
    names = classes_of(results)
    if names and classes_of(out) != names:
        write_text(list_of_file(out), "".join(f"{name}\n" for name in names))


def _names_in_file(path: str) -> list[str]:
    try:
        with open_file(path) as file:
            return list(file.read().decode("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the names of classes in {path}: {error}") from None


def names_stated_in(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the class names of `data.classes` in the spec of a `run.json`, in the user's order.

    The first block of the spec that states any has them; there are none where no block does. A name
    may come several times.
    """
    for data in stated_in(run, "data"):
        classes = data.get("classes")
        if classes and isinstance(classes, (dict, list)):
            yield from _names_in_stated(classes)
            return


def _names_in_stated(classes: dict[Any, Any] | list[Any]) -> Iterator[str]:
    names: list[Any] = []
    if isinstance(classes, list):
        names = classes
    else:
        for name, stated in classes.items():
            # Entries are phrase → class, or class → a mapping.
            names.append(stated if isinstance(stated, str) else name)
    for name in names:
        if isinstance(name, str):  # run.json may be damaged
            yield name


class ClassList:
    """Collects the names of classes of records, after those that are known.

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
        """The names: those that were known first, then the others as they came."""
        return list(self._by_key.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Add the classes of a record: of expressions that have a box or state a `class`.

        What can't be read as an expression is skipped: it is reported when the record is written.
        """
        expressions = record.get("expressions")
        if not isinstance(expressions, list):
            return
        for expression in expressions:
            if not isinstance(expression, dict) or not isinstance(expression.get("text"), str):
                continue
            if expression.get("instances") or "class" in expression:
                name = class_of(expression)
                self._by_key.setdefault(class_key(name), name)


def parts_of(results: str) -> dict[str, str]:
    """Return the files of a split by part (train, val, test), if RESULTS is a folder of them.

    It is empty for any other folder or file: for one part alone, and for a folder that has
    `annotations.jsonl`, which is a run's.
    """
    if kind_of(results) != "folder" or kind_of(joined(results, "annotations.jsonl")):
        return {}
    paths = {name: joined(results, f"{name}.jsonl") for name in ("train", "val", "test")}
    parts = {name: path for name, path in paths.items() if kind_of(path) == "file"}
    return parts if len(parts) > 1 else {}


def split_of(results: str) -> str:
    """Return the folder of the split of which RESULTS is one part; "" where it is none."""
    folder = folder_of_results(results)
    return folder if results in parts_of(folder).values() else ""
