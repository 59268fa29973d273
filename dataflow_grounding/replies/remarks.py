"""Words, keys and labels next to an addressed answer: harmful, harmless, or worth a remark.

An answer is addressed if every box names a phrase that was asked for, by its id or its label. What
models say around it is endless, so what does harm is listed, in remarks.yaml. What isn't listed,
and isn't harmless by the rules of words.py, is kept in the reading as a remark. things.py says what
a thing is and what its head is, stated_coordinates.py what may be said of coordinates.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.data.heads import head_of
from dataflow_grounding.data.nouns import singular
from dataflow_grounding.replies.harm_words import (
    pattern_listed,
    words_listed,
)
from dataflow_grounding.replies.stated_coordinates import Asked, other_coordinates
from dataflow_grounding.replies.things import (
    THING,
    contradicts,
    heads_marked,
    is_like,
    kind_of_words,
    tells_apart,
    things_marked,
)
from dataflow_grounding.replies.words import (
    folded,
    is_neutral,
    turning_word,
    with_whole_negations,
    words_of,
)

LONGEST_REMARK = 200  # characters that are kept
_LONGEST_WORDS = 20_000  # characters that are judged: a model that thinks aloud writes thousands
_BOXED = "theboxed"  # for a phrase with a box, where THING is one without
_UNSEEN = lazy_pattern(r"[\u00ad\u200b-\u200f\u2060\ufeff]")
_FOUR_NUMBERS = lazy_pattern(r"(?<![\d.])(?:[-+]?\d+(?:\.\d+)?\s*[,;\s]\s*){3}[-+]?\d+")
# Braces, a bracket that is alone, or a comma at the beginning: a piece of a further list.
_PIECE = lazy_pattern(r"[{}]|\[[^\]]*\Z|\A[^\[]*\]|\A\s*,")
_QUOTED = lazy_pattern(r'"[^"\n]{0,200}"|“[^”\n]{0,200}”|「[^」\n]{0,200}」')
# Within a sentence it takes nothing back: "Region 2 actually shows a van."
_ACTUALLY_WITHIN = lazy_pattern(r"(?<=[\w'’] )actually\b")
# "There are no mistakes", "none of them is wrong", "not incorrect"
_NOTHING_WRONG = lazy_pattern(
    r"\b(?:no|none|nothing|neither|nor|without|any(?:thing)?)\b.*|\bnot (?:\w+ )?(?:be |been )?"
    r"(?:wrong\w*|incorrect\w*|mis\w+|swapped|reversed|confus\w+|mix(?:ed)? up|correct\w+)\b"
)
# A task that cleans captions is told of by "I corrected a typo" and "the corrected caption".
_TEXT_CORRECTED = lazy_pattern(
    r"\bcorrect(?:ed|ing|ions?)\b(?=(?: of)? (?:\w+ ){0,4}"
    r"(?:captions?|typos?|spellings?|misspell\w*|punctuation|grammar|capitali[sz]\w+)\b)"
)
# Before an answer, what was corrected is the answer: "Here is the corrected JSON:".
_ANSWER_CORRECTED = lazy_pattern(
    r"\bcorrected (?:\w+ ){0,2}"
    r"(?:json|box(?:es)?|answers?|response|output|coordinates|version|list|results?)\b"
)
_NOT_DONE = lazy_pattern(
    r"\bnot (?:been )?"
    r"(?:padded|cropped|turned|rotated|(?:re|down|up)?scaled|resized|flipped|mirrored)\b"
)
_SENTENCES = lazy_pattern(r"(?<=[.!?。！？\n])(?=\s)")  # with their ends
_SENTENCE = lazy_pattern(r"(?<!\d)\.|\.(?!\d)|[!?。！？；;\n]+")
_CLAUSE = lazy_pattern(r"[,:，、：—]|\s-\s|\b(?:so|but|because|and|while|although|since|which)\b")
_NO_THING = lazy_pattern(
    rf"\b(?:no|neither|not an?|not any|(?:not|not able to|unable to) (?:\w+ )?"
    rf"(?:see|find|detect|locate|identify|contain|show|include)(?: an?| the| any)?)"
    rf" {THING}\b(?! ?['’]s\b)"
    rf"|\b(?:none|neither) of (?:the |these |those |them )?(?:\w+ )?"
    rf"(?:objects|things|items|phrases|{THING})? ?"
    rf"(?:(?:is|are|was|were) (?:\w+ )?(?:present|visible|there|found|shown|in )"
    rf"|(?:appears?|exists?)(?: in\b|\W*\Z))"
)
_THING_IS_NOT = lazy_pattern(
    rf"^\W*(?:(?:and|so|but|note|that|however|unfortunately|since|because|i think|as|the)\W+)*"
    rf"{THING} (?:\w+ ){{0,2}}?(?:(?:is|are|was|were|do|does|did|has|have|can|could|will) )?"
    rf"(?:\w+ly )?(?:(?:not|never)\b ?(?:be )?(?P<what>\w+)?"
    rf"|absent\b|missing\b|nowhere\b|invisible\b)"
)
# "id 2 is a spoon", "id 2: spoon"
_NAMED_BY_ID = lazy_pattern(
    r"\bid\W{0,2}(?P<id>\d+)(?: ?[:=] ?| (?:is|shows|was) (?=an?\b|the\b))"
    r"(?P<what>[^\W\d][\w -]{0,60})"
)
# "It is a spoon", but not "It is the one on the left"
_NAMED_ALONE = lazy_pattern(
    r"\W*(?:it|this|that|the box|the object)(?:'s| is| was| shows)"
    r" (?:an?|the) (?!(?:one|only|same|best|main)\b)(?P<what>[^\W\d][\w -]{0,60})"
)
_COLOR_SAID = lazy_pattern(rf"{THING} (?:is|are|was|looks|appears) (?:\w+ly )?(?P<what>[a-z]+)\b")
_NAMED_BY_NAME = lazy_pattern(
    rf"{THING} (?:is|are|was|were) (?:\w+ly )?(?:an?|the) (?P<what>[^\W\d][\w -]{{0,60}})"
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
# "Box 2 is a fox", "the second one shows a wolf"
_NUMBER = (
    rf"\b(?:(?:box|object|item|number|#) ?(?P<number>[1-9]\d?)"
    rf"|(?P<ordinal>{'|'.join(_ORDINALS)})(?: (?:one|box|object|item|animal|thing))?)"
)
_BY_NUMBER = lazy_pattern(_NUMBER)
_NAMED_BY_NUMBER = lazy_pattern(
    rf"{_NUMBER}"
    r" (?:is|shows|contains|marks|encloses) (?:really |actually )?(?:an?|the)"
    r" (?P<what>[^\W\d][\w -]{0,60})"
)
# "Dog: not found", "dog ✗"
_STATUS_LINE = lazy_pattern(
    rf"{THING} ?(?:[✗✘❌]|(?:[:：=|–—-]|→)+ ?(?:[✗✘❌×]|(?:absent|missing|none)\b|no\b(?! \d)"
    r"|not (?:found|present|visible|detected|there|in|seen)\b))"
)
_LISTED_ABSENT = lazy_pattern(
    r"\b(?:not (?:found|present|visible|detected|in the (?:image|picture|photo))|missing|absent)"
    rf" ?[:：][^.\n]*{THING}"
)
_NUMBERED_ABSENT = lazy_pattern(
    r"\b(?:first|second|third|fourth|fifth|last"
    r"|(?:object|item|phrase|expression|box|number|#) ?\d+)"
    r" (?:(?:one|object|item|thing|phrase|expression|box) )?(?:(?:was|is|could|can) )?"
    r"(?:not|never) (?:be )?(?:found|visible|present|detected|located|seen|there)\b"
)
_NOTHING_THERE = lazy_pattern(
    r"\bthere (?:is|are) no (?:visible |such )?"
    r"(?:animals?|people|persons?|humans?|vehicles?|objects?)\b(?! (?:other|more|else))"
)
_ONLY_FOUND = lazy_pattern(
    r"\bonly (?:(?:see|find|found|detect(?:ed)?|located?|identif(?:y|ied)) )?(?:the |an? )?"
    rf"{THING}\b(?P<rest>[^.\n]*)"
)
_FOUND_OF = lazy_pattern(
    r"\b(?:detected|found|located|identified|boxed)"
    r" (?P<found>\d) (?:out )?of (?:the )?(?P<all>\d)\b"
)
_SEEN = lazy_pattern(r"\b(?:found|visible|present|detected|see|find|located?|identif\w+)\b")
_DENIAL = lazy_pattern(r"(?:not|absent|missing|nowhere|invisible|never)\b", re.IGNORECASE)


def harm_in(text: str, things: Sequence[str], asked: Asked, *, is_after: bool = True) -> str | None:
    """Return what in words next to an answer may make its boxes wrong, or None."""
    if len(text) > _LONGEST_WORDS:
        return f"more than {_LONGEST_WORDS:,} characters"
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    further = _FOUR_NUMBERS.search(text) or _PIECE.search(text)
    if further is not None:
        return f"a further answer: {further[0]!r:.40}"
    # "If I was wrong, tell me." takes nothing back.
    without_conditions = pattern_listed("condition").sub(" ", things_marked(text, things))
    plain = with_whole_negations(without_conditions)
    listed = _listed_harm(plain, is_after)
    if listed is not None:
        return listed
    for sentence in _SENTENCE.split(plain):
        other = other_coordinates(sentence, asked, highest_count=len(things))
        if other is not None:
            return f"{other!r} is said of coordinates"
    denial = _denial_of_thing(heads_marked(plain, things), things, is_after)
    if denial is not None:
        return f"a thing with a box is denied: {denial.replace(THING, '…').strip()!r:.60}"
    return None


def _listed_harm(plain: str, is_after: bool) -> str | None:
    """The first words of a text that a table of harm in remarks.yaml has."""
    tables_of_harm = ["invented", "taken_back", "other_frame"]
    if is_after:  # words before the answer take nothing of it back
        tables_of_harm.append("taken_back_after")
    sentences = _SENTENCES.split(plain)
    for table in tables_of_harm:
        for sentence in sentences:
            found = pattern_listed(table).search(_NOT_DONE.sub(" ", sentence))
            if found is None:
                continue
            if table == "taken_back" and _is_harmless(sentence, is_after):
                continue
            return repr(found[0].strip())
    return None


def _denial_of_thing(marked: str, things: Sequence[str], is_after: bool) -> str | None:
    """The words by which a thing with a box is denied."""
    absent = _absent_by_list(marked, things)
    if absent is not None:
        return absent
    for clause in _clauses(marked):
        takes_back = is_after and f"not {THING}" in clause  # "This is a plate, not the cup."
        if takes_back or _denies_thing(clause, things):
            return clause
    return None


def _is_harmless(sentence: str, is_after: bool) -> bool:
    """Whether a sentence only seems to take something back."""
    sentence = _NOTHING_WRONG.sub(" ", sentence)  # "There are no mistakes."
    if not is_after:  # "Here are the corrected boxes:"
        sentence = _ANSWER_CORRECTED.sub(" ", sentence)
    return pattern_listed("taken_back").search(sentence) is None


def _absent_by_list(marked: str, things: Sequence[str]) -> str | None:
    """The words by which a thing with a box is said to be absent."""
    bare = re.sub(r"[ \t]+", " ", re.sub(r"[\"“”*_`]", " ", marked))
    # "Dog: not found", "not visible: the dog", "the second one is not visible", "there are no dogs"
    for pattern in (_STATUS_LINE, _LISTED_ABSENT, _NUMBERED_ABSENT, _NOTHING_THERE):
        found = pattern.search(bare)
        if found is not None:
            return found[0]
    thing_count = len({folded(thing) for thing in things})
    only = _ONLY_FOUND.search(bare)
    if only is not None and thing_count > 1 and _SEEN.search(only[0]):
        names_another = THING in only["rest"]  # "I found only the cat and the dog"
        if not names_another:  # "I found only the cat"
            return only[0]
    fewer = _FOUND_OF.search(bare)  # "found 1 of 2", where both have a box
    if fewer is not None and int(fewer["found"]) < int(fewer["all"]) <= thing_count:
        return fewer[0]
    return _denied_head(_QUOTED.sub(" ", marked), things)  # a sign may say "No dogs"


def _denied_head(text: str, things: Sequence[str]) -> str | None:
    """Find "no cup" where the red cup has a box, but not "no cup holder"."""
    for head in {head_of(thing) for thing in things} - {""}:
        absent = re.search(
            rf"\bno {re.escape(head)}(?:e?s)?\b(?= ?(?:\Z|[.!\n,;]|(?:is|are|was|were|in|visible"
            r"|present|detected|found|anywhere|here)\b))",
            text,
        )
        if absent is not None:
            return absent[0]
    return None


def harm_without_boxes(text: str, *, is_after: bool, has_denial: bool = False) -> str | None:
    """Return what in words next to an answer without boxes may make it wrong, or None."""
    if len(text) > _LONGEST_WORDS:
        return f"more than {_LONGEST_WORDS:,} characters"
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    further = _PIECE.search(text)
    if further is not None:
        return f"a further answer: {further[0]!r:.40}"
    without_quotes = _QUOTED.sub(" ", text)  # 'a sign that says "My mistake"'
    plain = with_whole_negations(pattern_listed("condition").sub(" ", without_quotes))
    plain = _TEXT_CORRECTED.sub("", plain)
    tables_of_harm = ["invented", "unseen"]
    if is_after:
        tables_of_harm += ["own_slip", "taken_back_after"]
        plain = _ACTUALLY_WITHIN.sub("", plain)
    for table in tables_of_harm:
        found = pattern_listed(table).search(plain)
        if found is not None:
            return repr(found[0].strip())
    # An answer may deny something itself, as a judge's does: "the second one is wrong" agrees.
    if is_after and not has_denial:
        for sentence in _SENTENCE.split(plain):
            found = pattern_listed("taken_back").search(_NOTHING_WRONG.sub(" ", sentence))
            if found is not None:
                return repr(found[0].strip())
    return None


def says_unseen(text: str) -> bool:
    """Whether a text says that the model didn't get to see the picture."""
    return pattern_listed("unseen").search(with_whole_negations(text)) is not None


