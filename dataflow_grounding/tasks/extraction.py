"""The task `expression_extraction`: which phrases of a caption name things in the picture."""

from difflib import SequenceMatcher
from functools import partial
from typing import NamedTuple

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.english.nouns import ARTICLES
from dataflow_grounding.english.spans import clean_caption
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.request import (
    STRING,
    Request,
    is_cut_off,
    list_of,
    object_of,
    request_about,
)
from dataflow_grounding.tasks.texts import is_no_text

# A word, or a letter of a script without blanks between words.
_WORD = lazy_pattern(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
# Spellings of one word are more alike: "bleu" and "blue" are 0.75, "red" and "green" 0.5.
_ANOTHER_WORD = 0.5


class ExtractedExpression(NamedTuple):
    """An expression in a caption; the model may name no noun chunk."""

    text: str
    noun_chunk: str | None


class Extracted(NamedTuple):
    """The expressions in a caption."""

    cleaned_caption: str  # by the model, else by `clean_caption`
    expressions: list[ExtractedExpression]


def expression_extraction(image: Image, caption: str) -> Request[Extracted]:
    """Make the request for the cleaned caption and the referring expressions in it."""
    schema = object_of(
        cleaned_caption=STRING, expressions=list_of(object_of(text=STRING, noun_chunk=STRING))
    )
    read = partial(_read_extracted, caption=caption)
    return request_about("expression_extraction", image, {"caption": caption}, schema, read)


def _read_extracted(reply: str, caption: str) -> tuple[Extracted, list[Note]]:
    data, notes = read_object(reply, required="expressions")
    items = data["expressions"]
    if not isinstance(items, list):
        raise UnreadableReply('"expressions" is not a list.')
    # An expression that was cut off would never be looked for. But in `{"expressions": [{"text":
    # "a dog"}]` only the last brace is missing.
    lacks_only_brace = reply.rstrip().endswith("]")
    if is_cut_off(notes) and not lacks_only_brace:
        raise TruncatedReply("the reply is cut off in the middle of its expressions.")
    cleaned_caption = _said(data.get("cleaned_caption"))
    why_not = _why_not_cleaned(cleaned_caption, caption)
    if why_not is not None:
        notes.append(why_not)
        cleaned_caption = clean_caption(caption)
    expressions: list[ExtractedExpression] = []
    for item in items:
        text = text_of(item)
        if not text:
            notes.append(Note("dropped", "an expression without text"))
            continue
        noun_chunk = _said(item.get("noun_chunk")) if isinstance(item, dict) else ""
        expressions.append(ExtractedExpression(text, noun_chunk or None))
    if items and not expressions:
        raise UnreadableReply('no item of "expressions" has a "text".')
    return Extracted(cleaned_caption, expressions), notes


def text_of(item: object) -> str:
    """Return the text of an item of "expressions", which may be the text alone; "" without one."""
    return _said(item.get("text") if isinstance(item, dict) else item)


def _said(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return "" if is_no_text(text) else text


def _why_not_cleaned(cleaned: str, caption: str) -> Note | None:
    if not cleaned:
        return Note("no_cleaned_caption")
    if not _is_cleaned(cleaned, caption):
        return Note("no_cleaned_caption", "its words are others than the caption's")
    return None


def _is_cleaned(cleaned: str, caption: str) -> bool:
    """Whether a text is the caption, mended: "bleu" may become "blue", but "red" not "green"."""
    # Measured: of 4,046 captions of Flickr8k with slips in a fifth of their words, this refuses
    # one; of 11,265 with another color in the text, it takes none.
    before = _words(caption)
    after = _words(cleaned)
    if len(after) > 2 * len(before):  # too many were added; to compare them would take long
        return False
    added: list[str] = []
    for kind, start, end, new_start, new_end in SequenceMatcher(None, before, after).get_opcodes():
        old = "".join(before[start:end])
        new = "".join(after[new_start:new_end])
        if kind == "replace" and SequenceMatcher(None, old, new).ratio() <= _ANOTHER_WORD:
            return False
        if kind == "insert":
            added += after[new_start:new_end]
    return 2 * len(added) <= len(before)


def _words(text: str) -> list[str]:
    words: list[str] = _WORD.findall(clean_caption(text).casefold())
    return [word for word in words if word not in ARTICLES]
