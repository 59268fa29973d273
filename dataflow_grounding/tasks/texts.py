"""Texts of replies that become data: captions, descriptions, expressions.

A model that has no text to give may write a refusal, a word such as "N/A", or the placeholder of
the form that it was asked for. What does so is listed here; any other text is one.
"""

import re

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.json_text import strict_json
from dataflow_grounding.replies.words import folded, says_none, with_whole_negations

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

_LONGEST_BEGINNING = 300  # characters of a text in which a refusal or a denial begins
_IMAGE = r"(?:image|picture|photo|photograph|file|attachment)s?"
_COME = (
    r"(?:provided|attached|given|uploaded|included|received|sent|shared|found|available|accessible"
    r"|loaded?|open(?:ed)?|display(?:ed)?|viewed|accessed|processed)\b"
)
_HELP = (
    r"(?:help|assist|comply|see|view|look|identify|recogni[sz]e|determine|tell|discern|make out"
    r"|describe|caption|provide|answer|access|open|load|process|analy[sz]e|generate|read|confirm"
    r"|verify|find|locate|detect|distinguish|name|fulfil|do (?:that|this))"
)
# How a refusal begins, and what is said where no picture came. `_with_whole_words` was applied.
_REFUSALS = (
    r"i am (?:very |so |really |truly )?sorry(?:[,.;:!–—-]|$| (?:but|that|for)\b)",
    r"i apologi[sz]e\b|(?:my )?apologies(?:[,.;:!–—-]| (?:but|for)\b)",
    r"as (?:an ai|a (?:large )?language model|a text-based)\b|as i am not\b",
    rf"(?:i )?(?:can|could) not (?:\w+ly )?{_HELP}|i will not {_HELP}|i must decline\b",
    rf"i (?:am|was) (?:not able|unable) to\b|(?:not able|unable) to {_HELP}",
    r"i am not (?:allowed|permitted|comfortable|sure what|designed)\b",
    r"i (?:do|did) not (?:see|have|find|receive|know|recogni[sz]e|feel comfortable)\b",
    r"i (?:have|see|received) no (?:access|information|image|picture|photo|idea|way)\b",
    rf"(?:there (?:is|was) )?no {_IMAGE} (?:(?:was|is|were|has been) )?{_COME}",
    rf"(?:the|this|your) {_IMAGE} (?:can|could|was|is|did|has|does|were) not (?:be |been )?{_COME}",
    rf"(?:the|this|your) {_IMAGE} failed to\b|error ?:",
    rf"please (?:provide|upload|attach|share|send) (?:an?|the|your) (?:\w+ )?{_IMAGE}\b",
    r"it (?:seems|looks|appears) (?:like |that )*your (?:message|request|image)\b",
    r"(?:很|非常)?(?:抱歉|对不起|不好意思)[，,。！! ]*但?(?:我|无法|不能|图|照|该|这|没有)",
    r"我?(?:暂时)?(?:无法|不能|未能)(?:直接)?(?:查看|看到|看见|识别|确定|描述|提供|访问|打开|加载)",
    r"我(?:看不到|看不见|没有(?:看到|收到))|(?:没有|未)(?:提供|收到|上传)(?:任何)?(?:图|照)",
    r"(?:图片|图像|照片)(?:无法|未能|不能)(?:加载|显示|查看|打开)|请(?:重新)?(?:提供|上传)",
    r"(?:es )?tut mir leid|ich kann (?:\w+ ){0,4}nicht\b|lo siento|no puedo\b|mi dispiace",
    r"(?:je suis )?désolée?(?:,| mais)|je ne (?:peux|vois|parviens)\b|non (?:posso|riesco)\b",
    r"desculpe,|não (?:posso|consigo)\b|извините|к сожалению, я|я не (?:могу|вижу)|申し訳|죄송",
)
# At the beginning alone: further on, it is next to a text ("A man at a desk. I can't identify
# him."), and after a quotation mark it is what a sign says.
_REFUSAL = lazy_pattern(
    r"[^\w\"'“”‘«»「」『』`]*(?:(?:sorry|unfortunately|regrettably|however)\b[,.!:;]? (?:but )?)?"
    rf"(?:{'|'.join(_REFUSALS)})"
)
_NO_PICTURE = lazy_pattern(
    rf"(?<!in )\b(?:the|an?|any|your|this|no) {_IMAGE}\b|看(?:到|见|不到)?(?:图|照)"
)
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
    return _NO_PHRASE.match(_with_whole_words(text)) is not None


def is_refusal(text: str) -> bool:
    """Whether a text begins as models do that refuse to help, or that were shown no picture."""
    return _REFUSAL.match(_with_whole_words(text)) is not None


def saw_no_picture(text: str) -> bool:
    """Whether a text begins as "I can't see the image", and not as "I can't see a dog"."""
    return is_refusal(text) and _NO_PICTURE.search(text.casefold()) is not None


def without_markup(text: str) -> str:
    """Return "the red car" of "1. **the red car** (region 2)"."""
    plain = _BOLD.sub(r"\1", text)
    list_mark = _LIST_MARK.match(plain)
    if list_mark is not None:
        plain = plain[list_mark.end() :]
    return _REGION_NAMED.sub("", plain).strip()


def _with_whole_words(text: str) -> str:
    """The beginning of a text, with "i am" for "I'm" and "there is" for "there's"."""
    plain = with_whole_negations(text[:_LONGEST_BEGINNING])
    return re.sub(r"\bi'm\b", "i am", plain).replace("there's", "there is")
