"""What words around a box say of it, and where a reply corrects itself.

They say what it is the box of, and whether it is to be taken back.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import (
    BLIND,
    BOX_NUMBERS,
    SENTENCE_END,
    UNREAL,
    Missing,
    missing_in_clause,
)
from dataflow_grounding.replies.labels import alike, all_words, comparable, surely_alike
from dataflow_grounding.replies.reading import Talk
from dataflow_grounding.replies.vocabulary import pattern, words

_WORD = lazy_pattern(r"[^\W_]+(?:-[^\W_]+)*")
# Words that name no thing, of which a sentence's first ones are passed over; and where the words
# that name a thing end.
_FILLER = words("filler")
_STOPS = words("stops")
_PLACES = _FILLER | _STOPS | words("which") | words("places")
# Right before its box stands the thing that the box is around: "The cat sits on the sofa [1, 2, 3,
# 4]".
_APPOSED = pattern("apposed")
_CONTRASTED = pattern("contrasted")
_OWNER = lazy_pattern(
    r"(?<!\bit)(?<!that)(?<!ere)(?<!what)(?<!\blet)(?<!she)(?<!\bhe)(?<!this)['’]s\s+([^\W\d_]+)",
    re.IGNORECASE,
)
_MARKUP = " \t\r\n：:，,、。.*#-—"
_PRONOUNS = frozenset(["it", "its", "they", "their", "them", "he", "she", "his", "her"])
_DIGIT = lazy_pattern(r"\d")
_CORNER = pattern("corner")
_SPACELESS_FILLER = pattern("spaceless_filler")
_CLAUSE_END = pattern("clause_end")
_REJECTS = pattern("rejects")
_NOT_A = pattern("not_a")
_CUE = pattern("corrections")
_MORE = pattern("more")
_AFFIRMS = pattern("affirms")
_UNSURE = pattern("unsure")
_NO_LIST = pattern("no_list")
_SPACELESS = lazy_pattern(r"[\u3040-\u30ff\u3400-\u9fff]")
TAG = lazy_pattern(r"<[^<>]{0,200}>")
_IS_A = lazy_pattern(
    r"(?:this|that|it|box)(?:['’]s|\s+is)\s+(?:actually\s+)?an?\s+([\w-]+(?:\s[\w-]+)?)\.?",
    re.IGNORECASE,
)
_IF = lazy_pattern(r"\b(?:if|whether|in case)\b[^.!?\n]*$", re.IGNORECASE)
_NEAR = 4000  # characters of talk that may say that a thing is there
_MOST_CLAUSES = 60  # that are looked at from the beginning, and from the end
_MOST_CORRECTIONS = 50


def thing_before(text: str) -> str:
    """Return the thing that the words before a box name; "" for none.

    "I see a cat at" names a cat, "Here it is:" nothing.
    """
    sentences: list[str] = []
    for sentence in SENTENCE_END.split(TAG.sub(" ", text[-600:])):
        if _WORD.search(sentence):
            sentences.append(sentence)
    if sentences:
        thing_at_end = _thing_at_end(sentences[-1])
        if thing_at_end is not None:
            return thing_at_end
    for sentence in reversed(sentences[-2:]):
        in_sentence = _thing_in(sentence)
        if in_sentence.thing or not in_sentence.has_pronoun:
            return in_sentence.thing
    return ""


def _thing_at_end(sentence: str) -> str | None:
    """Return the thing that a sentence ends with; None where it doesn't end with one.

    In "The cat sits on the sofa [1, 2, 3, 4]" the box is the sofa's.
    """
    last = sentence.split()[-1]
    if not last.isalpha() or last.lower() in _PLACES:
        return None
    apposition = _APPOSED.search(sentence)
    return None if apposition is None else apposition[1]


def thing_behind(text: str) -> str:
    """Return the thing that the rest of a sentence behind a box names; "" for none.

    In `[1, 2, 3, 4] is the cat.` that is the cat.
    """
    first = SENTENCE_END.split(TAG.sub(" ", text[:300]), maxsplit=1)[0]
    return _thing_in(first).thing


class _ThingInSentence(NamedTuple):
    """What a sentence says of a thing.

    Attributes:
        thing: The words that name the thing; "" for none.
        has_pronoun: Whether a pronoun stands for the thing instead.
    """

    thing: str
    has_pronoun: bool


def _thing_in(sentence: str) -> _ThingInSentence:
    """Return the words of a sentence that name a thing, or whether it has a pronoun instead."""
    if _SPACELESS.search(sentence):
        thing = _SPACELESS_FILLER.sub("", sentence.strip(_MARKUP)).strip(_MARKUP)
        return _ThingInSentence(thing, has_pronoun=False)
    sentence = _without_owners(_CONTRASTED.sub("", sentence, count=1))
    words = _WORD.findall(_CORNER.sub(" ", sentence))
    in_lower_case = [word.lower() for word in words]
    start = _start_of_name(in_lower_case)
    if start is None:
        return _ThingInSentence("", has_pronoun=not _PRONOUNS.isdisjoint(in_lower_case))
    end = start
    while end < len(words) and in_lower_case[end] not in _STOPS:
        end += 1
    return _ThingInSentence(" ".join(words[start:end]), has_pronoun=False)


def _start_of_name(words: list[str]) -> int | None:
    """Return the index of the first word that may begin the name of a thing, or None."""
    for i in range(len(words)):
        if _may_begin_name(words, i):
            return i
    return None


def _without_owners(sentence: str) -> str:
    """Return a sentence from the thing on that somebody owns: of "the cat's bowl", "bowl"."""
    if "'" not in sentence and "’" not in sentence:
        return sentence
    for match in _OWNER.finditer(sentence):
        owned = match[1].lower()
        if owned not in _PLACES and not owned.endswith(("ing", "ly")):
            return sentence[match.start(1) :]
    return sentence


def _may_begin_name(words: list[str], i: int) -> bool:
    """Whether a word may begin the name of a thing, and is not a filler, verb or adverb."""
    word = words[i]
    if word in _FILLER or word.endswith("ly") or _DIGIT.search(word):
        return False
    if i > 0 and words[i - 1] in ("i", "we", "ve"):
        return False  # what they do
    following = words[i + 1] if i + 1 < len(words) else ""
    return not (word.endswith("ing") and following in _FILLER)


def denial_in(talk: Talk, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the words by which talk takes back boxes; None where it doesn't.

    Args:
        talk: Words beside the boxes of an answer.
        things: What these are the boxes of, by id.
        others: Whether other things were asked for and have no box.
    """
    unreal = UNREAL.search(talk.text) or BLIND.search(talk.text)
    if unreal is not None:
        return unreal[0]
    if talk.behind:
        rejection = _rejection_in(talk.text, things)
        if rejection is not None:
            return rejection
    return _absence_in(talk.text, things, others=others)


