"""Spoken and abbreviated numbers, doses and frequencies in the one form the faithfulness check compares.

In: text as people and language models write it. Out: the same text with these in plain form::

    plain("一片半，bid，连用半个月")          "1.5片，每日2次，连用15天"
    plain("每次四分之三片，隔一天用一次")      "每次0.75片，每2天1次"
    frequencies("塞来昔布一天一粒，饭后吃")    {1.0}
"""

import re
from collections.abc import Callable

from xinglin.safety import terms

_DIGIT = "一二两三四五六七八九"
_ARABIC = r"\d{1,12}(?:\.\d{1,12})?"  # bounded: a text may be all digits
_NUMBER = rf"(?:{_ARABIC}|[{_DIGIT}十百]{{1,12}})"
_TO = r"\s*[-~～—–至到]\s*"
_RANGE = rf"{_ARABIC}(?:\s*(?:mg|毫克|ml|毫升|g|克)?{_TO}{_ARABIC})?"
_COUNT = rf"(?:\d{{1,12}}(?:[-~～—–至到]\d{{1,12}})?|[{_DIGIT}](?:[-~～—–至到][{_DIGIT}])?)"
_USE = "(?:服用|使用|口服|外用|服|吃|用|涂|抹|擦|喷|滴|塞|打|贴|含|敷)?"
_TIMES = rf"{_USE}(?:一|1)次"
_PILL = "片|粒|颗|枚|丸|支|针|贴|包|袋|喷|揿|吸|滴|勺|次"
_MORNING = "早(?:上|晨|饭|餐|间)?"
_NIGHT = "晚(?:上|间|饭|餐)?"
_ROUGH = "一两|一二|两三|二三|三四|三五|四五|五六|六七|七八|八九"

Change = str | Callable[[re.Match[str]], str]


def _value(text: str) -> float:
    return terms.number(text)


def _half_more(match: re.Match[str]) -> str:
    return f"{_value(match[1]) + 0.5:g}{match[2] or ''}"


def _fraction(match: re.Match[str]) -> str:
    """四分之三; of hundred a percentage."""
    if match[1] == "百":
        return f"{_value(match[2]):g}%"
    if not _value(match[1]):
        return match[0]
    return f"{round(_value(match[2]) / _value(match[1]), 3):g}"


def _ratio(match: re.Match[str]) -> str:
    return f"{round(float(match[1]) / float(match[2]), 3):g}" if float(match[2]) else match[0]


def _decimal(match: re.Match[str]) -> str:
    return f"{_value(match[1]):g}." + "".join(str(terms.DIGITS[digit]) for digit in match[2])


def _rough(match: re.Match[str]) -> str:
    """两三, 十二三, 三十四五, 二三十."""
    tens, tail = int(_value(match[1])) if match[1] else 0, {"十": 10, "百": 100, "千": 1000}.get(match[3] or "", 1)
    return "-".join(str((tens + terms.DIGITS[digit]) * tail) for digit in match[2])


def _neighbours(match: re.Match[str]) -> str:
    """3、4天."""
    return f"{match[1]}-{match[2]}" if int(match[2]) == int(match[1]) + 1 else match[0]


def _fever(match: re.Match[str]) -> str:
    """三十八度五."""
    half = {"半": "5"}.get(match[2], match[2])
    return f"{_value(match[1]):g}.{terms.DIGITS.get(half, half)}℃"


