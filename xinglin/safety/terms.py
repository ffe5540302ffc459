"""Drug names, quantities and negation in Chinese medical text; shared by the lint and by the faithfulness check.

In: text. Out: mentions with their place in it. ``drugs("口服布洛芬缓释胶囊0.3g，一日2次")`` and ``quantities`` of the same text::

    [Drug(start=2, end=5, text="布洛芬", name="布洛芬", known=True)]
    [Quantity(start=9, end=13, text="0.3g", value=0.3, unit="g"), Quantity(14, 18, "一日2次", 2.0, "次/日")]

The names are our own list in drugs.json (未经医师审定); a word of a drug name's shape that is not on it is ``known=False``.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FULL_WIDTH = str.maketrans("０１２３４５６７８９．，％～（）", "0123456789.,%~()")
DIGITS = {"零": 0, "〇": 0, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9}


@dataclass(frozen=True)
class Drug:
    """A drug in text, ``text`` as written and ``name`` as the lexicon calls it; offsets in characters."""

    start: int
    end: int
    text: str
    name: str
    known: bool


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; "次/日" is a frequency. ``value`` is the upper end of a range."""

    start: int
    end: int
    text: str
    value: float
    unit: str


@dataclass(frozen=True)
class Lexicon:
    """drugs.json: class of each name, names behind aliases, adult limits in mg (single, daily) and a
    child's in mg/kg at once, what to avoid by condition,
    words of a drug's shape that are none."""

    classes: Mapping[str, str]
    aliases: Mapping[str, str]
    limits: Mapping[str, tuple[float, float]]
    per_kilogram: Mapping[str, float]
    avoid: Mapping[str, frozenset[str]]
    generic: frozenset[str]
    pattern: re.Pattern[str]


# The short word for the whole class; in front of other characters it begins a name of its own, known or invented.
_BARE_CEPHALOSPORIN = "头孢(?![氨拉唑呋克丙羟地泊曲噻他哌吡西替美妥托尼米硫孟洛匹甲乙磺咪卡沙菌维罗布达奥])"

_AMBIGUOUS = {"可定": "可定(?![方期时量性])", "肤痒": "肤痒(?<!皮肤痒)"}  # brands, and 方可定方, 皮肤痒


@functools.cache
def lexicon() -> Lexicon:
    data = json.loads((Path(__file__).parent / "drugs.json").read_text(encoding="utf-8"))
    classes = {name: group for group, names in data["names"].items() for name in names.split()}
    spellings = sorted([*classes, *data["aliases"]], key=len, reverse=True)
    return Lexicon(
        classes,
        data["aliases"],
        {name: (single, daily) for name, (single, daily) in data["limits"].items()},
        data["per_kilogram"],
        {condition: frozenset(names.split()) for condition, names in data["avoid"].items()},
        frozenset(data["generic"].split()),
        re.compile(
            _alternation([*(_AMBIGUOUS.get(name, re.escape(name)) for name in spellings), _BARE_CEPHALOSPORIN]), re.IGNORECASE
        ),
    )


@functools.cache
def spellings() -> dict[str, str]:
    """Every spelling of every known drug, with the name the lexicon calls it by."""
    return {**{name: name for name in lexicon().classes}, **lexicon().aliases}


def _alternation(patterns: Sequence[str]) -> str:
    """The patterns in their order, grouped by first letter: ten times as fast as trying all of them at every character."""
    groups: dict[str, list[str]] = {}
    for pattern in patterns:
        groups.setdefault(pattern[0], []).append(pattern[1:])
    heads = "".join(groups)
    assert "\\" not in heads, "a name begins with a character that has a meaning in patterns"
    return f"(?=[{heads}])(?:" + "|".join(f"{head}(?:{'|'.join(tails)})" for head, tails in groups.items()) + ")"


def mapping(words: dict[str, str]) -> tuple[dict[str, str], re.Pattern[str]]:
    """From "plain: word word" to a plain form for each word and a pattern of all of them, the longest first."""
    plain = {word: plain for plain, written in words.items() for word in written.split()}
    return plain, re.compile(_alternation(sorted(map(re.escape, plain), key=len, reverse=True)))


# ---------------------------------------------------------------- drugs