def denies_thing(text: str, thing: str) -> bool:
    """Whether a text names a thing only to deny it: "a spoon, not a fork" for "the fork"."""
    marked = heads_marked(things_marked(with_whole_negations(text), [thing]), [thing])
    if marked.count(THING) != 1:
        return False  # "the red cup, not the cup next to it"
    for clause in _clauses(marked):
        if f"not {THING}" in clause or _denies_thing(clause, [thing]):
            return True
    return False


def left_out_in(
    text: str,
    missing: Mapping[int, str],  # phrases without a box
    things: Sequence[str],  # those with one
    *,
    is_before: bool = False,
    is_thinking: bool = False,
) -> dict[int, str]:
    """Return the phrases that a text lets one expect in the picture, by their ids, with why."""
    unsure: dict[int, str] = {}
    sentences = _SENTENCE.split(unicodedata.normalize("NFKC", text))
    for sentence in dict.fromkeys(sentences):  # a model in a loop repeats itself
        ids = _left_out_in_sentence(
            sentence, missing, things, is_before=is_before, is_thinking=is_thinking
        )
        said = " ".join(sentence.split())[:80]
        unsure |= dict.fromkeys(ids, f"the reply says {said!r}")
    return unsure


def _left_out_in_sentence(
    sentence: str,
    missing: Mapping[int, str],
    things: Sequence[str],
    *,
    is_before: bool,
    is_thinking: bool,
) -> list[int]:
    with_boxed = things_marked(with_whole_negations(sentence), things)
    # A phrase with a box becomes _BOXED in the sentence, and one without becomes THING.
    with_boxed = heads_marked(with_boxed, things).replace(THING, _BOXED)
    marked = _missing_marked(with_boxed, list(missing.values()), things)
    clauses = list(_CLAUSE.split(marked))
    if any(map(_says_absent, clauses)):
        return []  # "There is no fork."
    named: list[int] = []
    if THING in marked:
        for own_id, phrase in missing.items():
            if THING in _missing_marked(with_boxed, [phrase], things):
                named.append(own_id)
    if any(map(_says_left_out, clauses)):
        return named or list(missing)  # "some were left out" may mean any
    if is_thinking:
        return []  # a model names phrases while it looks for them
    if is_before and _repeats_question(marked, names_all=len(named) == len(missing)):
        return []
    return named  # "The fork is next to the plate."


