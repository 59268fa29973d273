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
from dataflow_grounding.replies.labels import (
    CLAUSE_WORDS,
    NEGATIONS,
    ORDINALS,
    alike,
    all_words,
    comparable,
    is_negated,
    surely_alike,
    with_whole_negations,
)
from dataflow_grounding.replies.reading import Talk
from dataflow_grounding.replies.vocabulary import pattern, words

_WORD = lazy_pattern(r"[^\W_]+(?:-[^\W_]+)*")  # a word, perhaps with hyphens: "t-shirt"
# Words with which no name of a thing begins, such as "there", "the" and "see".
_FILLER = words("filler")
# Words at which the name of a thing ends, such as "is" and "at".
_STOPS = words("stops")
_NEGATIONS = NEGATIONS - words("negations_behind")  # but for "missing", which a name may begin with
# Words before a name that begins with a negation: "the no parking sign".
_BEFORE_NEGATED_NAME = frozenset(["the", "a", "an", "this", "that", "one", "of", "for", "and"])
_BESIDE_THE_POINT = frozenset(["doubt", "worries", "worry", "problem", "problems"])  # "No doubt"
_WITHIN_NEGATION = frozenset(["a", "an", "the"])  # between it and the name: "Not a Toy label"
# All words that can't be a thing by themselves, also "left" and "corner".
NO_THINGS = _FILLER | _STOPS | words("which") | words("places")
# A sentence that ends with another thing than its subject: "The cat sits on the sofa". The group is
# that thing, "sofa".
_APPOSED = pattern("apposed")
# The beginning of a sentence that names a thing only to tell its own from it: "Unlike the dog, ".
_CONTRASTED = pattern("contrasted")
# An owner's ending with the word for what is owned, which is the group: "'s bowl" of "the cat's
# bowl". The "'s" of "it's" and "that's" is a verb.
_OWNER = lazy_pattern(
    r"(?<!\bit)(?<!that)(?<!ere)(?<!what)(?<!\blet)(?<!she)(?<!\bhe)(?<!this)['’]s\s+([^\W\d_]+)",
    re.IGNORECASE,
)
_MARKUP = " \t\r\n：:，,、。.*#-—"  # around a name or a clause
_PRONOUNS = frozenset(["it", "its", "they", "their", "them", "he", "she", "his", "her"])
_DIGIT = lazy_pattern(r"\d")
_CORNER = pattern("corner")  # a corner of a box: "top-left corner of"
# Chinese and Japanese words around the name of a thing: "图中" and "位于" of "图中猫位于".
_SPACELESS_FILLER = pattern("spaceless_filler")
_CLAUSE_END = pattern("clause_end")  # a comma, bracket or "but"
_REJECTS = pattern("rejects")  # "this is wrong", "ignore"
_NOT_A = pattern("not_a")  # "isn't a red car"; the group is "red car" and perhaps words behind it
_CUE = pattern("corrections")  # "Wait, let me", "Final answer"
_RATHER_THAN = pattern("rather_than")  # "it is a fox rather than a cat"; the group is "cat"
_MORE = pattern("more")  # "another", "also"
_AFFIRMS = pattern("affirms")  # "there is", "I see"
_UNSURE = pattern("unsure")  # "if", "no", "may": nothing is affirmed with these
_NO_LIST = pattern("no_list")  # "output format": an empty list there is an example
# A character of a script without blanks between words: kana or Chinese.
_SPACELESS = lazy_pattern(r"[\u3040-\u30ff\u3400-\u9fff]")
TAG = lazy_pattern(r"<[^<>]{0,200}>")
# A remark that says what is in a box: "this is a dog". The group is the thing, in one or two words.
_IS_A = lazy_pattern(
    r"(?:this|that|it|box)(?:['’]s|\s+is)\s+(?:actually\s+)?an?\s+([\w-]+(?:\s[\w-]+)?)\.?",
    re.IGNORECASE,
)
# A condition that the end of a text stands in: "if this".
_IF = lazy_pattern(r"\b(?:if|whether|in case)\b[^.!?\n]*$", re.IGNORECASE)
_MOST_BEFORE = 600  # characters before a box in which its thing may be named
_MOST_BEHIND = 300  # characters behind a box in which it may be
_MOST_OF_CONDITION = 300  # characters between the "if" of a condition and what it is about
_NEAR = 4000  # characters of talk that may say that a thing is there
_MOST_CLAUSES = 60  # that are looked at from the beginning, and from the end
_MOST_CORRECTIONS = 50


