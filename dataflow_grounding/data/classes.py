"""A data set's classes: which there are, in which order, and which one an expression belongs to.

Users state classes in `data.classes`, with phrases to look for and definitions. A list of classes
next to records (classes.txt) fixes their numbers for exports.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os.path import splitext
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import joined, kind_of
from dataflow_grounding.data.class_files import read_names
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.data.results_folder import folder_of_results, run_of, stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.english.spans import clean_caption

StatedClasses: TypeAlias = Sequence[str] | Mapping[str, str | JsonObject]
"""What `data.classes` may state: names, or by phrase its class, or by class its phrases."""

# Keys of a class that is stated as a mapping in `data.classes`.
PHRASES = "phrases"
DEFINITION = "definition"

CLASSES_FILE = "classes.txt"
"""The file next to records that `split` and `import` write, so that classes keep their numbers."""


class ClassError(SpecError):
    """Something is wrong with `data.classes`; `inside` is the number or key where."""

    def __init__(self, message: str, inside: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.inside = inside


def class_key(name: str) -> str:
    """Return what all spellings of a class name have in common: lower case, single blanks."""
    return clean_caption(name).lower()


class _StatedPhrase(NamedTuple):
    """A phrase and its class, as users write them, so that they may be no texts."""

    phrase: Any
    class_name: Any
    entry: str | int  # the number or key in `data.classes` where it is
    definition: Any = None


def _stated_phrases(classes: StatedClasses) -> list[_StatedPhrase]:
    if isinstance(classes, str) or not isinstance(classes, (Mapping, Sequence)):
        raise ClassError(
            "classes: should be a list of class names, or a mapping of phrases to classes"
        )
    if not isinstance(classes, Mapping):
        return [_StatedPhrase(name, name, number) for number, name in enumerate(classes)]
    stated_phrases: list[_StatedPhrase] = []
    for key, stated in classes.items():
        if isinstance(stated, Mapping):  # "helmet: {phrases: [hard hat]}", a class and its phrases
            for phrase in _phrases_of_class(key, stated):
                stated_phrases.append(_StatedPhrase(phrase, key, key, stated.get(DEFINITION)))
        else:  # "hard hat: helmet", a phrase and its class
            stated_phrases.append(_StatedPhrase(key, stated, key))
    return stated_phrases


def _phrases_of_class(name: str, stated: JsonObject) -> Sequence[Any]:
    """Return the phrases that are stated of a class, else its name."""
    unknown_keys = [str(key) for key in stated if key not in (PHRASES, DEFINITION)]
    if unknown_keys:
        first = unknown_keys[0]
        raise ClassError(
            f"classes: {name!r} has {first!r:.40}: a class states {PHRASES}, {DEFINITION}",
            (name, first),
        )
    if isinstance(stated.get(DEFINITION, ""), (Mapping, list)):
        what = f"classes: the {DEFINITION} of {name!r} should be a text"
        raise ClassError(what, (name, DEFINITION))
    phrases = stated.get(PHRASES) or [name]
    if isinstance(phrases, str) or not isinstance(phrases, Sequence):
        what = f"classes: the {PHRASES} of {name!r} should be a list"
        raise ClassError(what, (name, PHRASES))
    return phrases


def phrases_with_classes(classes: StatedClasses) -> dict[str, str]:
    """Return each phrase to look for, with its class; ClassError for wrong `data.classes`."""
    class_of_phrase: dict[str, str] = {}
    first_spelling_of: dict[str, str] = {}  # by what all spellings have in common
    for phrase, class_name, entry, _ in _stated_phrases(classes):
        for text in (phrase, class_name):
            if not isinstance(text, str) or not text.strip():
                raise ClassError(f"classes: {text!r} is not a text to look for", (entry,))
        # "Cup" and "cup" would be asked for twice; the phrase itself twice is refused below.
        first_spelling = first_spelling_of.setdefault(class_key(phrase), phrase)
        if first_spelling != phrase:
            what = f"classes: {first_spelling!r} and {phrase!r} are one phrase: leave one"
            raise ClassError(what, (entry,))
        if phrase in class_of_phrase:
            raise ClassError(f"classes: {phrase!r} is there twice", (entry,))
        class_of_phrase[phrase] = class_name
    return class_of_phrase


def definitions_of(classes: StatedClasses) -> dict[str, str]:
    """Return the definition of each phrase whose class has one; ClassError as above."""
    return {each.phrase: each.definition for each in _stated_phrases(classes) if each.definition}


def classes_of(results: str) -> list[str]:
    """Return the known class names, in the order of their numbers."""
    # The file's own list, `train.classes.txt` of `train.jsonl`, else `classes.txt` next to it.
    path = file_of_classes(results)
    names: Iterable[str] = read_names(path).classes if path else names_stated_in(run_of(results))
    first_spelling_of: dict[str, str] = {}
    for name in names:
        if name.strip():
            first_spelling_of.setdefault(class_key(name), " ".join(name.split()))
    return list(first_spelling_of.values())


def file_of_classes(results: str) -> str:
    """Return the file that lists the classes of RESULTS; "" for none."""
    paths = [joined(folder_of_results(results), CLASSES_FILE)]
    # A folder `train` has no list of its own: `train.classes.txt` next to it is that of a file.
    if kind_of(results) != "folder":
        paths.insert(0, list_of_file(results))
    for path in paths:
        if kind_of(path) == "file":
            return path
    return ""


def list_of_file(path: str) -> str:
    """Return the path of a file's own list: `train.classes.txt` of `train.jsonl`."""
    return f"{splitext(path)[0]}.{CLASSES_FILE}"


