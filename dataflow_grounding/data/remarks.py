"""What replies say next to their answers: which remarks are usual in a data set, which are rare."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.records import REMARK, annotated_column
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.english.nouns import ARTICLES, singular

MOST_REMARK = 200
"""Characters of a record's remark."""
FEWEST_RECORDS = 5
LEAST_SHARE = 0.5
SHOWN = 3
MOST_SHOWN = 20
JOINED = " … "
"""Stands between the remarks of several answers."""
_MOST_KEPT = 20_000  # remarks at a time, and of each the number of records
_KEY = lazy_pattern(r'"((?:[^"\\]|\\.)*)": (.*)', re.DOTALL)  # `"visible": true`
_SENTENCE_END = lazy_pattern(r"(?<=[.!?])\s+|(?<=[。！？])|[\r\n]+")
_WORD = lazy_pattern(r"…|\d+(?:[.,]\d+)*|[^\W\d_]+")
_NUMBER = lazy_pattern(r"\d+(?:[.,]\d+)*")
_LIST = lazy_pattern(r"…(?: (?:and |or )?…)+")  # "…, … and …"
_UNSAFE = lazy_pattern(r"[^\w\s.,:;!?'()/%…-]+")  # the words of a model could be markup


def joined_remarks(texts: Iterable[str]) -> str:
    """Return the words and keys next to answers as one remark: each once, as many as fit."""
    parts: dict[str, None] = {}  # a set that keeps its order
    for text in texts:
        for part in text[: 2 * MOST_REMARK].split(JOINED):  # it may be joined already
            single_spaced = " ".join(part.split())
            if any(map(str.isalnum, single_spaced)):
                parts[single_spaced] = None
    return JOINED.join(parts)[:MOST_REMARK].strip()


def remarks_of(record: Mapping[str, object]) -> dict[str, str]:
    """Return a record's remarks: what tells each from others, and how people read it.

    Numbers and the record's own phrases don't tell remarks apart, several in a row as one. Of a key
    only its name, and true or false, does.
    """
    remark = record.get(REMARK)
    if not isinstance(remark, str):
        return {}
    phrases = [_folded(text) for text in _phrases_of(record)]
    remarks: dict[str, str] = {}
    for part in remark.split(JOINED):
        key = _KEY.fullmatch(part)
        if key is not None:
            value = key[2] if key[2] in ("true", "false") else ""
            remarks[f'"{key[1].casefold()}" {value}'] = part
            continue
        for sentence in _SENTENCE_END.split(part):
            masked = _masked(_folded(sentence), phrases)
            if masked.strip("… "):
                remarks[masked] = _NUMBER.sub("N", sentence)
    return remarks


def _phrases_of(record: Mapping[str, object]) -> set[str]:
    rows = record.get(annotated_column(record))
    texts: set[str] = set()
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, Mapping):
            named = [row.get(name) for name in ("text", "class", "noun_chunk")]
            texts.update(text for text in named if isinstance(text, str))
    return texts


def _folded(text: str) -> str:
    """Return a text's words with a blank around each: " here is … cup " of "Here is 2 CUPS!"."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = [word for word in _WORD.findall(plain) if word not in ARTICLES]
    return f" {' '.join('…' if word[0].isdigit() else singular(word) for word in words)} "


def _masked(sentence: str, phrases: Iterable[str]) -> str:
    for phrase in sorted(set(phrases), key=len, reverse=True):
        if phrase.isascii():
            sentence = sentence.replace(phrase, " … ")
        else:  # it may be in a script without blanks between words
            sentence = sentence.replace(phrase.strip(), " … ")
    return _LIST.sub("…", " ".join(sentence.split()))


class Remarks:
    """Counts the remarks of a data set's records: those that at least half have are usual.

    It is asked once all records are counted. Of more than 20,000 remarks, the seldom ones are
    dropped.
    """

    def __init__(self) -> None:
        self.records = 0
        self._watched = 0  # records with remarks that were added as `watched`
        self._count = Counter[str]()  # of records, by remark
        self._together = Counter[tuple[str, ...]]()  # of watched records, by all their remarks
        self._shown: dict[str, str] = {}  # by remark, how people read it

    def add(self, record: Mapping[str, object], watched: bool = True) -> dict[str, str]:
        """Count a record, and return its remarks; `rare` counts only those that are `watched`."""
        remarks = remarks_of(record)
        self.records += bool(remarks) or _may_have_reply(record)
        self._count.update(remarks.keys())
        for key, text in remarks.items():
            self._shown[key] = min(text, self._shown.get(key, text))  # in no order of records
        if watched and remarks:
            self._watched += 1
            self._together[tuple(sorted(remarks))] += 1
        self._drop_seldom()
        return remarks

    def add_all(self, other: "Remarks") -> None:
        """Count what another has counted, too."""
        self.records += other.records
        self._watched += other._watched
        self._count += other._count
        self._together += other._together
        for key, text in other._shown.items():
            self._shown[key] = min(text, self._shown.get(key, text))
        self._drop_seldom()

    def _drop_seldom(self) -> None:
        if len(self._count) > _MOST_KEPT:
            self._count = Counter(dict(self._count.most_common(_MOST_KEPT // 2)))
            self._shown = {key: self._shown[key] for key in self._count}
        if len(self._together) > _MOST_KEPT:
            self._together = Counter(dict(self._together.most_common(_MOST_KEPT // 2)))

    def is_rare(self, remarks: Iterable[str]) -> bool:
        """Return whether one of a record's remarks isn't usual."""
        return not all(map(self._is_usual, remarks))

    def _is_usual(self, remark: str) -> bool:
        return self._count[remark] >= max(FEWEST_RECORDS, LEAST_SHARE * self.records)

    @property
    def rare(self) -> int:
        """How many of the watched records have a rare remark."""
        usual = 0
        for remarks, count in self._together.items():
            if all(map(self._is_usual, remarks)):
                usual += count
        return self._watched - usual  # so that rare ones which were dropped count, too

    def common(self, most: int = MOST_SHOWN) -> dict[str, int]:
        """Return the commonest remarks as people read them, each with its number of records."""
        in_order = sorted(self._count.items(), key=lambda item: (-item[1], item[0]))
        counts = Counter[str]()
        for key, count in in_order[:most]:
            # Secrets in it are masked. Two remarks may read the same then, and count together.
            text = " ".join(_UNSAFE.sub(" ", blotted_message(self._shown[key])).split())
            counts[text[:120].strip(" .,:;!?-")] += count
        return dict(counts.most_common())

    def line(self) -> str:
        """Return the commonest and the number of rare ones in a line; "" without any."""
        parts = [f"{counted(n, 'record')}: {text}" for text, n in self.common(SHOWN).items()]
        if self.rare:
            parts.append(f"{counted(self.rare, 'record')} with a rare remark")
        return "; ".join(parts)


def _may_have_reply(record: Mapping[str, object]) -> bool:
    """Whether a model may have answered about a record: not if its phrases have no status."""
    rows = record.get("expressions")
    if not isinstance(rows, list):
        return True
    return not rows or any(isinstance(row, Mapping) and "status" in row for row in rows)


def remarks_in(paths: Iterable[str]) -> Remarks:
    """Count the remarks of the records in files."""
    remarks = Remarks()
    for path in paths:
        for row in read_rows(path):
            if row.data is not None:
                remarks.add(row.data)
    return remarks