def _repeats_question(marked: str, *, names_all: bool) -> bool:
    """Whether a sentence before the answer only lists what was asked for."""
    lists_all = names_all and _BOXED in marked  # "I look for a cup, a plate and a fork"
    are_names_alone = all(word in (THING, _BOXED) or word.isdigit() for word in words_of(marked))
    return lists_all or are_names_alone  # the latter for "1. fork" on a line of its own


def _missing_marked(text: str, phrases: Sequence[str], things: Sequence[str]) -> str:
    """Mark "a fork", too, where "the silver fork" is one of the phrases."""
    text = things_marked(text, phrases)
    heads = {head_of(phrase) for phrase in phrases}
    # where another fork has a box, it isn't known which of them "a fork" is
    heads_with_box = {head_of(thing) for thing in things}
    for head in heads - heads_with_box - {""}:
        word = head
        if head.isascii():
            word = rf"\b(?:(?:the|an?|any) )?{re.escape(head)}(?:e?s)?\b"
        text = re.sub(word, f" {THING} ", text, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", text)


def _says_absent(clause: str) -> bool:
    if pattern_listed("no_denial").search(clause) is not None:
        return False  # "THING is not clearly visible"
    return pattern_listed("absence").search(clause) is not None


def _says_left_out(clause: str) -> bool:
    if pattern_listed("cut_short").search(clause) is not None:
        return True
    # "The handle of the cup was left out of its box" leaves out no phrase.
    return _BOXED not in clause and pattern_listed("left_out").search(clause) is not None


def hedges_in(text: str, phrases: Mapping[int, str], missing: Mapping[int, str]) -> dict[int, str]:
    """Return the ids of phrases that a text isn't sure of, each with the words that say so."""
    doubts: dict[int, str] = {}
    if pattern_listed("hedged").search(text) is None:
        return doubts
    for sentence in _SENTENCE.split(unicodedata.normalize("NFKC", text)):
        found = pattern_listed("hedged").search(sentence)
        if found is None:
            continue
        texts = list(phrases.values())
        names_missing = THING in _missing_marked(sentence, list(missing.values()), texts)
        is_of_only_phrase = len(phrases) == 1 and not names_missing  # "I'm not sure."
        ids_by_number = _numbered(sentence, phrases)  # "The second box is a guess."
        for own_id, phrase in phrases.items():
            is_named = THING in heads_marked(things_marked(sentence, [phrase]), [phrase])
            if is_named or own_id in ids_by_number or is_of_only_phrase:
                doubts[own_id] = f"the reply isn't sure of it: {found[0].strip()!r}"
    return doubts


def _numbered(sentence: str, phrases: Mapping[int, str]) -> list[int]:
    """The phrases of "the second box", "box 2" and "the boxes"."""
    if re.search(r"\bthe boxes\b", sentence, re.IGNORECASE):
        return list(phrases)
    ids: list[int] = []
    for found in _BY_NUMBER.finditer(sentence.casefold()):
        ids += _at_number(found, phrases)
    return ids


def _at_number(found: re.Match[str], phrases: Mapping[int, str]) -> list[int]:
    """The phrase of "box 2" or "the second one": boxes are in the phrases' order."""
    number = int(found["number"] or _ORDINALS.index(found["ordinal"]) + 1)
    return list(phrases)[number - 1 : number]  # none for "box 9" of five


def other_names_in(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return the phrases that a text calls another thing: "id 2 is a spoon" for a fork."""
    doubts: dict[int, str] = {}
    for sentence in _SENTENCE.split(unicodedata.normalize("NFKC", text).casefold()):
        for own_id, what in _names_in_sentence(sentence, phrases):
            # "the left one" names no thing, and more than four words aren't only a name.
            names_none = all(is_neutral(word) or tells_apart(word) for word in words_of(what))
            is_name = not names_none and len(what.split()) <= 4
            if is_name and not is_like(what, phrases[own_id]):
                doubts[own_id] = f"the model calls it {what[:60]!r}"
    return doubts


def _names_in_sentence(sentence: str, phrases: Mapping[int, str]) -> Iterator[tuple[int, str]]:
    """What a sentence calls a phrase's thing, with the phrase's id."""
    by_id = _NAMED_BY_ID.search(sentence)  # "id 2 is a spoon"
    if by_id is not None and int(by_id["id"]) in phrases:
        yield int(by_id["id"]), by_id["what"]
    by_number = _NAMED_BY_NUMBER.search(sentence)  # "the second one shows a wolf"
    if by_number is not None:
        for own_id in _at_number(by_number, phrases):
            yield own_id, by_number["what"]
    alone = _NAMED_ALONE.fullmatch(sentence)  # "it is a spoon"
    if alone is not None and len(phrases) == 1:
        yield next(iter(phrases)), alone["what"]
    for own_id, phrase in phrases.items():
        others = [other for other in phrases.values() if other != phrase]
        for name in _names_next_to(phrase, others, sentence):
            yield own_id, name


def _names_next_to(phrase: str, others: Sequence[str], sentence: str) -> Iterator[str]:
    """What a sentence that names a phrase says its thing is instead."""
    marked = heads_marked(things_marked(sentence, [phrase]), [phrase])
    color = _COLOR_SAID.search(marked)  # "The red cup is blue."
    if color is not None and color["what"] in kind_of_words("color"):
        said = f"{color['what']} {head_of(phrase)}"
        if contradicts(said, phrase):
            yield said
    by_name = _NAMED_BY_NAME.search(marked)  # "The dog is a toy.", "The cup is the plate."
    if by_name is not None:
        what = by_name["what"]
        is_likeness = not words_listed("likeness").isdisjoint(words_of(what))
        if is_likeness or any(is_like(what, other) for other in others):
            yield what


def thought_against(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return the phrases with a box that a model's thinking denies, by their ids, with why."""
    plain = with_whole_negations(unicodedata.normalize("NFKC", text[:_LONGEST_WORDS]))
    if pattern_listed("invented").search(plain) is not None:
        return dict.fromkeys(phrases, "the model's thinking says that it is invented")
    doubts: dict[int, str] = {}
    for own_id, phrase in phrases.items():
        marked = heads_marked(things_marked(plain, [phrase]), [phrase])
        # The last sentence that names it counts: the model may have changed its mind.
        sentences = [sentence for sentence in _SENTENCE.split(marked) if THING in sentence]
        clauses_of_last = _CLAUSE.split(sentences[-1]) if sentences else []
        if any(_denies_thing(clause, [phrase]) for clause in clauses_of_last):
            doubts[own_id] = "the model's thinking says that it isn't there"
    return doubts


def denials_in(text: str, phrases: Mapping[int, str]) -> dict[int, str]:
    """Return all phrases, with why, if a text in another language than English denies anything."""
    for sentence in _SENTENCE.split(with_whole_negations(unicodedata.normalize("NFKC", text))):
        denial = pattern_listed("denied_abroad").search(sentence)
        if denial is not None and pattern_listed("denies_others").search(sentence) is None:
            # nobody knows which phrase it denies
            return dict.fromkeys(phrases, f"the reply says {' '.join(sentence.split())[:80]!r}")
    return {}


def with_its_thing(text: str, phrase: str) -> str:
    """Return a text in an item as a sentence: "not in the picture" says so of the item's phrase."""
    return f"{phrase} {text}" if _DENIAL.match(text.strip()) else text


def is_plain(text: str, things: Sequence[str], *, is_of_one: bool) -> bool:
    """Whether a text isn't worth a remark: all its words are neutral, or name a thing."""
    words = words_of(text)
    is_description = is_of_one and len(text.split()) > 3  # of the thing of one box
    if is_description:
        has_odd_word = not words_listed("odd").isdisjoint(words)  # "similar", "supposed"
        return not has_odd_word and turning_word(text, " ".join(things)) is None
    words_of_things = {word for thing in things for word in words_of(thing)}
    return all(is_neutral(word) or word in words_of_things for word in words)


def _clauses(text: str) -> Iterator[str]:
    for sentence in _SENTENCE.split(text):
        yield from _CLAUSE.split(sentence)


def _denies_thing(clause: str, things: Sequence[str]) -> bool:
    clause = re.sub(r"\s+", " ", clause)
    if pattern_listed("no_denial").search(clause) is not None:
        return False  # "THING is not fully visible"
    if _NO_THING.search(clause) is not None:
        return True  # "there is no THING"
    denial = _THING_IS_NOT.search(clause)
    if denial is None:
        return False
    word_after_not = denial["what"]
    if word_after_not is None or word_after_not in words_listed("denied"):
        return True  # "THING is absent", "THING is not visible"
    # "THING is not a cup" denies the box of a cup; "THING is not smiling" denies none.
    words_of_things = {word for thing in things for word in words_of(thing)}
    return singular(word_after_not) in words_of_things
