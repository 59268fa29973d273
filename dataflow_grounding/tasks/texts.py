"""Texts of replies that become data: captions, descriptions, expressions.

A model that has no text to give may write a refusal, a word such as "N/A", or the placeholder of
the form that it was asked for. What does so is listed here; any other text is one.
"""

import re

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.labels import folded
from dataflow_grounding.replies.nothing import says_none
from dataflow_grounding.replies.refusals import beginning_of, is_refusal

# In place of a text, besides the words for none in grammar.yaml.
_PLACEHOLDER = lazy_pattern(
    r"string|placeholder|tbd|todo|nil|nan|n\.a|not applicable|undefined|unspecified|invalid|correct"
    r"|(?:unknown|unclear|unidentified|ambiguous)(?: (?:object|item|thing|type|colou?r))?"
    r"|no (?:text|caption|description|expression|answer|object|changes?(?: needed)?)|unchanged"
    r"|delete|remove|(?:same )?as (?:above|before)|same|未知|不明|不详|同上"
)
# "<caption>", "[your text here]", but not "[a red car]"
_IN_BRACKETS = lazy_pattern(
    r"[<\[{]+(?:(?:an?|the|your|insert|short|region|image)[\s_]+)*"
    r"(?:caption|text|description|expression|phrase|label|object|string|redacted)s?"
    r"(?:[\s_]+(?:goes here|here|\d+))?[>\]}]+",
    re.IGNORECASE,
)
_IN_REGION = lazy_pattern(
    r"\b(?:in|inside|within) (?:the|this|that) (?:\w+ )?(?:region|box|area|crop)\b", re.IGNORECASE
)
_REGION_ALONE = lazy_pattern(r"(?:the )?(?:region|box|object)[\s_#]*\d{1,4}", re.IGNORECASE)
_BOX = lazy_pattern(r"\[\s*\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?){3}\s*\]")

# A sentence that denies a thing or speaks of the expression, and an edit; a phrase is none of them.
_NO_PHRASE = lazy_pattern(
    r"there (?:is|are) (?:no|not|nothing)\b|(?:图|图片|图像|画面)中没有(?!.*的)"
    r"|no (?!.*\b(?:sign|logo|symbol)s?\b).+ (?:visible|found|present|here|detected|seen|shown)\.?$"
    r"|(?:the |this )?expression (?:is|should|does|needs|must|matches|fits|already)\b"
    r"|(?:remove|delete|drop|keep) (?:the|this) expression\b"
    r"|(?:corrected|correction|changed to|should be)\b[^:]{0,20}:"
    r"|.*\w.*(?:->|→).*\w|.*\((?:was|formerly)\b"
)

_BOLD = lazy_pattern(r"\*\*(?=\S)([^*]+)(?<=\S)\*\*")
# "1. the red car", but not "1. FC Köln" or "2. person from the left"
_LIST_MARK = lazy_pattern(r"(?:[-*•]|\d{1,2}[.)]) +(?=(?:an?|the) )", re.IGNORECASE)
_REGION_NAMED = lazy_pattern(
    r" ?[(\[](?:regions?|region_ids?)[ :#]*\d+(?:(?:,| and) ?\d+)*[)\]]", re.IGNORECASE
)


def is_no_text(text: str) -> bool:
    """Whether a text says nothing of a picture, such as a placeholder or a refusal."""
    if not any(sign.isalnum() for sign in text):
        return True
    if _PLACEHOLDER.fullmatch(folded(text)) or _IN_BRACKETS.fullmatch(text):
        return True
    if _REGION_ALONE.fullmatch(text) or strict_json(text) is not None:
        return True
    return is_refusal(text) or says_none(_IN_REGION.sub("in this image", text), ())


def is_no_phrase(text: str) -> bool:
    """Whether a text is no phrase to train on. A box in it gives the answer away."""
    if is_no_text(text) or _BOX.search(text):
        return True
    return _NO_PHRASE.match(beginning_of(text)) is not None


def without_markup(text: str) -> str:
    """Return "the red car" of "1. **the red car** (region 2)"."""
    plain = _BOLD.sub(r"\1", text)
    list_mark = _LIST_MARK.match(plain)
    if list_mark is not None:
        plain = plain[list_mark.end() :]
    return _REGION_NAMED.sub("", plain).strip()