# Word parts by which a Chinese drug name is known as one, and dosage forms that follow a name.
_STEM = (
    r"沙星|西林|头孢|霉素|他汀|普利|沙坦|地平|替尼|单抗|洛尔|拉唑|硝唑|康唑|唑仑|昔韦|洛韦|那韦|福韦|昔布|格列|列汀|列净|鲁肽|环素|培南|"
    r"磺胺|溴铵|曲普坦|昔康|洛芬|奈德|米松|贝特|双胍|膦酸|卡因|西汀|哌唑|拉明|他定|司琼|必利|替丁|沙班|格雷|单胺|巴比妥|西泮"
)
_FORM = (
    "缓释胶囊|肠溶胶囊|软胶囊|胶囊|颗粒|口服液|注射液|滴眼液|滴鼻液|滴丸|软膏|乳膏|糖浆|"
    "缓释片|控释片|分散片|肠溶片|咀嚼片|泡腾片|冲剂|气雾剂"
)
_WORD = r"[一-鿿A-Za-z]"
_SHAPED = re.compile(
    rf"(?P<head>{_WORD}{{0,5}})(?P<stem>{_STEM})(?P<tail>(?:(?<=头孢|磺胺){_WORD}{{1,2}})?(?:[钠钾钙镁锌酯醇]|定(?![期时量在]))?)|(?P<form>{_WORD}{{2,8}})(?:{_FORM})|"
    rf"(?<=[服吃用])(?P<pill>{_WORD}{{3,7}}?)(?:片|丸)"
)
_HINT = re.compile(rf"{_STEM}|{_FORM}|片|丸")  # most texts have none, and the search for a whole shape is slow
# Where a name begins: what stands before it in a sentence is not part of it.
_BEFORE = re.compile(
    r"^.*(?:担心|害怕|什么|咨询|询问|换|同服|代替|替代|服用|口服|使用|应用|给予|加用|联用|联合|选用|换用|改用|停用|禁用|避免|慎用|外用|涂抹|外涂|注射|静滴|含服|长期|小儿|儿童|成人|比如|例如|例|如|"
    r"或者|以及|包括|可以|可选|可加|可配|也可|选择|明显|应当|应该|必须|需要|的|和|与|或|及|、|用|服|吃|是|为|对|把|将|在|等|了|种|类|药|给|含|有|要|请|再|先|不|无|则|停|就|都|即|并|故|须|需|应|宜|改|能|会|跟|同|但|而|若|如|才|仍|还|又|这|那|确认|涂|喷|打|加|因|做|查|嚼|整|按|"
    r"上|下|每|天|日|次|粒|片|时|后|前)"
)
_AFTER = re.compile(
    r"(?:禁|过敏|并|则|就|也|都|还|但|而|后|前|时|才|再|即|若|如|以|所|该|需|要|须|含|过|无|非|吃|服|用|停|加|联|效|治|当|到|每|换|同[用服]|一起|合用|史|等|类|的|是|和|或|与|可以|可能|有|不|在|能|会|应|为|对|药|片|胶|颗|注|每|一|口|及|，).*$"
)


def drugs(text: str) -> list[Drug]:
    """All drugs in ``text`` in order: known names by the longest spelling, then unknown words of a drug's shape."""
    words = lexicon()
    found = [Drug(match.start(), match.end(), match[0], _canonical(match[0]), True) for match in words.pattern.finditer(text)]
    masked = list(text)
    for drug in found:
        masked[drug.start : drug.end] = "，" * (drug.end - drug.start)
    return sorted([*found, *_unknown("".join(masked))], key=lambda drug: drug.start)


def _canonical(spelling: str) -> str:
    return "头孢类" if spelling == "头孢" else lexicon().aliases.get(spelling, spelling)


def _unknown(masked: str) -> list[Drug]:
    """Words of a drug's shape in a text whose known drugs are blanked out."""
    found: list[Drug] = []
    if not _HINT.search(masked):
        return found
    for match in _SHAPED.finditer(masked):
        group = "head" if match["stem"] else str(match.lastgroup)
        lead = len(_lead(match[group]))
        name = match[group][lead:] + (match["stem"] + _AFTER.sub("", match["tail"]) if match["stem"] else "")
        start = match.start(group) + lead
        shortest = 4 if group == "pill" else 3 if group == "head" else 2
        if len(name) >= shortest and name not in lexicon().generic:
            found.append(Drug(start, start + len(name), name, name, False))
    return found


def _lead(name: str) -> str:
    match = _BEFORE.match(name)
    return match[0] if match else ""


# ---------------------------------------------------------------- quantities

