"""What a model says next to its answers: its manner, and remarks that came seldom.

A remark is the text of a reply that is no answer. Each of its sentences is a wording, told from
others by a key in which numbers and the record's own phrases are masked: "… are red". Wordings that
many records have are the model's manner; a remark with any other wording is rare.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.nouns import singular
from dataflow_grounding.data.records import REMARK, annotated_column
from dataflow_grounding.data.rows import read_rows

FEWEST_RECORDS = 5
LEAST_SHARE = 0.01
MOST_REMARK = 200
"""Characters of a record's remark."""
MOST_SHOWN = 20

_JOINED = " … "  # between the remarks of several answers
_MOST_KEPT = 20_000  # wordings that are counted at a time
_MOST_WORDING = 120  # characters of a wording that are shown
_IN_LINE = 3  # wordings that a line has
_FINISHED = (".", "!", "?", ":", "。", "！", "？")
_NEARLY_ALL = MOST_REMARK - 10  # a cut at a word's end may leave fewer characters than MOST_REMARK
_MASK = "…"  # of phrases; in a key also of numbers and of things
_CUT = "…>"  # ends the key of a sentence that is cut off

_SENTENCE_END = lazy_pattern(r"(?<=[.!?])(?<!\d\.)\s+|(?<=[。！？])|[\r\n]+")
_WORD = lazy_pattern(r"…|\d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?![^\W\d_])|[^\W\d_]+|\d+")
_NO_SPACES = lazy_pattern(r"[\u0e00-\u0e7f\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
# Of these scripts, what counts things, "三个", and nouns for any thing.
_COUNT = lazy_pattern(
    r"[一二两三四五六七八九十]+(?=[个個只張张台辆位つ])|物体|对象|目标|物件|オブジェクト|객체|물체"
)
# A list of masks: "…, … and N …".
_LIST = lazy_pattern(r"(?:N )?…(?:(?:\s*[,;&]\s*(?:and |or )?| and | or )(?:N )?…)+")
_UNSAFE = lazy_pattern(r"[^\w\s.,:;!?'()/%…-]+")
_QUOTED = lazy_pattern(r"[\"'`*_“”‘’«»()\[\]]+\s*…\s*[\"'`*_“”‘’«»()\[\]]+")

_TABLE: dict[str, Any] = load_table(__package__, "manners.yaml")
_ARTICLES = frozenset(_TABLE["articles"].split())
_NUMBERS = frozenset(_TABLE["numbers"].split())
_THINGS = frozenset(_TABLE["things"].split())
_JOINS = frozenset(_TABLE["joins"].split())
_SAME: dict[str, str] = _TABLE["same"]

Wordings: TypeAlias = Mapping[str, str]
"""The wordings of a record's remark: by what tells wordings apart, each as people read it."""
K = TypeVar("K")


def joined_remarks(remarks: Iterable[str]) -> str:
    """Return remarks of several answers as one: equal ones once, cut at MOST_REMARK characters."""
    parts: dict[str, None] = {}  # a set that keeps its order
    for remark in remarks:
        for part in remark.split(_JOINED):  # a remark may be joined already
            if part:
                parts[part] = None
    return _JOINED.join(parts)[:MOST_REMARK].strip()


def wordings_of(record: Mapping[str, Any]) -> Wordings:
    """Return the wordings of a record's remark, one for each sentence.

    Those that differ in case, articles, the number of things or the length of a list are one. With
    the phrases "cup" and "plate", it is {"… is red": "… are red"} for "The cup and the plate are
    red."
    """
    remark = record.get(REMARK)
    if not isinstance(remark, str) or not remark.strip():
        return {}
    phrases = _phrases_of(record)
    one_line_each = remark.replace(_JOINED, "\n")  # so that a sentence ends with its answer
    text = phrases.masked_unspaced(unicodedata.normalize("NFKC", one_line_each))
    sentences = [part for part in _SENTENCE_END.split(text) if part and part.strip()]
    # A long remark without an end was cut where it was stored, perhaps within a word.
    is_cut = len(remark) >= _NEARLY_ALL and not remark.rstrip().endswith(_FINISHED)
    wordings: dict[str, str] = {}
    for number, sentence in enumerate(sentences, 1):
        is_cut_sentence = is_cut and number == len(sentences)
        parts = _masked_parts(sentence, phrases, is_cut_sentence)
        key = _key_of(parts)
        is_of_masks_alone = key.strip(" …") == ""
        if is_of_masks_alone:  # it says nothing of its own
            continue
        if is_cut_sentence:
            key += _CUT
        wordings[key] = _as_read(sentence, parts)
    return wordings


class _Phrases(NamedTuple):
    """The phrases that are masked in a record's remark."""

    # phrases as words, by their first word, longest first: {"red": [["red", "cup"], ["red"]]}
    by_first: dict[str, list[list[str]]]
    unspaced: list[str]  # phrases of scripts that put no spaces between words

    def masked_unspaced(self, text: str) -> str:
        """Return a text whose phrases and counts are masked, where scripts have no spaces."""
        if not _NO_SPACES.search(text):
            return text
        for phrase in self.unspaced:
            text = text.replace(phrase, _MASK)
        return _COUNT.sub(_MASK, text)


def _phrases_of(record: Mapping[str, Any]) -> _Phrases:
    """Return the record's phrases and classes without their articles, and the nouns of these."""
    phrases: set[tuple[str, ...]] = set()
    unspaced: set[str] = set()
    for text in _texts_of(record):
        plain = unicodedata.normalize("NFKC", text).strip()
        if _NO_SPACES.search(plain):
            unspaced.add(plain)
        words = [_folded(word) for word in _WORD.findall(plain)]
        while words and words[0] in _ARTICLES:
            del words[0]
        if words:
            phrases.add(tuple(words))
        noun = head_of(text)
        if noun:
            phrases.add((noun,))  # the noun alone, as a phrase of one word
    phrases_by_first_word: dict[str, list[list[str]]] = {}
    for phrase in sorted(phrases, key=_longest_first):
        phrases_by_first_word.setdefault(phrase[0], []).append(list(phrase))
    return _Phrases(phrases_by_first_word, sorted(unspaced, key=_longest_first))


def _texts_of(record: Mapping[str, Any]) -> set[str]:
    """Return the phrases and classes that a record states."""
    rows = record.get(annotated_column(record))
    if not isinstance(rows, list):
        return set()
    texts: set[str] = set()
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        for name in ("text", "class", "noun_chunk"):
            if isinstance(row.get(name), str):
                texts.add(row[name])
    return texts


def _longest_first(phrase: Sequence[str]) -> tuple[int, Sequence[str]]:
    return -len(phrase), phrase


class _Part(NamedTuple):
    """A word of a sentence, or several that are a phrase: from `start` to `end` in the sentence."""

    start: int
    end: int
    word: str  # what the key has: the word, folded, or _MASK
    mask: str = ""  # what people read in its place; "" for the word as it is


def _masked_parts(sentence: str, phrases: _Phrases, is_cut: bool) -> list[_Part]:
    """Return the words of a sentence, masked: "N … are red" for "2 cups are red"."""
    spans = [match.span() for match in _WORD.finditer(sentence)]
    words = [_folded(sentence[start:end]) for start, end in spans]
    parts: list[_Part] = []
    index = 0
    while index < len(words):
        start, end = spans[index]
        length = _length_of_phrase_at(words, index, phrases, is_cut)
        if length > 0:
            while parts and parts[-1].word in _ARTICLES and not parts[-1].mask:
                start = parts.pop().start  # the article goes with its phrase
            _, end = spans[index + length - 1]
            parts.append(_Part(start, end, _MASK, _MASK))
            index += length
        else:
            parts.append(_part_of_word(start, end, words[index], sentence))
            index += 1
    if is_cut and parts and not parts[-1].mask:
        del parts[-1]  # perhaps half of a word
    return parts


def _part_of_word(start: int, end: int, word: str, sentence: str) -> _Part:
    """Return the part of a word that begins no phrase; numbers and "objects" are masked."""
    if word in _NUMBERS or word[0].isdigit():
        return _Part(start, end, _MASK, "N")
    if word in _THINGS:  # such as "objects": it counts as a phrase, but is read as it is
        return _Part(start, end, _MASK, sentence[start:end])
    return _Part(start, end, word)


def _length_of_phrase_at(words: Sequence[str], index: int, phrases: _Phrases, is_cut: bool) -> int:
    """Return the number of words of the phrase there; 0 where none begins."""
    if is_cut and _may_begin_phrase(words[index:], phrases):
        return len(words) - index  # a phrase that is cut off: all words that are left
    for phrase in phrases.by_first.get(words[index], ()):
        if words[index : index + len(phrase)] == phrase:
            return len(phrase)
    is_masked_already = words[index] == _MASK  # by `masked_unspaced`
    return 1 if is_masked_already else 0


def _may_begin_phrase(words: Sequence[str], phrases: _Phrases) -> bool:
    """Whether a phrase begins with these words, the last cut off: "red cu" of "red cup"."""
    # Of a lone "re" the first word isn't known, so all phrases are looked through.
    *whole_words, cut_word = words
    place_of_cut_word = len(whole_words)
    for same_first in phrases.by_first.values():
        for phrase in same_first:
            if phrase[:place_of_cut_word] != whole_words or len(phrase) <= place_of_cut_word:
                continue
            if phrase[place_of_cut_word].startswith(cut_word):
                return True
    return False


def _folded(word: str) -> str:
    word = word.casefold()
    return _SAME.get(word) or singular(word)


def _key_of(parts: Sequence[_Part]) -> str:
    """Return a sentence's key, in which a list of phrases is one mask, "…".

    With the phrases "cup" and "plate", "The cup and the plate are red." becomes "… is red", and
    "The cup and the fork are red." becomes "… and fork is red".
    """
    key: list[str] = []
    joins: list[str] = []  # words such as "and" since the last mask or other word
    for part in parts:
        if part.word in _ARTICLES:
            continue
        if part.word in _JOINS:
            joins.append(part.word)
            continue
        goes_on_with_list = part.word == _MASK and key[-1:] == [_MASK]
        if not goes_on_with_list:
            key += [*joins, part.word]
        joins = []
    return " ".join([*key, *joins])


def _as_read(sentence: str, parts: Sequence[_Part]) -> str:
    pieces: list[str] = []
    end_of_last = 0
    for part in parts:
        between = sentence[end_of_last : part.start]
        pieces += [between, part.mask or sentence[part.start : part.end]]
        end_of_last = part.end
    pieces.append(sentence[end_of_last:])
    text = _QUOTED.sub(f" {_MASK} ", "".join(pieces))  # "'…'" is read as "…"
    text = _LIST.sub(_MASK, " ".join(text.split()))  # and "…, … and …", too
    text = _UNSAFE.sub(" ", text)  # the words of a model could be markup in a page or a README
    return " ".join(text.split())[:_MOST_WORDING].strip(" .,:;!?-")


class Manners:
    """Counts the wordings of a data set's remarks: which are the model's manner, which are rare.

    It is asked once all records are counted: only then is it known what the model says about every
    picture. With more than `most_kept` different wordings, a count may be too high by a share of
    `2 / most_kept`.
    """

    def __init__(self, most_kept: int = _MOST_KEPT) -> None:
        self.records = 0
        self._watched = 0  # records that have a remark and were added as `watched`
        self._most_kept = most_kept
        self._by_wording = _Counts[str](most_kept)
        # A record's remark is rare if one of its wordings is. So the wordings of each record are
        # counted together, too.
        self._together = _Counts[tuple[str, ...]](most_kept)
        # of each wording the longest of its texts for people
        self._text_by_wording: dict[str, str] = {}

    def add(self, wordings: Wordings, watched: bool = True) -> None:
        """Count a record by its wordings; `rare` counts only those that are `watched`."""
        self.records += 1
        self._forget_manner()
        if not wordings:
            return
        for key, text in wordings.items():
            self._by_wording.add(key)
            self._keep_form(key, text)
        if len(self._text_by_wording) > 2 * self._most_kept:
            kept = self._by_wording.count_of
            texts = self._text_by_wording.items()
            self._text_by_wording = {key: text for key, text in texts if key in kept}
        if watched:
            self._watched += 1
            self._together.add(tuple(sorted(wordings)))

    def _keep_form(self, key: str, text: str) -> None:
        longest = self._text_by_wording.get(key, "")
        # of equally long ones the last in the alphabet, so that the order of records makes no
        # difference
        if (len(text), text) > (len(longest), longest):
            self._text_by_wording[key] = text

    def add_all(self, other: "Manners") -> None:
        """Count what another has counted, too."""
        self.records += other.records
        self._forget_manner()
        self._watched += other._watched
        self._by_wording.add_all(other._by_wording)
        self._together.add_all(other._together)
        for key, text in other._text_by_wording.items():
            self._keep_form(key, text)

    def _forget_manner(self) -> None:
        self.__dict__.pop("_manner", None)

    @cached_property
    def _manner(self) -> dict[str, int]:
        """Return in how many records each usual wording is, the commonest first."""
        fewest = max(FEWEST_RECORDS, LEAST_SHARE * self.records)
        counts = self._by_wording.at_least(fewest)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def is_rare(self, wordings: Iterable[str]) -> bool:
        """Return whether one of a remark's wordings isn't the model's manner."""
        return not all(map(self._is_manner, wordings))

    def _is_manner(self, wording: str) -> bool:
        is_usual = wording in self._manner
        is_usual_when_cut = wording + _CUT in self._manner  # many end just after these words
        if is_usual or is_usual_when_cut:
            return True
        if not wording.endswith(_CUT):
            return False
        begin = wording.removesuffix(_CUT)
        return any(usual.startswith(begin) for usual in self._manner)

    @property
    def rare(self) -> int:
        """How many of the watched records have a rare remark."""
        # Usual remarks are counted, and taken off all. Rare ones aren't counted themselves, because
        # `_together` drops what came seldom: their number would be too low.
        not_rare = 0
        for wordings, count in self._together.at_least(1).items():
            if not self.is_rare(wordings):
                not_rare += count
        return max(0, self._watched - not_rare)  # `max`: a count may be a little too high

    def common(self, most: int = MOST_SHOWN) -> dict[str, int]:
        """Return the model's manner, the commonest first: by wording, in how many records it is."""
        counts = Counter[str]()
        for key, count in self._manner.items():
            # Secrets in it are masked. Two wordings may read the same then, and count together.
            counts[blotted_message(self._text_by_wording[key])] += count
        return dict(counts.most_common(most))

    def line(self) -> str:
        """Return both counts in a line for people; "" where no record has a remark."""
        parts = []
        for wording, count in self.common(_IN_LINE).items():
            parts.append(f"{counted(count, 'record')}: {wording}")
        if len(self._manner) > _IN_LINE:
            parts.append(f"{len(self._manner) - _IN_LINE:,} other usual wordings")
        if self.rare:
            parts.append(f"{counted(self.rare, 'remark')} that came once or seldom")
        return "; ".join(parts)


def manners_of(paths: Iterable[str]) -> Manners:
    manners = Manners()
    for path in paths:
        for row in read_rows(path):
            if row.data is not None:
                manners.add(wordings_of(row.data))
    return manners


class _Counts(Generic[K]):
    """How often each key came. Of millions of keys, those that came often are counted.

    With more than `most` keys, as much is taken from every count as the middle one has (Misra and
    Gries, Science of Computer Programming 2, 1982). So at most `2 / most` of all that was counted
    is missing from a count; `at_least` adds it again.
    """

    def __init__(self, most: int) -> None:
        self.count_of: dict[K, int] = {}  # less what was taken from it
        self._most = most
        self._taken = 0  # the most that was taken from any of them

    def add(self, key: K, count: int = 1) -> None:
        self.count_of[key] = self.count_of.get(key, 0) + count
        if len(self.count_of) > self._most:
            in_order = sorted(self.count_of.values(), reverse=True)
            middle = in_order[self._most // 2]
            self._taken += middle
            # at least half of the keys have nothing left, and are dropped
            kept: dict[K, int] = {}
            for each, its_count in self.count_of.items():
                if its_count > middle:
                    kept[each] = its_count - middle
            self.count_of = kept

    def add_all(self, other: "_Counts[K]") -> None:
        self._taken += other._taken
        for key, count in other.count_of.items():
            self.add(key, count)

    def at_least(self, fewest: float) -> dict[K, int]:
        """Return the keys that came `fewest` times or more, each with its count."""
        counts = ((key, count + self._taken) for key, count in self.count_of.items())
        return {key: count for key, count in counts if count >= fewest}
