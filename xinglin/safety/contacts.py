"""Ways to reach a person: telephone numbers, mail, accounts and pages, in all the ways people type them.

In: a text folded to plain characters. Out: spans, for one kind of datum each::

    mobiles("手机138 00 13 80 00")   ->   (2, 16)        mobiles("HBV-DNA 13812345678 IU/mL")   ->   nothing

Numbers of public crisis lines are no one's data, and an answer that loses one is worse: they stay.
"""

import re
from collections.abc import Callable, Iterator

Spans = Iterator[tuple[int, int]]

# Published lines for people in a crisis, as their operators give them: Beijing psychological aid line (bhlgh.com, two numbers),
# Beijing 8858 line (municipal health commission, 2023), Hope 24 line (its own pages, Youth Daily), the line of the Ministry
# of Education at Central China Normal University (psych.ccnu.edu.cn, three numbers). The short ones (110, 119, 120, 122, 12320,
# 12338, 12345, 12348, 12355, 12356, 962525 in Shanghai) are shorter than what is looked for here.
CRISIS_LINES = (
    "010-82951332",
    "800-810-1117",
    "010-88585821",
    "400-161-9995",
    "400-967-8920",
    "010-67440033",
    "027-59427263",
)
_CRISIS = frozenset(line.replace("-", "") for line in CRISIS_LINES) | {
    line.split("-")[1] for line in CRISIS_LINES if line[0] == "0"
}

CHINESE = "零〇一幺二三四五六七八九壹贰叁肆伍陆柒捌玖"
DIGITS = "0-9" + CHINESE
_PLAIN = str.maketrans("零〇一幺二三四五六七八九壹贰叁肆伍陆柒捌玖Oo", "00112345678912345678900")
_SEPARATOR = r"(?:[ ._\-]{0,3}|,)"
_ANY = r"[ .,_()\-/·]{0,3}"
_UNIT = r"(?! ?(?:IU|U/|[mμunpk]?g(?![A-Za-z])|[mμ]?l(?![A-Za-z])|cop(?:y|ies)|拷贝|[×^%]|mol))"
_LABORATORY = re.compile(r"(?:(?:DNA|RNA)(?:定量|载量|检测)?(?:结果)?|拷贝数|病毒载?量|条形?码)[:=是为 ]{0,3}$", re.IGNORECASE)

_MOBILE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:\+?\(?(?:00)?86\)?{_SEPARATOR})?"
    rf"(?:(?:\(1[3-9]\d\)|1[3-9]\d){_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{4}}|1[3-9]\d\d{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{3}}"
    rf"|1[3-9]\d{_SEPARATOR}\d{{3}}{_SEPARATOR}\d{{5}}"
    rf"|1[3-9]\d{{3}}{_SEPARATOR}\d{{6}}|1[3-9]\d{{5}}{_SEPARATOR}\d{{4}}"
    r"|1[ \-][3-9](?:[ \-]\d){9}|1[3-9](?:[ \-]\d\d){4}[ \-]?\d"
    r"|1[3-9][\dOo]{9}(?![A-Za-z])"
    rf"|[一幺壹1][三四五六七八九叁肆伍陆柒捌玖3-9][{DIGITS}]{{9}}"
    rf"|[一幺壹][ \-]?[三四五六七八九叁肆伍陆柒捌玖](?:[ \-]?[{CHINESE}]){{9}})"
    rf"(?![{DIGITS}]|\.\d){_UNIT}",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"(?<![0-9A-Za-z])1[3-9]\d[ \-]?[*xX]{4}[ \-]?\d{4}(?![0-9A-Za-z])")
_CALL = r"(?:手机|电话|联系方式|联系号码|热线|座机|固话|致电|拨打|来电|tel|phone|mobile)(?:号码?)?"
# After such a word any eleven digits, whatever stands between them.
_SPOKEN = re.compile(
    rf"{_CALL}[^{DIGITS}A-Za-z，。；\n]{{0,4}}?((?:\+?\(?86\)?{_ANY})?[1一幺壹]{_ANY}[3-9三四五六七八九叁肆伍陆柒捌玖]"
    rf"(?:{_ANY}[{DIGITS}OoIl]){{9}})(?!{_ANY}[{DIGITS}]){_UNIT}",
    re.IGNORECASE,
)
_HOTLINE = r"[48]00[ \-]?\d{3}[ \-]?\d{4}|[48]00[ \-]?\d{4}[ \-]?\d{3}"
_AREA = r"(?:010|02[0-57-9]|0[3-9]\d\d)"
_LANDLINE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:(?:\+?86[ .\-]{{0,3}})?(?:\({_AREA}\) ?|{_AREA} ?- ?|{_AREA} )\d{{3,4}}[ \-]?\d{{4}}"
    rf"|{_AREA}[2-8]\d{{6,7}}|{_HOTLINE})"
    r"(?: ?(?:转|-|ext\.?) ?\d{1,6})?(?![0-9]|\.\d)"
    rf"|(?<![{DIGITS}])[零〇](?:[一幺][零〇]|二[零〇一二三四五七八九]|[三四五六七八九][{CHINESE}]{{2}})[ ,\-转]?"
    rf"[二三四五六七八][{CHINESE}]{{2,3}}[ \-]?[{CHINESE}]{{4}}(?![{DIGITS}])"
)
_LOCAL = re.compile(
    r"(?:电话|座机|固话|热线|致电|传真|联系方式)(?:号码?)?[是为: ]{0,3}([2-8]\d{2,3}[ \-]?\d{4})(?![0-9]|\.\d)" + _UNIT
)