_RULES: list[tuple[tuple[str, ...], str, Change]] = [
    # Units as they are typed.
    (("升",), r"公升", "升"),
    (("汞柱",), r"毫米汞柱", "mmHg"),
    (("°", "摄氏"), r"°\s*[cC]|摄氏度", "℃"),
    (("单位", "u"), r"(?<=[\d万])\s*(?:国际单位|iu|u)(?![A-Za-z/])", "单位"),
    (("mg",), r"(?<=\d)\s*mg(?![a-z])", "mg"),
    (("ml",), r"(?<=\d)\s*ml(?![a-z])", "ml"),
    (("h",), r"(?<=\d)\s*h(?:rs?|ours?)?(?![A-Za-z])", "小时"),
    (("min",), r"(?<=\d)\s*min(?:utes?)?(?![A-Za-z])", "分钟"),
    (("cc",), r"(?<=\d)\s*cc(?![A-Za-z])", "ml"),
    (("d",), r"(?<=\d)\s*d(?![A-Za-z0-9])", "天"),
    (("/d",), r"/d(?![A-Za-z])", "/日"),
    (("钟头",), "钟头", "小时"),
    (("刻钟",), "[一1]刻钟", "15分钟"),
    (("俩", "仨"), r"俩(?=月|礼拜|星期|小时)", "两"),
    # Fractions, decimals and halves.
    (("½", "¼", "¾"), "½", "0.5"),
    (("¼",), "¼", "0.25"),
    (("¾",), "¾", "0.75"),
    (("分之",), rf"({_NUMBER})分之({_NUMBER})", _fraction),
    (("/",), rf"(?<![\d/.])(\d)\s*/\s*(\d)(?=\s*(?:{_PILL}|瓶|量|剂量|杯|个|小时))", _ratio),
    (("点",), rf"([零〇{_DIGIT}十百]{{1,12}})点([零〇{_DIGIT}]{{1,12}})(?=\s*(?:个|{terms.UNIT}))", _decimal),
    (("度",), rf"(?<![\d.{_DIGIT}])(3\d|4[0-2]|三十[{_DIGIT}]?|四十[一二]?)度([\d半{_DIGIT}])(?![\d十])", _fever),
    (("半",), rf"(?<![\d.第])({_NUMBER})个半(小时|月|星期|礼拜)", _half_more),
    (("半",), rf"(?<![\d.第])({_NUMBER})(小时|片|粒|颗|包|袋|支|瓶|年|天|斤|公斤|杯)半(?![天年小月夜个])", _half_more),
    (("岁半",), "岁半", "岁6个月"),
    ((".5岁",), r"\.5岁", "岁6个月"),
    # Rough numbers.
    (
        ("多", "余", "几", "来"),
        rf"(?<=[\d{_DIGIT}十百千])个?[多余几来](?=个?(?:小时|月|星期|礼拜|周|年|天|日|岁|次|斤|公斤|分钟|毫升|ml|克|度|下|个))",
        "",
    ),
    (
        tuple(_ROUGH.split("|")),
        rf"(?<![{_DIGIT}百第])([{_DIGIT}]?十)?({_ROUGH})([十百千])?(?![{_DIGIT}十百千])(?=个|\s*(?:{terms.UNIT})|[^\w])",
        _rough,
    ),
    (("、", ","), r"(?<![\d.、])(\d)[、,](\d)(?=个?(?:天|日|次|片|粒|周|月|年|小时|岁|分钟))", _neighbours),
    (("个",), rf"(?<=[\d{_DIGIT}十半])个(?=小时|单位|星期|礼拜|半小时)", ""),
    (("半",), "半个?月(?!板)", "15天"),
    (("周岁",), "周岁", "岁"),
    (("升",), rf"(?<=[\d半{_DIGIT}])升(?![到至高白降])", "L"),
    # Weight in the dose.
    (("/(kg",), r"/\(kg(?:[·.*]?(?:d|日|天|次))?\)", "/kg"),
    (
        ("每公斤", "每千克", "每kg", "/公斤", "/千克"),
        rf"({_RANGE})\s*(mg|毫克|ml|毫升|g|克)\s*[每/]\s*(?:公斤|千克|kg)(?:体重)?",
        r"\1\2/kg",
    ),
    (("毫克/kg",), "毫克/kg", "mg/kg"),
    (("毫升/kg",), "毫升/kg", "ml/kg"),
    (("克/kg",), "克/kg", "g/kg"),
    (("每",), rf"每(?:公斤|千克|kg)(?:体重)?(?:每[天日次])?({_RANGE})\s*(?:mg|毫克)(?!/)", r"\1mg/kg"),
    (("每",), rf"每(?:公斤|千克|kg)(?:体重)?(?:每[天日次])?({_RANGE})\s*(?:ml|毫升)(?!/)", r"\1ml/kg"),
    # How often.
    (("回", "遍"), rf"((?:每|一|1|/)[天日晚早周]\w{{0,3}}?{_COUNT})[回遍]", r"\1次"),
    (("中",), rf"{_MORNING}[、,和]?中(?:午|饭|餐)?[、,和及]?{_NIGHT}[前后]?(?:各|分别)?(?:\w{{0,3}}?(?:一|1)次)?", "每日3次"),
    (("一早一晚",), rf"一早一晚(?:各?{_TIMES})?", "每日2次"),
    (
        ("早",),
        rf"(?<!一)(?:每[天日])?{_MORNING}[后前]?[、和及与,]?{_NIGHT}[前后]?(?:各|分别)\w{{0,3}}?(?:一|1)次",
        "每日2次",
    ),
    (("次",), rf"(?:每[天日])?{_MORNING}{_TIMES}[、，,和]?{_NIGHT}{_TIMES}", "每日2次"),
    (("次",), rf"({_COUNT}次)(?:/|一|每)?(?:天|日)(?!\S?[一\d]次)(?![内后以])", r"每日\1"),
    (("日",), rf"(?<![一每\d{_DIGIT}今昨明次隔当同近/半十多几])日(?=[服用]?{_COUNT}次)", "每日"),
    (
        ("隔", "每两", "每2", "两天", "两日", "2天", "2日", "48"),
        rf"(?:每?隔[一1]?[天日]|每[两二2][天日]|[两二2][天日](?={_USE}(?:一|1)次)|每48小时)"
        rf"(?:早上|早晨|晚上|晚间|夜间|睡前|晚|再)?(?:{_TIMES})?",
        "每2天1次",
    ),
    (
        ("次",),
        rf"(?:每[天日])?(?:早上|早晨|清晨|晨起|每晨|每早|中午|晚上|晚间|夜间|睡前|临睡前|临睡|入睡前|晚饭后|早饭前|早餐前|早餐后|晚餐后)"
        rf"(?:空腹|饭前|饭后|餐前|餐后)?{_TIMES}(?!\S{{0,2}}[吃服嚼片粒])",
        "每日1次",
    ),
    (("各",), r"每[天日]各(?=(?:一|1)次)", "每日"),
    (
        ("次",),
        rf"(?<=[每一1][天日])(?:最多|至多|别超过|不(?:得|要|宜|能|可|应)?(?:超过|多于))(?=[\d{_DIGIT}]+次)",
        "",
    ),
    (("qod",), r"(?<![a-z])q\.?o\.?d\.?(?![a-z])", "每2天1次"),
    (("id", "i.d"), r"(?<![a-z])b\.?i\.?d(?![a-z])\.?", "每日2次"),
    (("id", "i.d"), r"(?<![a-z])t\.?i\.?d(?![a-z])\.?", "每日3次"),
    (("id", "i.d"), r"(?<![a-z])q\.?i\.?d(?![a-z])\.?", "每日4次"),
    (("iw",), r"(?<![a-z])biw(?![a-z])", "每周2次"),
    (("iw",), r"(?<![a-z])tiw(?![a-z])", "每周3次"),
    (("qw",), r"(?<![a-z])qw(?![a-z])", "每周1次"),
    (("q",), r"(?<![a-z])q\.?[dn](?![a-z])\.?", "每日1次"),
    (("q",), r"(?<![a-z])q(\d{1,2})(?:h(?![a-z])|小时)", r"每\1小时1次"),
    # What else is shortened.
    (("空腹",), r"空腹(?=\d+\.\d)", "空腹血糖"),
    (("餐后",), r"餐后(?=\d+\.\d)", "餐后血糖"),
    (("维",), r"(?<!维生素)维(?=[a-e](?![a-z]))", "维生素"),
    (("b",), r"(?<![a-z素\d/])(?=b(?:1|2|6|12)(?!\d))", "维生素"),
]
_COMPILED = [
    ({needle[0] for needle in needles}, needles, re.compile(pattern, re.IGNORECASE), change)
    for needles, pattern, change in _RULES
]
_TABLE = terms.FULL_WIDTH | str.maketrans("µ／﹣－", "μ/--")


