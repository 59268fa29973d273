"""What the rest of a reply says against its boxes, or against having none.

Most replies are boxes and nothing else, and need none of this.
"""

from collections.abc import Mapping

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies._pictures import SEVERAL_PICTURES
from dataflow_grounding.replies._questions import KeptBox, Questions
from dataflow_grounding.replies._talk import affirmation_in, denial_in
from dataflow_grounding.replies.reading import Details, ParsedReply


def check_pictures(parsed: ParsedReply) -> None:
    """Refuse a reply whose boxes may be those of a crop, or of several pictures.

    Raises:
        UnreadableReply: The boxes may be; the message is why.
    """
    if parsed.elsewhere is not None:  # says why
        raise UnreadableReply(parsed.elsewhere)
    if len(parsed.pictures) > 1:
        raise UnreadableReply(SEVERAL_PICTURES)


def check_talk(parsed: ParsedReply, boxes: list[KeptBox], phrases: Mapping[int, str]) -> None:
    """Refuse a reply in which the words beside an answer's boxes take these back.

    Args:
        parsed: The reply.
        boxes: Those of its boxes that count.
        phrases: The request's phrases by id; without any, a box's label is its thing.

    Raises:
        UnreadableReply: Some words do.
    """
    without_box = phrases.keys() - {box.box.id for box in boxes}
    things_by_answer: dict[int, dict[int, str]] = {}
    for box, answer, _ in boxes:
        thing_id = box.id or 0
        thing = phrases.get(thing_id, box.label or "")
        things_by_answer.setdefault(answer, {})[thing_id] = thing
    for talk in parsed.talk:
        things = things_by_answer.get(talk.answer)
        if things is None:
            continue
        words = denial_in(talk, things, others=bool(without_box))
        if words is not None:
            raise UnreadableReply(f"the reply gives boxes and takes them back: {_shown(words)}")


def check_none(parsed: ParsedReply, questions: Questions, zeros: list[Details]) -> None:
    """Refuse a reply without usable boxes that doesn't say that nothing is there.

    Args:
        parsed: The reply.
        questions: Its request's questions.
        zeros: The details of boxes of zeros, which say that nothing is there.

    Raises:
        UnreadableReply: It doesn't say so of every phrase, or has boxes that can't be used.
        TruncatedReply: It is cut off before it could say so.
    """
    if parsed.truncated:
        raise TruncatedReply("the reply is cut off before its first complete box")
    if parsed.dropped:
        raise UnreadableReply(f"no box of the reply can be used: {parsed.dropped[0].reason}")
    if parsed.missing is None:
        _check_words_beside_none(parsed, questions.phrases)
        absences = [details for details, _ in parsed.absences]
        _check_all_absent([*absences, *zeros], questions)
    elif not parsed.missing.answers_for(questions.phrases):
        raise UnreadableReply(
            f"the reply says only that {parsed.missing.thing[:60]!r} is not there"
        )


def _check_words_beside_none(parsed: ParsedReply, phrases: Mapping[int, str]) -> None:
    """Refuse a reply without a box in which words of its last answer say that a thing is there.

    Raises:
        UnreadableReply: Some words do.
    """
    for talk in parsed.talk:
        if talk.answer != parsed.answer:
            continue
        words = affirmation_in(talk.text, phrases)
        if words is not None:
            raise UnreadableReply(f"the reply has no box, and says {_shown(words)}")


def _check_all_absent(absences: list[Details], questions: Questions) -> None:
    """Refuse a reply that doesn't call every phrase absent, by empty lists or boxes of zeros.

    A request without phrases passes.

    Raises:
        UnreadableReply: A phrase is not among the absences.
    """
    unanswered = set(questions.phrases) - questions.ids_of_absences(absences)
    if unanswered:
        raise UnreadableReply(
            f"the reply has no box, and doesn't say that phrase {min(unanswered)} is not there"
        )


def _shown(words: str) -> str:
    """Return words as a message shows them: on one line, the first of them, in quotation marks."""
    return repr(" ".join(words.split())[:60])