def thing_before(text: str) -> str:
    """Return the thing that the words before a box name; "" for none.

    The last sentence names it: "I see a cat at" a cat, "Here you are:" nothing. Where it has only a
    pronoun, as "It is at", the sentence before it does.
    """
    sentences: list[str] = []
    for sentence in SENTENCE_END.split(TAG.sub(" ", text[-_MOST_BEFORE:])):
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
    """Return the thing that a sentence ends with, if that is another one than its subject.

    In "The cat sits on the sofa [1, 2, 3, 4]" it is the sofa, whose box that is. None for a
    sentence that ends otherwise, as "The cat is at" and "I see a cat" do, or in a clause on its
    subject, as "cat that sits on the sofa". It must not be blank.
    """
    last = sentence.split()[-1]
    if not last.isalpha() or last.lower() in NO_THINGS:
        return None
    apposition = _APPOSED.search(sentence)
    if apposition is None:
        return None
    words_before = sentence[: apposition.start()].split()
    is_clause = bool(words_before) and words_before[-1].lower() in CLAUSE_WORDS
    return None if is_clause else apposition[1]


def thing_behind(text: str) -> str:
    """Return the thing that the rest of a sentence behind a box names; "" for none.

    In `[1, 2, 3, 4] is the cat.` that is the cat.
    """
    first = SENTENCE_END.split(TAG.sub(" ", text[:_MOST_BEHIND]), maxsplit=1)[0]
    return _thing_in(first).thing


class _ThingInSentence(NamedTuple):
    """What a sentence says of a thing.

    Attributes:
        thing: The words that name the thing; "" for none.
        has_pronoun: Whether it names no thing, and a pronoun such as "it" stands for one.
    """

    thing: str
    has_pronoun: bool


def _thing_in(sentence: str) -> _ThingInSentence:
    """Return the first name of a thing in a sentence, or whether it has a pronoun instead.

    A name goes from the first word that may begin one up to a word such as "is" or "at": of "There
    is a red cat at" it is "red cat". A clause that begins there belongs to it: "dog that is not
    sleeping". So do a negation and a number before it: "no parking sign", "42 bus". No name is
    looked for in what the sentence's thing is told from ("Unlike the dog,"), in words for a corner,
    and in an owner ("the cat's").
    """
    if _SPACELESS.search(sentence):
        return _ThingInSentence(_thing_in_spaceless(sentence), has_pronoun=False)
    sentence = _from_what_is_owned(_CONTRASTED.sub("", sentence, count=1))
    sentence = with_whole_negations(_CORNER.sub(" ", sentence))
    matches = list(_WORD.finditer(sentence))
    in_lower_case = [match[0].lower() for match in matches]
    start = _start_of_name(in_lower_case)
    end = start
    while end < len(matches) and in_lower_case[end] not in _STOPS:
        if end > start and in_lower_case[end] in CLAUSE_WORDS:
            break
        end += 1
    if start == end:
        return _ThingInSentence("", has_pronoun=not _PRONOUNS.isdisjoint(in_lower_case))
    clause_end = end
    if end < len(matches) and in_lower_case[end] in CLAUSE_WORDS:
        clause_end = _end_of_clause(in_lower_case, end)
    start = _start_with_words_before(sentence, matches[:end], start)
    name = " ".join(match[0] for match in matches[start:end])
    if clause_end > end:  # as it is written: a comma tells how far a negation reaches
        name = f"{name} {sentence[matches[end].start() : matches[clause_end - 1].end()]}"
    return _ThingInSentence(name, has_pronoun=False)


def _end_of_clause(lower_words: list[str], start: int) -> int:
    """Return the index behind the last word of the clause that begins at an index.

    It ends before the words that lead to a box: "is located at".
    """
    end = len(lower_words)
    while end > start and lower_words[end - 1] in _STOPS | _FILLER:
        end -= 1
    return end