def plain(text: str) -> str:
    """The text in plain form; a rule is tried only where one of its words stands."""
    text = text.translate(_TABLE)
    lower = text.lower()
    letters = set(lower)
    for firsts, needles, pattern, change in _COMPILED:
        if not letters.isdisjoint(firsts) and any(needle in lower for needle in needles):
            text, times = pattern.subn(change, text)
            if times:
                lower = text.lower()
                letters.update(lower)
    return text


_OF_DAY = re.compile(
    rf"(?:每|一|1)(?P<period>天|日|晚|早|周|星期|礼拜)[^，。；,;\n]{{0,8}}?(?P<low>{_NUMBER}|半)(?:{_TO}(?P<high>{_NUMBER}))?\s*(?:{_PILL})"
    rf"|(?P<count>{_NUMBER})\s*(?:{_PILL})\s*(?:/|每|一)\s*(?P<per>天|日|周)"
)
_IN_WORDS = (
    (2.0, re.compile(rf"{_MORNING}[前后]?[、和及与,，]?{_NIGHT}|早\S{{1,8}}晚|每12小时|十二小时")),
    (3.0, re.compile("早中晚|早、中、晚|三餐|三顿|[每顿餐][顿饭餐]|3餐|随餐|跟饭")),
)


def frequencies(text: str) -> set[float]:
    """Times a day that follow from other words: 一天一粒 and 早晚各一粒; read generously, ``text`` in plain form."""
    found = {times for times, pattern in _IN_WORDS if pattern.search(text)}
    for match in _OF_DAY.finditer(text):
        days = 7 if (match["period"] or match["per"]) in {"周", "星期", "礼拜"} else 1
        found |= {round(_value(count) / days, 3) for count in (match["low"] or match["count"], match["high"], "1") if count}
    return found