def _rejection_in(text: str, things: Mapping[int, str]) -> str | None:
    """Return the words that say of a box before them that it is wrong or another thing's."""
    rejects = _REJECTS.search(text)
    if rejects is not None and not _IF.search(text[: rejects.start()][-300:]):
        return rejects[0]
    for match in _NOT_A.finditer(text):
        rejected = match[1].split(" at ")[0]
        if any(alike(rejected, thing) for thing in things.values()):
            return match[0]
    return None


def _absence_in(text: str, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the first sentence or clause that says that one of the things is not there.

    Or that nothing is; None where none does.

    Args:
        text: Words beside the boxes of an answer.
        things: What these are the boxes of, by id.
        others: Whether other things were asked for and have no box.
    """
    clauses: list[str] = []
    for sentence in SENTENCE_END.split(BOX_NUMBERS.sub(" ", text)):
        for clause in (sentence, *_CLAUSE_END.split(sentence)):
            if clause.strip():
                clauses.append(clause)
    first_clauses = clauses[:_MOST_CLAUSES]
    last_clauses = clauses[_MOST_CLAUSES:][-_MOST_CLAUSES:]
    for clause in first_clauses + last_clauses:
        missing = missing_in_clause(clause)
        if missing is None or _is_one_word(clause.strip(_MARKUP)):
            continue
        if _may_be_one_of(missing, things) or not missing.thing:
            return clause.strip()
        if missing.foreign and not others and _is_of_other_letters(missing.thing, things):
            return clause.strip()
    return None


def _is_one_word(text: str) -> bool:
    """Whether a text is one English word, as "none" is."""
    return text.isascii() and text.isalpha()


def _may_be_one_of(missing: Missing, things: Mapping[int, str]) -> bool:
    """Whether one of the things that are missing can be one of `things`."""
    return any(alike(part, thing) for part in missing.parts for thing in things.values())


def _is_of_other_letters(name: str, things: Mapping[int, str]) -> bool:
    """Whether a name is in other letters than one of the things, so that it may be that thing."""
    return not all(comparable(name, thing) for thing in things.values())


def takes_back(remark: str, thing: str) -> bool:
    """Whether a remark on a box says that the box isn't the thing's.

    For a cat, "not a cat" and "this is a dog" do.
    """
    if denial_in(Talk(remark, 0, behind=True), {0: thing}, others=False) is not None:
        return True
    is_a = _IS_A.fullmatch(remark.strip())
    if is_a is None:
        return False
    return comparable(is_a[1], thing) and not alike(is_a[1], thing)


def affirmation_in(text: str, things: Mapping[int, str]) -> str | None:
    """Return the first words around an empty list that say that a thing is there after all.

    Words that say that the list is no answer are returned too. None where there are neither.
    """
    text = text[-_NEAR:]
    no_answer = _NO_LIST.search(text)
    if no_answer is not None:
        return no_answer[0]
    if _AFFIRMS.search(text) is None:
        return None
    clauses: list[str] = []
    for sentence in SENTENCE_END.split(text):
        for clause in _CLAUSE_END.split(sentence):
            if clause.strip():
                clauses.append(clause)
    for clause in clauses[:_MOST_CLAUSES]:
        if not _AFFIRMS.search(clause) or _UNSURE.search(clause):
            continue
        if any(_names_thing(clause, thing) for thing in things.values()):
            return clause.strip()
    return None


def _names_thing(clause: str, thing: str) -> bool:
    """Whether a clause names a thing, and not one of another kind, as "toy cat" is of "cat".

    Where the two are in different letters nobody can tell, and the answer is yes.
    """
    if not comparable(clause, thing):
        return True
    if not clause.isascii() and thing.strip().lower() in clause.lower():
        return True
    if not all_words(thing) <= all_words(clause):
        return False
    name = _thing_in(clause).thing
    return surely_alike(name, thing) or not alike(name, thing)


class CorrectedPart(NamedTuple):
    """A part of a text that corrects itself.

    Attributes:
        cue: The words that take back what was said before; "" for the first part.
        text: What follows them.
    """

    cue: str
    text: str


def _cues_outside_of_strings(text: str) -> Iterator[re.Match[str]]:
    """Yield the words of correction in a text that aren't between quotation marks of their line.

    The marks are counted on from one cue to the next, so that a text is gone through once.
    """
    counted_to = 0
    in_string = False
    for cue in _CUE.finditer(text):
        line_start = text.rfind("\n", counted_to, cue.start()) + 1
        if line_start > counted_to:  # a new line, on which no mark is open
            counted_to = line_start
            in_string = False
        if text.count('"', counted_to, cue.start()) % 2 == 1:
            in_string = not in_string
        counted_to = cue.start()
        if not in_string:
            yield cue


def split_at_corrections(text: str) -> list[CorrectedPart]:
    """Return a text cut where it corrects itself.

    Raises:
        UnreadableReply: It does so again and again.
    """
    cuts = [(0, 0)]  # where each part begins, and its words of correction end
    next_number = _DIGIT.search(text)  # the first one behind the last cut
    for cue in _cues_outside_of_strings(text):
        if next_number is None:
            break  # nothing more is said that could be corrected
        if next_number.start() > cue.start():
            # No number stands between the last cut and this cue, which takes nothing back: its
            # words belong to those of the last correction.
            if len(cuts) > 1:
                cuts[-1] = (cuts[-1][0], cue.end())
            continue
        cuts.append((cue.start(), cue.end()))
        next_number = _DIGIT.search(text, cue.start())
        if len(cuts) > _MOST_CORRECTIONS:
            raise UnreadableReply(f"the reply corrects itself more than {_MOST_CORRECTIONS} times")
    parts: list[CorrectedPart] = []
    for i, (start, cue_end) in enumerate(cuts):
        end = cuts[i + 1][0] if i + 1 < len(cuts) else len(text)
        parts.append(CorrectedPart(text[start:cue_end], text[cue_end:end]))
    return parts


def announces_addition(talk: str) -> bool:
    """Whether talk before a box says that it is a further one, and not one instead."""
    return _MORE.search(talk) is not None
