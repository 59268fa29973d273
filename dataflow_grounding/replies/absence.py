"""Whether a reply says a thing is not there, or refuses to look: patterns of such sentences, and reading by them."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.replies.labels import all_words, head_word, matching_ids
from dataflow_grounding.replies.vocabulary import WORDINGS

_IMAGE = r"(?:image|picture|photo(?:graph)?|scene|frame|view|screenshot|shot|figure|footage|screen|video)s?"
_PLACE = (
    rf"(?:\s+(?:in|on|within|from|inside|at)\s+(?:the|this|that|your|either)\s+(?:\w+\s+){{0,2}}?{_IMAGE}"
    r"|\s+(?:here|at all|currently|anywhere))*"
)
_SEEN = (
    r"(?:to be\s+)?(?:currently\s+|actually\s+)?(?:found|detected|present|visible|there|seen|identified|located"
    rf"|depicted|shown|recogni[sz]ed|spotted|observed|available|in\s+(?:the|this)\s+(?:\w+\s+)?{_IMAGE})"
)
_NOT = r"(?:n['’]?t|\s+not|\s+never)"
_CANNOT = r"can(?:not|['’]?t|\s+not)"
_THING = r"(?P<thing>[^.!?\n]{1,120}?)"
_IS = r"(?:is|are|was|were)"

_ZH_PLACE = r"(?:这张|该|此|这幅|给定的?|所给的?|提供的)?(?:图片|图像|图|画面|照片|场景)(?:之?[中里内上])?"
_LATIN_PLACE = (
    r"(?:\s+(?:en|na|no|nell['’]|nella|dans|sur|auf|im|in)\s*(?:l['’]|la|el|esta|questa|cette|dem|diesem)?\s*"
    r"(?:imagen|imagem|immagine|image|photo|foto\w*|bild))?"
)


def _compiled(patterns: list[str]) -> list[re.Pattern[str]]:
    named = (re.sub("<<([A-Z_]+)>>", lambda name: globals()[f"_{name[1]}"], pattern) for pattern in patterns)
    return [re.compile(pattern.replace("\n", ""), re.IGNORECASE) for pattern in named]


_ENGLISH, _OTHER_LANGUAGES = _compiled(WORDINGS["english"]), _compiled(WORDINGS["other_languages"])

# A whole reply, or what stands for a box.
_WORDS = re.compile(
    rf"none|null|nil|n/?a|nothing|absent|empty|not in (?:the|this) {_IMAGE}"
    rf"|not (?:found|present|visible|there|detected|applicable|seen|available|shown)(?: in (?:the|this) {_IMAGE})?"
    r"|無|无|没有|沒有|空|不存在|不可见|未找到|没有找到|没找到|未检测到|未发现|なし|該当なし|없음|нет"
    r"|ningun[oa]|nada|keine[rs]?|nichts|aucune?|rien|nenhuma?|nessun[oa]|niente",
    re.IGNORECASE,
)
# One of these is in each of the above: most texts are done with after this look.
_NEGATION = re.compile(
    r"\bn(?:o|on|ot|one|othing|either|il|/?a|ull|ada|ichts|iente)\b|n['’]?t\b|cannot|\bunable\b|\bzero\b|\b0\b|absent"
    r"|missing|empty|\bn[ãa]o\b|ning[uú]n|kein|\bnicht\b|aucun|\brien\b|nenhum|nessun|\bn['’]|\bne\b|[无無没沒未不空]|ません|なし|없"
    r"|않|\bне\b|нет|отсутств",
    re.IGNORECASE,
)
# What comes before such a sentence without changing it.
_PREAMBLE = re.compile(
    r"(?:(?:i(?:['’]m| am) sorry|sorry|unfortunately|apologies|based on|after|upon|in (?:this|the)"
    r"|it (?:seems|appears|looks like)|looking|as far as|ok(?:ay)?|wait|actually|hmm+|no"
    r"|on second thoughts?|i (?:have )?(?:looked|searched|checked))\b"
    r"[^.!?\n]{0,80}?(?:,|…|\.\.\.|\bthat\b|\bbut\b)\s*(?:but\s+|and\s+)?)+",
    re.IGNORECASE,
)
_CAPTION = re.compile(
    r"(?:the |my )?(?:final )?(?:answer|output|results?|response|答案|结果|输出)(?:\s*[:：=]\s*|\s+is\s+)",
    re.IGNORECASE,
)
# Words that name no thing, before a thing and instead of one.
_LEADING = re.compile(
    r"(?:(?:any|such|matching|relevant|visible|target|the|this|that|both|an?|of|these|those|specified|requested"
    r"|described|mentioned|given|listed|corresponding|bounding|detected|queried"
    r"|instances? of|signs? of|traces? of)\s+)*",
    re.IGNORECASE,
)
_ANYTHING = re.compile(
    r"(?:(?:objects?|things?|items?|targets?|instances?|detections?|match(?:es)?|results?|box(?:es)?|entit(?:y|ies)"
    r"|phrases?|elements?|anything|ones?|them|it|this|that|regions?|subjects?|expressions?"
    r"|物体|对象|目标|东西|物品|结果|匹配|オブジェクト|物体|対象|객체|물체|대상|objekte?|objets?|objetos?|oggett[oi]|объект\w*)"
    r"(?:\s+(?:matching|that|corresponding|of interest|like|as|described|specified|requested|mentioned|listed"
    r"|in question|meeting)\b.*)?)?",
    re.IGNORECASE,
)
# What may be missing without any thing being absent.
_NO_THING = re.compile(
    rf"\b(?:{_IMAGE}|files?|attachments?|inputs?|uploads?|urls?|links?|problems?|worries|thanks?|issues?|ideas?|way"
    r"|access|why|wrong|permission|tools?|coordinates?|answers?|responses?|information|ability|need|doubt|comment"
    r"|longer|matter|more|other|can|i|except|only|just|but|fully|entire\w*|complete\w*|clear\w*|precise\w*|exact\w*"
    r"|good|suitable|perfect|obvious|second|third|further|additional)\b"
    r"|图片|图像|照片|文件|信息|坐标|能力|权限|问题|办法|疑问|必要|意义|足够|其他|其它|另外|别的|清晰|清楚|明显|更多|完整|第[二三]|他の|다른|друг|画像|写真|ファイル|問題|情報"
    r"|이미지|사진|파일|정보|문제|권한|수$"
    r"|\bbild\w*|\bimagen|\bimagem|\bimmagin|\bprobl[eèé]m|\bd[ou][ud]|\bdubb|изображени|фото|пробл",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    rf"(?:\b{_CANNOT}|\bunable to|\bnot able to|\bwon['’]?t|\b(?:do|will|would) not|\bdon['’]t"
    r"|\bnot (?:allowed|permitted) to)\s+(?:\w+\s+)?"
    r"(?:help|assist|provide|process|view|open|access|analy[sz]e|comply|complete|fulfil|identify|determine|give"
    r"|interpret|do (?:that|this)|have (?:the )?(?:access|ability|capability)"
    r"|(?:see|view|load|read|find)\s+(?:the|this|that|your|any|an)\s+(?:image|picture|photo|file))"
    r"|\bno (?:image|picture|photo|file)s?\b"
    r"|\b(?:image|picture|photo|file)s? (?:(?:is|was|were|are|has|have|did|does|could|can)\s?(?:n['’]?t|not)?\s)?"
    r"(?:not\s)?(?:been |be )?"
    r"(?:missing|blank|corrupt\w*|provided|attached|uploaded|load(?:ed)?|received|displayed|supported|unavailable)\b"
    r"|\b(?:attach|upload|re-?upload|provide|send|share)\s+(?:the|an?|another|your|me)\s+(?:\w+\s+){0,2}"
    r"(?:image|picture|photo|file)"
    r"|\bas an? (?:ai|large language|language|text)\b|\b(?:content|safety|usage) polic"
    r"|against (?:my|our|the) (?:polic|guideline)"
    r"|(?:无法|不能|不可以|没法)(?:查看|处理|访问|打开|分析|提供|回答|协助|帮助|满足|识别|看到图)"
    r"|(?:没有|未)(?:收到|提供|看到|上传)?(?:任何)?(?:图片|图像|照片)"
    r"|(?:图片|图像)(?:无法|未能|没有)(?:加载|显示|上传|提供)|请(?:上传|提供|发送|重新)"
    r"|作为一?个?(?:AI|人工智能|语言模型)",
    re.IGNORECASE,
)
# Beside a box: nobody looked at the picture, or the box is made up.
BLIND = re.compile(
    rf"\b(?:{_CANNOT}|unable to|not able to|(?:do not|don['’]t) have (?:the |an? )?(?:ability|capability|access)"
    r" (?:to|of))\s+(?:\w+\s+)?(?:process(?:ing)?|view(?:ing)?|open|access|analy[sz]e|see(?:ing)?|load|read|interpret"
    rf"|look at)\s+(?:\w+\s+)?{_IMAGE}\b|\bas an? (?:ai|large language|language|text)\b"
    r"|(?:无法|不能|没法)(?:查看|处理|访问|打开|看到|分析)(?:图|照片)|作为一?个?(?:AI|人工智能|语言模型)",
    re.IGNORECASE,
)
UNREAL = re.compile(
    r"\b(?:hypothetical\w*|placeholders?|dummy|made[- ]up|fictional|fictitious|fabricated|imaginary"
    r"|for (?:illustration|demonstration)|illustrative|(?:sample|example|typical) (?:output|answer|response|format"
    r"|json)|(?:only|just|merely|purely|pure|wild|random|blind) (?:an? )?(?:\w+ )?guess"
    r"|(?:will|would|['’]ll|must|have to) guess)\b|占位|假设的|虚构|示例(?:输出|格式)|随便猜",
    re.IGNORECASE,
)
# With one of these a further sentence may take back what the others say.
_CONTRAST = re.compile(
    r"\d|\b(?:but|however|although|though|instead|only|except|maybe|perhaps|possibly|might|may|could|appears?|seems?"
    r"|unless|partial\w*|likely|rather|actually|sorry|can['’]?t|cannot|unable|there\s+(?:is|are|was|were)|several|many"
    r"|multiple)\b|但|不过|然而|可能|也许|只有|除了|似乎|抱歉",
    re.IGNORECASE,
)
_AND = re.compile(r"(?:[,;/、]|\b(?:and|or|nor)\b|[和或与及])(?:\s*\b(?:and|or|nor|no|any|an?|the)\b)*", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.!?。！？；;])(?:\s+|$)|(?<=[。！？；])|\n+")
_MARKUP = " \t\r\n.,:!?\"'`*_[](){}<>|-–•#。，、：！？“”‘’「」"
_PUNCTUATION = re.compile(r"[\s(),;:–—-]+")
_NUMBERING = re.compile(r"^[^\S\n]*\d{1,3}[.)]\s+", re.MULTILINE)
_LONGEST = 600


class Missing(NamedTuple):
    """What a text says is not there: `thing` in its words, "" for anything at all; `foreign`: not in English."""

    thing: str
    foreign: bool = False

    def answers_for(self, phrases: Mapping[int, str]) -> bool:
        """Whether it answers for all of the phrases asked: it is anything, the only phrase, or each of them."""
        if not self.thing or not phrases:
            return True
        if len(phrases) == 1:
            phrase = next(iter(phrases.values()))
            if self.foreign:  # words of two languages can't be compared
                return phrase.isascii() or self.thing.isascii() or bool(all_words(phrase) & all_words(self.thing))
            return any(head_word(part) == head_word(phrase) and _covers(part, phrase) for part in self.parts)
        covered = {i for part in self.parts for i in matching_ids(part, phrases) if _covers(part, phrases[i])}
        return covered == set(phrases)

    @property
    def parts(self) -> list[str]:
        """The things, one by one."""
        return [part for part in _AND.split(self.thing) if part.strip()]


def _covers(part: str, phrase: str) -> bool:
    """Whether the lack of a thing is that of a phrase's: of a narrower thing, as "second cat", it may be any other."""
    return all_words(part) <= all_words(phrase)