_DOT = r" ?(?:\.|点|\(dot\)|\[dot\]| dot) ?"
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9_%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63} ?(?:@|\(at\)|\[at\]|#at#| at |艾特) ?"
    rf"[A-Za-z0-9\-]{{1,63}}(?:{_DOT}[A-Za-z0-9\-]{{1,63}}){{0,6}}"
    rf"(?:{_DOT}|。)(?:com|cn|net|org|edu|gov|top|vip|info|me|io|cc|hk|tw|xyz)(?:\.cn)?(?![A-Za-z0-9@])",
    re.IGNORECASE,
)
_TOP = "(?:com|cn|net|org|edu|gov|top|vip|info|cc|hk|tw|xyz|site|wang|club)"
_PATH = r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]"
_URL = re.compile(
    rf"(?:https?|ftp) ?:// ?{_PATH}+|(?<![A-Za-z0-9@.\-])(?:[A-Za-z0-9\-]{{1,63}}\.){{1,8}}{_TOP}(?![A-Za-z0-9.])(?:/{_PATH}*)?"
    rf"|(?<![A-Za-z0-9])www ?[.。点](?: ?[A-Za-z0-9\-]{{1,63}} ?[.。点]){{1,5}} ?{_TOP}(?![A-Za-z0-9])(?:/{_PATH}*)?",
    re.IGNORECASE,
)

_WECHAT_WORD = (
    r"(?:[微薇威徽巍v] ?-?信|wei ?-?信|weixin|wechat|v-?xin|卫星号?"
    r"|加(?:我|个|一下)?(?:的)? ?(?:[微薇威徽]|v(?![A-Za-z]))|[微v]❤\ufe0f?"
    r"|(?<![A-Za-z])(?:vx|wx)(?![A-Za-z])|(?<![A-Za-z0-9素维子第])v(?![A-Za-z]))"
)
_WECHAT_ASKED = r" ?(?:号码?|id|账号|帐号|联系|公众号|同号)? ?(?:[是为叫:=(\"“→/]|加我)? ?"
_WECHAT = re.compile(
    rf"{_WECHAT_WORD}{_WECHAT_ASKED}"
    r"((?=[A-Za-z\d_\-]{0,20}[\d_\-]|[A-Za-z]{6})[A-Za-z][A-Za-z\d_\-]{2,19}|[1-9]\d{5,10}(?!\d))(?![A-Za-z\d_])",
    re.IGNORECASE,
)
_WECHAT_NICK = re.compile(
    r"[微薇威v] ?信(?:号|名)?(?:是|叫|:) ?"
    r"((?!手机|电话|同|关注|公众|搜|扫|加|每|月|年)[\u4e00-\u9fff]{1,4}\d{3,8})(?![\dA-Za-z元块年月天个位多.])",
    re.IGNORECASE,
)
_QQ = re.compile(
    r"(?:(?<![A-Za-z])q ?q|扣扣|秋秋|球球|企鹅号?|(?<![A-Za-z])q(?=群|号|是)|群号|加群|加(?:我|个|一下)? ?q) ?"
    r"(?:号码?|群号?|账号|帐号|联系)?"
    rf" ?[是为叫:=(]? ?([1-9](?:[ \-]?\d){{4,10}}(?![0-9])|[一二三四五六七八九幺][{CHINESE}]{{4,10}}(?![{CHINESE}]))",
    re.IGNORECASE,
)
_BARE_Q = re.compile(r"(?<![A-Za-z0-9号次字])q ?[:=]? ?([1-9]\d{5,10})(?![0-9A-Za-z.])", re.IGNORECASE)


def before(text: str, start: int, pattern: re.Pattern[str], reach: int) -> bool:
    """Whether ``pattern`` stands in the ``reach`` characters before ``start``."""
    return bool(pattern.search(text, max(0, start - reach), start))


def whole(pattern: re.Pattern[str]) -> Callable[[str], Spans]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def group(*patterns: re.Pattern[str]) -> Callable[[str], Spans]:
    """What stands in the first group of each."""
    return lambda text: (match.span(1) for pattern in patterns for match in pattern.finditer(text))


def mobiles(text: str) -> Spans:
    for match in _MOBILE.finditer(text):
        if not _LABORATORY.search(text, max(0, match.start() - 12), match.start()):
            yield match.span()
    yield from group(_SPOKEN)(text)


def landlines(text: str) -> Spans:
    for start, end in (*whole(_LANDLINE)(text), *group(_LOCAL)(text)):
        if re.sub(r"\D", "", text[start:end].translate(_PLAIN)) not in _CRISIS:
            yield start, end


hidden_mobiles, emails, urls = whole(_HIDDEN), whole(_EMAIL), whole(_URL)
wechats, qqs = group(_WECHAT, _WECHAT_NICK), group(_QQ, _BARE_Q)