def keep_classes(results: str, out: str) -> None:
    """Write the classes of RESULTS next to `out`, so that its exports have the same numbers."""
    names = classes_of(results)
    if names and classes_of(out) != names:
        write_text(list_of_file(out), "".join(f"{name}\n" for name in names))


def names_stated_in(run: Mapping[str, object]) -> Iterator[str]:
    """Yield the class names in a `run.json`'s spec, in the user's order, some perhaps twice."""
    for data in stated_in(run, "data"):
        classes = data.get("classes")
        if classes and isinstance(classes, (dict, list)):
            for name in _class_names_in(classes):
                if isinstance(name, str):  # run.json may be damaged
                    yield name
            return  # only the first block that states some counts


def _class_names_in(classes: dict[Any, Any] | list[Any]) -> list[Any]:
    if isinstance(classes, list):
        return classes
    names = []
    for key, stated in classes.items():
        # "hard hat: helmet" has the class second, "helmet: {phrases: [hard hat]}" first
        names.append(stated if isinstance(stated, str) else key)
    return names


class ClassList:
    """Collects the names of classes of records, after those that are known."""

    def __init__(self, known: list[str]) -> None:
        self._name_by_key = {class_key(name): name for name in known}

    @property
    def names(self) -> list[str]:
        return list(self._name_by_key.values())

    def add(self, record: Mapping[str, object]) -> None:
        """Add the classes of a record's expressions that have a box or state a `class`."""
        expressions = record.get("expressions")
        if not isinstance(expressions, list):
            return
        for expression in expressions:
            if not isinstance(expression, dict) or not isinstance(expression.get("text"), str):
                continue  # this is reported when the record is written
            if expression.get("instances") or "class" in expression:
                stated = expression.get("class")
                name = " ".join(stated.split()) if isinstance(stated, str) else ""
                name = name or class_key(expression["text"])
                self._name_by_key.setdefault(class_key(name), name)


def parts_of(results: str) -> dict[str, str]:
    """Return a split's files by part; {} for a run's folder, and for fewer than two parts."""
    if kind_of(results) != "folder":
        return {}
    is_of_run = bool(kind_of(joined(results, "annotations.jsonl")))
    if is_of_run:
        return {}
    path_by_part: dict[str, str] = {}
    for part in ("train", "val", "test"):
        path = joined(results, f"{part}.jsonl")
        if kind_of(path) == "file":
            path_by_part[part] = path
    return path_by_part if len(path_by_part) > 1 else {}


def split_of(results: str) -> str:
    folder = folder_of_results(results)
    return folder if results in parts_of(folder).values() else ""