def missing_in(text: str) -> Missing | None:
    """Return what a text says is not there, when it says nothing else; None for any other text."""
    text = text.strip()
    if len(text) > _LONGEST or _NEGATION.search(text) is None:
        return None
    sentences = [part for part in SENTENCE_END.split(_NUMBERING.sub("", text)) if part.strip(_MARKUP)]
    readings = [(part, _missing_in_sentence(part)) for part in sentences]
    missing = [reading for _, reading in readings if reading is not None]
    if not missing or _in_doubt(missing, [part for part, reading in readings if reading is None]):
        return None
    things = [reading.thing for reading in missing]
    return Missing(", ".join(things) if all(things) else "", any(reading.foreign for reading in missing))


def _in_doubt(missing: list[Missing], others: list[str]) -> bool:
    """Whether the other sentences of a text may take back what it misses, or speak of the same thing."""
    if others and not all(reading.thing for reading in missing):
        return True
    named = {head_word(part) for reading in missing for part in reading.parts}
    return any(_CONTRAST.search(part) or named & all_words(part) for part in others)


def says_none(text: str) -> bool:
    """Whether a text says, and only says, that something, or anything at all, is not there."""
    return missing_in(text) is not None


def missing_in_clause(text: str) -> Missing | None:
    """Return what a sentence, or a part of one, says is not there; None for any other."""
    return _missing_in_sentence(text) if len(text) <= _LONGEST and _NEGATION.search(text) else None


