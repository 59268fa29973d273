"""What words around a box say: what it is the box of, whether they take it back, and where a reply
corrects itself.
"""

import re
from collections.abc import Mapping
from itertools import chain

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies._absence import (
    BLIND,
    BOX_NUMBERS,
    SENTENCE_END,
    UNREAL,
    missing_in_clause,
)
from dataflow_grounding.replies.labels import alike, all_words, comparable, surely_alike
from dataflow_grounding.replies.reading import Talk
from dataflow_grounding.replies.vocabulary import pattern, words

_WORD = lazy_pattern(r"[^\W_]+(?:-[^\W_]+)*")
# Words that name no thing, of which a sentence's first ones are passed over; and where the words
# that name a thing end.
_FILLER, _STOPS = words("filler"), words("stops")
_PLACES = _FILLER | _STOPS | words("which") | words("places")
# Right before its box stands the thing that the box is around: "The cat sits on the sofa [1, 2, 3,
# 4]".
_APPOSED, _CONTRASTED = map(pattern, ("apposed", "contrasted"))
_OWNER = lazy_pattern(
    r"(?<!\bit)(?<!that)(?<!ere)(?<!what)(?<!\blet)(?<!she)(?<!\bhe)(?<!this)['’]s\s+([^\W\d_]+)",
    re.IGNORECASE,
)
_MARKUP = " \t\r\n：:，,、。.*#-—"
_REFERS = frozenset(["it", "its", "they", "their", "them", "he", "she", "his", "her"])
_DIGIT = lazy_pattern(r"\d")
_CORNER, _SPACELESS_FILLER, _CLAUSE_END = map(pattern, ("corner", "spaceless_filler", "clause_end"))
_REJECTS, _NOT_A, _CUE, _MORE = map(pattern, ("rejects", "not_a", "corrections", "more"))
_AFFIRMS, _UNSURE, _NO_LIST = map(pattern, ("affirms", "unsure", "no_list"))
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


def named_before(text: str) -> str:
    """Return what the words before a box name as its thing: "I see a cat at" names a cat, "Here it
    is:" nothing.
    """
    sentences = [
        part for part in SENTENCE_END.split(TAG.sub(" ", text[-600:])) if _WORD.search(part)
    ]
    last = sentences[-1].split()[-1] if sentences else ""
    if last.isalpha() and last.lower() not in _PLACES:
        apposed = _APPOSED.search(sentences[-1])
        if apposed is not None:
            return apposed[1]
    for sentence in reversed(sentences[-2:]):
        thing, refers = _thing(sentence)
        if thing or not refers:
            return thing
    return ""


def named_behind(text: str) -> str:
    """Return what the rest of a sentence behind a box names as its thing, as in
    `[1, 2, 3, 4] is the cat.`.
    """
    return _thing(SENTENCE_END.split(TAG.sub(" ", text[:300]), maxsplit=1)[0])[0]


def _thing(sentence: str) -> tuple[str, bool]:
    """Return the words of a sentence that name a thing, and whether it refers to one
    by a pronoun.
    """
    if _SPACELESS.search(sentence):
        return _SPACELESS_FILLER.sub("", sentence.strip(_MARKUP)).strip(_MARKUP), False
    words = _WORD.findall(_CORNER.sub(" ", _of_owners(_CONTRASTED.sub("", sentence, count=1))))
    low = [word.lower() for word in words]
    start = next((i for i in range(len(low)) if _names(low, i)), len(low))
    end = next((i for i in range(start, len(low)) if low[i] in _STOPS), len(low))
    return " ".join(words[start:end]), start == len(low) and any(word in _REFERS for word in low)


def _of_owners(sentence: str) -> str:
    """Return a sentence without those who own its thing: of "the cat's bowl" it is
    about the bowl.
    """
    if "'" not in sentence and "’" not in sentence:
        return sentence
    for match in _OWNER.finditer(sentence):
        owned = match[1].lower()
        if not (
            owned in _FILLER or owned in _STOPS or owned in _PLACES or owned.endswith(("ing", "ly"))
        ):
            return sentence[match.start(1) :]
    return sentence


def _names(words: list[str], i: int) -> bool:
    """Whether a word may begin the name of a thing, and is not a filler, verb or adverb."""
    word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
    verb = (i > 0 and words[i - 1] in ("i", "we", "ve")) or (
        word.endswith("ing") and following in _FILLER
    )
    return not (word in _FILLER or verb or word.endswith("ly") or _DIGIT.search(word))


