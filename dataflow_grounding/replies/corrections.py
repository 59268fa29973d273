"""Where a reply corrects itself: "Wait, looking again …" and then other boxes."""

from __future__ import annotations

import re

from dataflow_grounding.errors import UnreadableReply

MOST = 50

_RE = (
    r"re-?(?:check|examin|consider|evaluat|assess|view|think|fin|vis|do|calibrat|measur|adjust|look|locat|estimat|verif|analy[sz]|"
    r"count|inspect)(?:e|es|ed|ing|ion|ation|y|ying)?\b"
)
_CUE = re.compile(
    r"(?=[a-z])(?<![\w'’\"“,:={\[<])(?:"
    r"(?:oh |oops,? |no,? |but |and )?"
    r"(?:wait|hold on|hang on|hmm+|scratch that|on second thoughts?|correction|my (?:mistake|apologies|bad)|apologies|oops)\b"
    r"|(?:actually|sorry|no|rather)\s*[,:—–-]|i (?:made|see) (?:a|my|an) (?:mistake|error)"
    r"|(?:looking|look|checking|examining|inspecting|thinking|reading)"
    r" (?:again|closer|more closely|more carefully|at it again|twice)"
    rf"|(?:let me|let['’]s|i(?:['’]ll| will| should| need to))"
    rf" (?:{_RE}|correct|fix|adjust|double[- ]check|look (?:again|closer)|check again|verify|try again)"
    rf"|(?:up)?on (?:closer|further|second|{_RE})|after (?:a closer|double|looking|verif|{_RE})|double-?checking|{_RE}"
    r"|(?:here (?:is|are) )?(?:the |my )?"
    r"(?:corrected|revised|refined|updated|adjusted|improved|final|correct|better)(?: \w+){0,2}? "
    r"(?:answer|boxe?s?|bboxe?s?|coordinates?|results?|output|detections?|versions?|positions?|json|list|one)\b"
    r"|(?:corrected|revised|refined|updated|final)\s*[:：]"
    r"|(?:(?<=\n)|(?<=\n\*\*)|(?<=\n# )|(?<=\n## )|(?<=\n### ))(?:answer|conclusion|result)\*{0,2}\s*[:：\n]"
    r"|(?:therefore|thus|hence|in (?:conclusion|summary)|to (?:conclude|summarize))\b"
    r"|so,? (?:the|my) (?:\w+ ){0,2}?(?:boxe?s?|bboxe?s?|answers?|coordinates)\b"
    r"|that(?:['’]s| is| was) (?:wrong|incorrect|not (?:right|correct|it))"
    r")"
    r"|(?=[^\x00-\x7f])(?:(?<=\n)(?:答案|回答)[:：]|等等|等一下|等下|不对|不，|更正|修正|纠正|重新(?:检查|看|审视|确认|考虑|观察|定位|标注)"
    r"|再(?:看|检查|确认|仔细)|仔细(?:看|检查|观察)|最终(?:答案|结果|坐标)|实际上|其实|应该是|修改后|更准确|因此|所以|综上"
    r"|подожди|исправ|на самом деле|待って|訂正|修正|いや、|もう一度|잠깐|수정|다시)"
    r"|(?=[acegikmnr])\b(?:espera|corrección|en realidad|moment mal|korrektur|genauer betrachtet|attendez?|en fait|rectification"
    r"|correção|na verdade|aspetta|correzione|in realtà)\b",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"\b(?:another|also|additional(?:ly)?|one more|as well|in addition|furthermore|moreover|remaining"
    r"|missed (?:one|some|another))\b|另(?:外|一)|还有|也(?!许)|以及|同样",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:not|no|wrong|incorrect|mistaken?|error|nothing|never|isn['’]?t|wasn['’]?t|aren['’]?t|doesn['’]?t|don['’]?t|can['’]?t|cannot|disregard|ignore|discard)\b|不|没|错",
    re.IGNORECASE,
)
# What comes right before a box that doesn't count.
_DENIED = re.compile(
    r"(?:\b(?:for example|for instance|e\.g\.|such as|example|not|no longer|never|neither|nor)|n[’']t|比如|例如|不在|不是)"
    r"(?:\s+(?:at|in|on|the|box|a))*[\s,:：`(]*$"
    r"|\b(?:examples?|excluded|ignored|rejected|discarded|removed|not included)\b[^.,!?\n\d]{0,60}(?:\n[^.!?\n\d]{0,60})?$"
    r"|(?:示例|排除)[^。\n]{0,20}[:：]?\s*$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d")


def statements(text: str) -> list[tuple[str, str]]:
    """Return a text cut where it corrects itself: those words and what follows. Raises UnreadableReply for circles."""
    cuts = [(0, 0)]  # where each part begins, and its words of correction end
    number = _NUMBER.search(text)
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
        number = _NUMBER.search(text, cue.start())
        if len(cuts) > MOST:
            raise UnreadableReply(f"the reply corrects itself more than {MOST} times")
    starts = [start for start, _ in cuts[1:]]
    return [(text[start:at], text[at:end]) for (start, at), end in zip(cuts, [*starts, len(text)], strict=True)]


def adds(talk: str) -> bool:
    """Whether talk before a box says that it comes beside those before it, and not instead of them."""
    return _MORE.search(talk) is not None


def denies(talk: str) -> bool:
    """Whether the words right before a box say that it is an example, or not the thing's."""
    return _DENIED.search(talk[-160:]) is not None


def takes_back(talk: str) -> bool:
    """Whether talk that gives no box says that what was said before is not so."""
    return _TAKEN_BACK.search(talk) is not None


def before_numbers(text: str) -> str:
    """Return the talk of a text before its first number."""
    match = _NUMBER.search(text)
    return text[: match.start()] if match else text