_NUMBER = r"(?:\d{1,12}(?:\.\d{1,12})?|半|(?:[一二两三四五六七八九十百]|千(?!克)){1,12})"  # bounded: a text may be all digits
UNIT = (
    r"mg/kg|ml/kg|g/kg|毫克/千克|毫克/公斤|mmol/L|μmol/L|umol/L|mmHg|kPa|ml|mL|ML|mg|μg|ug|mcg|kg|cm|mm|IU|iu|g|L|%|℃|毫升|毫克|微克|千克|公斤|毫摩尔|厘米|公分|"
    r"毫米|万单位|单位|克|片|粒|袋|支|滴|包|丸|喷|揿|瓶|岁|周岁|个月|月|周|星期|礼拜|天|日|小时|分钟|年|次|度|斤|杯|倍|级|期"
)
CANONICAL = {
    "毫克": "mg", "克": "g", "微克": "μg", "ug": "μg", "mcg": "μg", "毫升": "ml", "mL": "ml", "ML": "ml", "千克": "kg",
    "公斤": "kg", "iu": "IU", "单位": "IU", "毫克/千克": "mg/kg", "毫克/公斤": "mg/kg", "umol/L": "μmol/L", "度": "℃", "日": "天",
    "周岁": "岁", "星期": "周", "礼拜": "周", "个月": "月", "厘米": "cm", "公分": "cm", "毫米": "mm",
}  # fmt: skip
_FREQUENCY = re.compile(
    rf"(?<!第)(?:每|一|1)(?P<period>天|日|晚|早|周|星期|礼拜)(?:(?![一二两三四五六七八九十半内超每后前])[一-鿿]){{0,6}}?(?P<low>{_NUMBER})(?:\s*[-~～—–至到]\s*(?P<high>{_NUMBER}))?\s*次"
    rf"|(?P<bare>{_NUMBER})\s*次\s*/\s*(?P<per>天|日|周)|每(?:隔)?(?P<hours>{_NUMBER})(?:\s*[-~～—–至到]\s*{_NUMBER})?\s*(?:个)?小时(?:一|1)?次"
    rf"|(?<![\d.每隔~～到至-])(?P<gap>\d+|[四六八]|十二)(?:\s*[-~～—–至到]\s*{_NUMBER})?\s*(?:个)?小时(?:一|1)次"
)
_AMOUNT = re.compile(
    rf"(?<![第一二三四五六七八九十百千])(?:(?<!\d)(?<!\d\.)|(?!\d))(?P<low>{_NUMBER})(?:\s*(?:{UNIT})?\s*[-~～—–至到]\s*(?P<high>{_NUMBER}))?\s*(?P<unit>{UNIT})(?:(?<![A-Za-z])|(?![A-Za-z]))"
)
_TO_MG = {"mg": 1.0, "g": 1000.0, "μg": 0.001}


def quantities(text: str) -> list[Quantity]:
    """Numbers with units, Chinese numerals and ranges included, in order; frequencies come as times per day."""
    plain = text.translate(FULL_WIDTH)
    found = [_frequency(match) for match in _FREQUENCY.finditer(plain)]
    taken = {place for quantity in found for place in range(quantity.start, quantity.end)}
    for match in _AMOUNT.finditer(plain):
        if match.start() not in taken:
            unit = CANONICAL.get(match["unit"], match["unit"])
            found.append(Quantity(match.start(), match.end(), match[0], number(match["high"] or match["low"]), unit))
    return sorted(found, key=lambda quantity: quantity.start)


def _frequency(match: re.Match[str]) -> Quantity:
    hours = match["hours"] or match["gap"]
    if hours:
        times = 24 / max(number(hours), 0.5)
    elif match["bare"]:
        times = number(match["bare"]) / (7 if match["per"] == "周" else 1)
    else:
        times = number(match["high"] or match["low"]) / (7 if match["period"] in {"周", "星期", "礼拜"} else 1)
    return Quantity(match.start(), match.end(), match[0], times, "次/日")


def number(text: str) -> float:
    """The value of Arabic or Chinese digits: "0.3" -> 0.3, "十二" -> 12, "两" -> 2, "半" -> 0.5."""
    if text == "半":
        return 0.5
    if text[0].isdigit():
        return float(text)
    total, current = 0, 0
    for character in text:
        if character in DIGITS:
            current = DIGITS[character]
        else:
            total += (current or 1) * {"十": 10, "百": 100, "千": 1000}[character]
            current = 0
    return float(total + current)


def milligrams(quantity: Quantity) -> float | None:
    """A mass in mg, or None for any other unit."""
    return quantity.value * _TO_MG[quantity.unit] if quantity.unit in _TO_MG else None


# ---------------------------------------------------------------- sentences and negation

_NEGATION = re.compile(
    r"禁用|禁忌|禁止|忌用|忌服|慎用|避免|不宜|不能|不可|不要|不应|不得|不建议|不推荐|勿|停用|停服|别用|别吃|别服|不用|不必|无需|不需|过敏|不适合|除外|不是|"
    r"远离|戒|不用于|不主张|拒绝|尽量少|少用|代替|替代|而非|权衡|评估后|遵医嘱|医师确认|医生确认|指导下|由医生|医生决定|医生评估|咨询医生|咨询医师|医生判断|医生同意|医嘱|会减少|损害|损伤|加重|风险|危险|有害|影响(?:胎儿|肾|肝|孩子|宝宝)"
)
_CLAUSE = re.compile(r"[^。！？!?；;\n]*[。！？!?；;\n]?")


def sentence(text: str, place: int) -> tuple[int, int]:
    """Start and end of the sentence around a character; a line break ends one too."""
    for match in _CLAUSE.finditer(text):
        if match.start() <= place < match.end():
            return match.start(), match.end()
    return 0, len(text)


def warned_against(text: str, drug: Drug) -> bool:
    """Whether the sentence around a drug tells not to take it, or leaves it to a doctor."""
    start, end = sentence(text, drug.start)
    return bool(_NEGATION.search(text[start:end]))