def denial(talk: Talk, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the words by which talk says that boxes of `things` are none; `others` were asked for
    and have none.
    """
    unreal = UNREAL.search(talk.text) or BLIND.search(talk.text)
    if unreal is not None:
        return unreal[0]
    if talk.behind:
        # words that point back at a box and say that it is wrong, or none of the things
        rejects = _REJECTS.search(talk.text)
        if rejects is not None and not _IF.search(talk.text[: rejects.start()][-300:]):
            return rejects[0]
        for match in _NOT_A.finditer(talk.text):
            if any(alike(match[1].split(" at ")[0], thing) for thing in things.values()):
                return match[0]
    return _absence(talk.text, things, others=others)


def _absence(text: str, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the first sentence or clause that says that one of the things, or anything at all, is
    not there.
    """
    text = BOX_NUMBERS.sub(" ", text)
    parts = chain.from_iterable(
        (sentence, *_CLAUSE_END.split(sentence)) for sentence in SENTENCE_END.split(text)
    )
    clauses = [*filter(str.strip, parts)]
    for clause in clauses[:_MOST_CLAUSES] + clauses[_MOST_CLAUSES:][-_MOST_CLAUSES:]:
        missing = missing_in_clause(clause)
        if missing is None or (clause.strip(_MARKUP).isascii() and clause.strip(_MARKUP).isalpha()):
            continue
        same = any(alike(part, thing) for part in missing.parts for thing in things.values())
        unknown = (
            missing.foreign
            and not others
            and not all(comparable(missing.thing, t) for t in things.values())
        )
        if same or unknown or not missing.thing:
            return clause.strip()
    return None


def takes_back(remark: str, thing: str) -> bool:
    """Whether a remark on a box says that it isn't the thing's, as "not a cat" and "this is a dog"
    do.
    """
    if denial(Talk(remark, 0, behind=True), {0: thing}, others=False) is not None:
        return True
    other = _IS_A.fullmatch(remark.strip())
    return other is not None and comparable(other[1], thing) and not alike(other[1], thing)


def affirmed(text: str, things: Mapping[int, str]) -> str | None:
    """Return the first words around an empty list that say that a thing is there, or that the list
    is no answer.
    """
    text = text[-_NEAR:]
    no_answer = _NO_LIST.search(text)
    if no_answer is not None:
        return no_answer[0]
    if _AFFIRMS.search(text) is None:
        return None
    clauses = (
        part for sentence in SENTENCE_END.split(text) for part in _CLAUSE_END.split(sentence)
    )
    for clause in [*filter(str.strip, clauses)][:_MOST_CLAUSES]:
        if (
            _AFFIRMS.search(clause)
            and not _UNSURE.search(clause)
            and any(_has(clause, one) for one in things.values())
        ):
            return clause.strip()
    return None


def _has(clause: str, thing: str) -> bool:
    """Whether a clause names a thing, and not one of another kind ("toy cat"); of other letters,
    that isn't known.
    """
    if not comparable(clause, thing):
        return True
    if not clause.isascii() and thing.strip().lower() in clause.lower():
        return True
    if not all_words(thing) <= all_words(clause):
        return False
    named = _thing(clause)[0]
    return not (alike(named, thing) and not surely_alike(named, thing))


def statements(text: str) -> list[tuple[str, str]]:
    """Return a text cut where it corrects itself: those words and what follows. Raises
    UnreadableReply for circles.
    """
    cuts = [(0, 0)]  # where each part begins, and its words of correction end
    number = _DIGIT.search(text)
    counted = 0  # up to where the quotation marks of the line are counted
    within = False
    for cue in _CUE.finditer(text):
        if number is None:
            break
        line = max(text.rfind("\n", counted, cue.start()) + 1, counted)
        within = (within and line == counted) != bool(text.count('"', line, cue.start()) % 2)
        counted = cue.start()
        if within:
            continue
        if number.start() > cue.start():  # nothing was said since the last cut
            cuts[-1] = cuts[-1][0], cue.end() if len(cuts) > 1 else 0
            continue
        cuts.append((cue.start(), cue.end()))
        number = _DIGIT.search(text, cue.start())
        if len(cuts) > _MOST_CORRECTIONS:
            raise UnreadableReply(f"the reply corrects itself more than {_MOST_CORRECTIONS} times")
    starts = [start for start, _ in cuts[1:]]
    return [
        (text[start:at], text[at:end])
        for (start, at), end in zip(cuts, [*starts, len(text)], strict=True)
    ]


def adds(talk: str) -> bool:
    """Whether talk before a box says that it comes beside those before it, and not
    instead of them.
    """
    return _MORE.search(talk) is not None