def _start_with_words_before(sentence: str, words: list[re.Match[str]], start: int) -> int:
    """Return the index of the first word of a name that a negation or a number may begin.

    That is "no" in "the no parking sign" and "17" in "the 17 bus". Nothing but blanks may stand
    between such words: "2. cat" is an item of a list.

    Args:
        sentence: The sentence.
        words: Its words up to the end of the name.
        start: The index of the word that the name begins with otherwise.
    """
    first = start
    negation = start  # the index of the first word of a negation before the name
    while first > 0 and _are_adjacent(sentence, words[first - 1], words[first]):
        word = words[first - 1][0].lower()
        if word not in _NEGATIONS and word not in _WITHIN_NEGATION:
            break
        first -= 1
        if word in _NEGATIONS:
            negation = first
    if negation < start and negation > 0 and words[negation - 1][0].lower() == "do":
        negation -= 1
    if negation < start and _may_begin_negated_name(sentence, words, negation):
        start = negation
    if start > 0 and _are_adjacent(sentence, words[start - 1], words[start]):
        before = words[start - 1][0].lower()
        if before[0].isdigit() or before in ORDINALS:
            return start - 1
    return start


def _are_adjacent(sentence: str, word: re.Match[str], following: re.Match[str]) -> bool:
    """Whether nothing but blanks stands between two words of a sentence."""
    return sentence[word.end() : following.start()].isspace()


def _may_begin_negated_name(sentence: str, words: list[re.Match[str]], i: int) -> bool:
    """Whether a negation at an index begins a name, and doesn't say that a thing isn't there.

    It does at the beginning of a sentence, unless a comma comes behind ("No problem, the cat"),
    behind a mark such as a colon, and behind an article or a number: not in "I see no cat".
    """
    if i == 0:
        if words[i + 1][0].lower() in _BESIDE_THE_POINT:
            return False
        return "," not in sentence[words[i].start() : words[-1].end()]
    before = words[i - 1]
    if not _are_adjacent(sentence, before, words[i]):
        return True
    return before[0].lower() in _BEFORE_NEGATED_NAME or before[0].isdigit()


def _thing_in_spaceless(sentence: str) -> str:
    """Return a sentence in Chinese or Japanese without the words around the name of a thing.

    Of "图中猫位于" that is "猫"; where all of it is such words, "".
    """
    return _SPACELESS_FILLER.sub("", sentence.strip(_MARKUP)).strip(_MARKUP)


def _from_what_is_owned(sentence: str) -> str:
    """Return a sentence from the word for what somebody owns on: of "the cat's bowl is", "bowl is".

    Without an owner it is returned as it is.
    """
    if "'" not in sentence and "’" not in sentence:
        return sentence
    for match in _OWNER.finditer(sentence):
        owned = match[1].lower()
        if owned not in NO_THINGS and not owned.endswith(("ing", "ly")):
            return sentence[match.start(1) :]
    return sentence


def _start_of_name(lower_words: list[str]) -> int:
    """Return the index of the first word that may begin a name; the number of words for none."""
    for i in range(len(lower_words)):
        if _may_begin_name(lower_words, i):
            return i
    return len(lower_words)


def _may_begin_name(lower_words: list[str], i: int) -> bool:
    """Whether the word at an index may begin the name of a thing: no filler, verb or adverb."""
    word = lower_words[i]
    if word == "one" and i + 1 < len(lower_words) and lower_words[i + 1] in CLAUSE_WORDS:
        return True  # "the one that isn't cut"
    if word in _FILLER or word in _NEGATIONS or word.endswith("ly") or _DIGIT.search(word):
        return False
    if i > 0 and lower_words[i - 1] in ("i", "we", "ve"):
        return False  # what they do
    following = lower_words[i + 1] if i + 1 < len(lower_words) else ""
    is_verb = word.endswith("ing") and not word.endswith("thing")  # but for "everything"
    return not (is_verb and following in _FILLER)