def denies_itself(label: str) -> bool:
    """Whether a label says that what it names is not there, as "cat (not visible)" and "no cat" do."""
    return any(missing_in_clause(text) for text in (label, _PUNCTUATION.sub(" ", label)))


def refuses(text: str) -> bool:
    """Whether a text says that the model can't or won't look: whatever else it gives is not an answer."""
    return _REFUSAL.search(text[:4000]) is not None


def _missing_in_sentence(asked: str) -> Missing | None:
    sentence = _CAPTION.sub("", asked.strip(_MARKUP), count=1).strip(_MARKUP)
    if "?" in asked or "？" in asked:
        return None
    if _WORDS.fullmatch(sentence):
        return Missing("")
    for text in dict.fromkeys((sentence, _PREAMBLE.sub("", sentence, count=1).strip(_MARKUP))):
        for group in (_OTHER_LANGUAGES, _ENGLISH):
            match = next((match for pattern in group if (match := pattern.fullmatch(text))), None)
            if match is not None:
                thing = " ".join(filter(None, match.groupdict().values())).strip(_MARKUP)
                thing = _LEADING.sub("", thing + " ", count=1).strip()
                if _NO_THING.search(thing):
                    return None
                return Missing("" if _ANYTHING.fullmatch(thing) else thing, group is _OTHER_LANGUAGES)
    return None
