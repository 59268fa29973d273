"""How replies begin that refuse to help, or say that no picture came.

The list is closed: a row needs a published reply.
"""

import re

from dataflow_grounding._util.errors import RecordError, RequestRefused, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.labels import with_whole_negations

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
# How a refusal begins, and what is said where no picture came. `beginning_of` was applied.
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
_NO_HELP = lazy_pattern(
    r"\b(?:(?:can|could|will) not (?:\w+ly )?|(?:unable|not able) to )(?:help|assist|comply|fulfil)"
)
_NO_PICTURE = lazy_pattern(
    rf"(?<!in )\b(?:the|an?|any|your|this|no) {_IMAGE}\b|看(?:到|见|不到)?(?:图|照)"
)


def is_refusal(text: str) -> bool:
    """Whether a text begins as models do that refuse to help, or that were shown no picture."""
    return _REFUSAL.match(beginning_of(text)) is not None


def refusal_of(text: str) -> RecordError:
    """Return the error of a refusal; asking again changes none that refuses to help at all."""
    begins = " ".join(text[:200].split())[:60]
    message = f"the model refuses to answer: {begins!r}"
    if _NO_HELP.search(beginning_of(text)) is not None:
        return RequestRefused(message)
    return UnreadableReply(message, "refusal")


def saw_no_picture(text: str) -> bool:
    """Whether a text begins as "I can't see the image", and not as "I can't see a dog"."""
    return is_refusal(text) and _NO_PICTURE.search(text.casefold()) is not None


def beginning_of(text: str) -> str:
    """The beginning of a text, with "i am" for "I'm" and "there is" for "there's"."""
    plain = with_whole_negations(text[:_LONGEST_BEGINNING])
    return re.sub(r"\bi'm\b", "i am", plain).replace("there's", "there is")