def denial_in(talk: Talk, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the words by which talk takes back boxes; None where it doesn't.

    It does where it says that nobody looked or that the boxes are made up, that one of the things
    is not there, or, behind the boxes, that they are wrong.

    Args:
        talk: Words beside the boxes of an answer.
        things: What these are the boxes of, by id.
        others: Whether other things were asked for and have no box: in another language, "no dog"
            may then be about one of these.
    """
    unreal = UNREAL.search(talk.text) or BLIND.search(talk.text)
    if unreal is not None:
        return unreal[0]
    if talk.behind:
        rejection = _rejection_in(talk.text, things)
        if rejection is not None:
            return rejection
    return _absence_in(_without_negated_names(talk.text, things), things, others=others)


def _without_negated_names(text: str, things: Mapping[int, str]) -> str:
    """Return a text without the names of things that have a negation: "no smoking sign" is one."""
    for thing in things.values():
        if is_negated(thing):
            text = re.sub(re.escape(thing.strip()), " ", text, flags=re.IGNORECASE)
    return text


def _rejection_in(text: str, things: Mapping[int, str]) -> str | None:
    """Return the words that say of a box before them that it is wrong or another thing's.

    These are words such as "this is wrong", the first of which must not stand in a condition, or
    "not a cat" where a cat is among the things. None for a text without either.
    """
    rejects = _REJECTS.search(text)
    if rejects is not None:
        before = text[: rejects.start()][-_MOST_OF_CONDITION:]
        if not _IF.search(before):
            return rejects[0]
    for match in _NOT_A.finditer(text):
        rejected = match[1].split(" at ")[0]
        if any(alike(rejected, thing) for thing in things.values()):
            return match[0]
    for match in _RATHER_THAN.finditer(text):
        # a car that is "a taxi rather than a private car" is a car
        rejected_words = all_words(match[1].split(" at ")[0])
        for thing in things.values():
            if alike(match[1], thing) and rejected_words <= all_words(thing):
                return match[0]
    return None


def _absence_in(text: str, things: Mapping[int, str], *, others: bool) -> str | None:
    """Return the first clause that says that one of the things isn't there, or that nothing is.

    Whole sentences are clauses, too. None where none says so; a single English word such as "none"
    doesn't count.

    Args:
        text: Words beside the boxes of an answer.
        things: What these are the boxes of, by id.
        others: Whether other things were asked for and have no box; see `denial_in`.
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
    """Whether a text is one word of ASCII letters, as "none" is."""
    return text.isascii() and text.isalpha()


def _may_be_one_of(missing: Missing, things: Mapping[int, str]) -> bool:
    """Whether one of the things that are missing can be one of `things`."""
    return any(alike(part, thing) for part in missing.parts for thing in things.values())


def _is_of_other_letters(name: str, things: Mapping[int, str]) -> bool:
    """Whether a name is in other letters than one of the things, so that it may be that thing.

    So "猫" may be "cat".
    """
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
    """Return the words around an empty list that say that a thing is there after all.

    These are words by which the list is no answer, such as "output format"; else the first clause
    that affirms a thing, such as "I see a cat". None where there are neither.

    Args:
        text: The words around the list.
        things: The things that were asked for, by id.
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

    It does with all of the thing's words anywhere: "a dog beside the cat" names a cat. Where the
    two are in different letters nobody can tell, and the answer is yes.
    """
    if not comparable(clause, thing):
        return True
    if not clause.isascii() and thing.strip().lower() in clause.lower():
        return True
    if not all_words(thing) <= all_words(clause):
        return False
    name = _thing_in(clause).thing
    is_of_other_kind = alike(name, thing) and not surely_alike(name, thing)
    return not is_of_other_kind


class CorrectedPart(NamedTuple):
    """A part of a text that corrects itself.

    Attributes:
        cue: The words that take back what was said before; "" for the first part.
        text: What follows them, up to the next such words.
    """

    cue: str
    text: str


def _cues_outside_of_strings(text: str) -> Iterator[re.Match[str]]:
    """Yield the words of correction in a text that aren't between quotation marks of their line.

    The marks `"` are counted on from one cue to the next, so that a text is gone through once.
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
    """Return a text cut where it corrects itself; all of it as one part where it doesn't.

    Words of correction cut it only where numbers stand between them and the cut before, as only
    numbers are taken back.

    Raises:
        UnreadableReply: It corrects itself more than `_MOST_CORRECTIONS` times.
    """
    cuts = [(0, 0)]  # of each part: where its words of correction begin, and where they end
    next_number = _DIGIT.search(text)  # the first one behind the last cut
    for cue in _cues_outside_of_strings(text):
        if next_number is None:
            break  # nothing more is said that could be corrected
        if next_number.start() > cue.start():
            # No number stands between the last cut and this cue, which takes nothing back: it is
            # one cue with that of the last cut.
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
