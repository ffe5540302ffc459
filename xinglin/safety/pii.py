"""Personal data: found in Chinese text by recognisers of our own, and replaced by typed placeholders.

In: a text, as typed. Out: the masked text, and what was found where, in characters of the input::

    mask("我叫王小丽，电话１３８-0013-8000，每次0.5g")
    Masked(text="我叫[姓名1]，电话[手机号1]，每次0.5g", spans=[(2, 5, "name"), (8, 21, "mobile")])

The same value gets the same number throughout the text. Doses, laboratory values, ICD codes, approval numbers and the public
emergency lines (120, 110, 12356) are not personal. Numbers with a check digit are checked; what has none needs its context.
"""

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import NamedTuple

from xinglin.safety import names

Span = tuple[int, int, str]


class Masked(NamedTuple):
    text: str
    spans: list[Span]


PLACEHOLDERS = {
    "id_card": "身份证号",
    "mobile": "手机号",
    "landline": "电话",
    "email": "邮箱",
    "wechat": "微信号",
    "qq": "QQ号",
    "bank_card": "银行卡号",
    "plate": "车牌号",
    "passport": "护照号",
    "record_no": "病历号",
    "name": "姓名",
    "address": "地址",
    "url": "网址",
    "birth_date": "出生日期",
}

# A copy of the text with one character for each: full-width forms as typed on a Chinese keyboard, dashes, spaces.
_SAME_LENGTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "，；！？"}
_SAME_LENGTH |= dict.fromkeys(map(ord, "\u3000\xa0\t\u200b\u200c\u200d\u2009\ufeff"), ord(" "))
_SAME_LENGTH |= dict.fromkeys(map(ord, "‐‑‒–—―−─"), ord("-"))

_DIGITS = frozenset("0123456789零〇一幺二三四五六七八九")
_RUN = re.compile(r"[0-9零〇一幺二三四五六七八九](?:[ .\-()转]{0,3}[0-9零〇一幺二三四五六七八九])+")
_SEPARATOR = r"[ .\-]{0,3}"
_END = r"(?![0-9A-Za-z])"
_START = r"(?<![0-9A-Za-z])"


def mask(text: str) -> Masked:
    """``text`` with every personal datum replaced by a placeholder, and the spans they had."""
    spans = find(text)
    numbers: dict[tuple[str, str], int] = {}
    parts, last = [], 0
    for start, end, kind in spans:
        value = (kind, _canonical(text[start:end]))
        number = numbers.setdefault(value, 1 + sum(known == kind for known, _ in numbers))
        parts += [text[last:start], f"[{PLACEHOLDERS[kind]}{number}]"]
        last = end
    return Masked("".join(parts) + text[last:], spans)


def find(text: str) -> list[Span]:
    """What is personal in ``text``: start, end and kind, in order, none overlapping."""
    folded = text.translate(_SAME_LENGTH)
    lower = folded.lower()
    longest = max((sum(character in _DIGITS for character in run) for run in _RUN.findall(folded)), default=0)
    taken: list[Span] = []
    for kind, recognise, run, words in _RECOGNISERS:
        if longest < run or (words and not any(word in lower for word in words)):
            continue
        for start, end in recognise(folded):
            if all(end <= other or stop <= start for other, stop, _ in taken):
                taken.append((start, end, kind))
    return sorted(taken)


def _canonical(value: str) -> str:
    return re.sub(r"[ .\-]", "", value.translate(_SAME_LENGTH)).lower()


def _digits(value: str) -> str:
    return re.sub(r"[^0-9Xx]", "", value)


def _before(text: str, start: int, pattern: re.Pattern[str], reach: int) -> bool:
    """Whether ``pattern`` stands in the ``reach`` characters before ``start``."""
    return bool(pattern.search(text, max(0, start - reach), start))


# ---------------------------------------------------------------- numbers with a check digit

_PROVINCES_ID = {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83}
_ID_18 = re.compile(rf"{_START}[1-8](?:[ .\-]?\d){{16}}[ .\-]?[\dXx]{_END}")
_ID_15 = re.compile(rf"{_START}[1-8]\d{{14}}{_END}")
_ID_WORD = re.compile(r"身份|证件|证号|ID号")
_CARD = re.compile(rf"{_START}[2-69](?:[ \-]?\d){{14,18}}{_END}")
_CARD_WORD = re.compile(r"银行|信用卡|储蓄|借记|卡号|账号|账户|帐号|打款|转账|汇款|工行|农行|建行|中行|招行|邮储")
_OTHER_CARD = re.compile(r"医保|社保|就诊|诊疗|门诊|住院|条码|批号|订单|单号|国药")


def _id_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _ID_18.finditer(text):
        value = _digits(match[0])
        named = _before(text, match.start(), _ID_WORD, 12)
        if int(value[:2]) in _PROVINCES_ID and _is_date(value[6:14]) and (named or check_digit(value) == value[17].upper()):
            yield match.span()
    for match in _ID_15.finditer(text):
        if int(match[0][:2]) in _PROVINCES_ID and _is_date("19" + match[0][6:12]):
            yield match.span()


def check_digit(value: str) -> str:
    """The 18th place of an identity number by GB 11643 (ISO 7064, MOD 11-2), from its first 17 digits."""
    weighted = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(value[:17]))
    return "10X98765432"[weighted % 11]


def _is_date(value: str) -> bool:
    try:
        born = date(int(value[:4]), int(value[4:6]), int(value[6:8]))
    except ValueError:
        return False
    return 1900 <= born.year <= 2100


def _bank_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        value = _digits(match[0])
        named = _before(text, match.start(), _CARD_WORD, 12) and not _before(text, match.start(), _OTHER_CARD, 8)
        usual = value[:2] in {"62", "40", "41", "42", "43", "45", "46", "48", "49", "51", "52", "53", "54", "55"}
        if (luhn(value) and (named or usual)) or (named and value.startswith("62")):
            yield match.span()


def luhn(value: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(value))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


# ---------------------------------------------------------------- telephone, mail, accounts

_MOBILE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:\+?\(?(?:00)?86\)?{_SEPARATOR})?"
    rf"(?:1[3-9]\d{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{4}}|1[3-9]\d\d{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{3}}"
    rf"|1[3-9]\d{_SEPARATOR}\d{{3}}{_SEPARATOR}\d{{5}}"
    rf"|1[3-9]\d{{3}}{_SEPARATOR}\d{{6}}|1[3-9]\d{{5}}{_SEPARATOR}\d{{4}}"
    r"|1[ \-][3-9](?:[ \-]\d){9}|1[3-9](?:[ \-]\d\d){4}[ \-]?\d"
    r"|[一幺1][三四五六七八九3-9][零〇一幺二三四五六七八九0-9]{9})(?![0-9]|\.\d)"
)
_HOTLINE = r"[48]00[ \-]?\d{3}[ \-]?\d{4}|[48]00[ \-]?\d{4}[ \-]?\d{3}"
_AREA = r"(?:010|02[0-57-9]|0[3-9]\d\d)"
_LANDLINE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:(?:\+?86{_SEPARATOR})?(?:\({_AREA}\) ?|{_AREA} ?- ?|{_AREA} )\d{{3,4}}[ \-]?\d{{4}}"
    rf"|{_AREA}[2-8]\d{{6,7}}|{_HOTLINE})"
    r"(?: ?(?:转|-|ext\.?) ?\d{1,6})?(?![0-9]|\.\d)"
)
_LOCAL = re.compile(r"(?:电话|座机|固话|热线|致电|传真|联系方式)(?:号码?)?[是为: ]{0,3}([2-8]\d{2,3}[ \-]?\d{4})(?![0-9]|\.\d)")
_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+\-]* ?(?:@|\(at\)|\[at\]|#at#| at |艾特) ?[A-Za-z0-9\-]+(?: ?(?:\.|点|\(dot\)) ?[A-Za-z0-9\-]+)*"
    r" ?(?:\.|点|\(dot\)) ?(?:com|cn|net|org|edu|gov|top|vip|info|me|io|cc|hk|tw|xyz)(?:\.cn)?\b",
    re.ASCII | re.IGNORECASE,
)
_WECHAT_WORD = r"(?:[微薇威徽巍v] ?-?信|weixin|wechat|v-?xin|(?<![A-Za-z])(?:vx|wx|v)(?![A-Za-z]))"
_WECHAT = re.compile(
    rf"{_WECHAT_WORD} ?(?:号码?|id|账号|帐号|联系|公众号|同号)? ?(?:[是为叫:=(\"“→/]|加我)? ?"
    r"((?=[A-Za-z\d_\-]*[\d_\-]|[A-Za-z]{6})[A-Za-z][A-Za-z\d_\-]{2,19}|[1-9]\d{5,10}(?!\d))(?![A-Za-z\d_])",
    re.ASCII | re.IGNORECASE,
)
_QQ = re.compile(
    r"(?:(?<![A-Za-z])q ?q|扣扣|企鹅号?|(?<![A-Za-z])q(?=群|号)|群号|加群) ?(?:号码?|群号?|账号|帐号|联系)?"
    r" ?[是为叫:=(]? ?([1-9](?:[ \-]?\d){4,10})(?![0-9])",
    re.IGNORECASE,
)
_URL = re.compile(
    r"(?:https?|ftp) ?:// ?[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+|(?<![A-Za-z0-9@.\-])(?:[A-Za-z0-9\-]+\.)+"
    r"(?:com|cn|net|org|edu|gov|top|vip|info|cc|hk|tw|xyz|site|wang|club)(?![A-Za-z0-9.])(?:/[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*)?",
    re.IGNORECASE,
)


def _whole(pattern: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _group(pattern: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (match.span(1) for match in pattern.finditer(text))


def _landlines(text: str) -> Iterator[tuple[int, int]]:
    yield from _whole(_LANDLINE)(text)
    yield from _group(_LOCAL)(text)


# ---------------------------------------------------------------- documents

_PLATES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = re.compile(
    rf"[{_PLATES}][A-HJ-NP-Z][ ·•.\-]?"
    r"(?=[A-Z]{0,3}\d[A-Z]?\d|\d[A-Z]{1,3}\d|\d\d)[A-HJ-NP-Z\d]{4}(?:[A-HJ-NP-Z\d]{1,2}|[挂学警港澳])(?![A-Za-z0-9])"
)
_PASSPORT = re.compile(
    rf"(?:护照|通行证|passport)[^，。；0-9A-Za-z]{{0,8}}([A-Z]{{1,2}} ?\d{{7,8}}){_END}"
    rf"|{_START}(?<!字)(E[A-HJ-NP-Z]?\d{{7,8}}){_END}",
    re.IGNORECASE,
)
_RECORD = re.compile(
    r"(?:病历|病案|住院|门诊|就诊|医保|社保|诊疗|检查|检验|影像|登记|病理|档案|挂号|报告|标本|超声|放射|病床|床位"
    r"|患者|病人|流水|健康卡|CT|MRI?|B超|X光|X线)[卡单证]? ?(?:号码?|编号|ID号?|No\.?)[是为:# ]{0,3}"
    r"((?=[A-Za-z0-9\-]*\d[A-Za-z0-9\-]*\d)[A-Za-z0-9][A-Za-z0-9\-]{2,24})(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def _passports(text: str) -> Iterator[tuple[int, int]]:
    for match in _PASSPORT.finditer(text):
        yield match.span(1) if match[1] else match.span(2)


# ---------------------------------------------------------------- birth dates

_DATE = (
    r"(?:(?:18|19|20)\d\d ?[年./\-] ?\d{1,2}(?: ?[月./\-] ?\d{1,2} ?[日号]?| ?月)|(?:19|20)\d{2}[01]\d[0-3]\d"
    r"|\d\d年\d{1,2}月\d{1,2}[日号]"
    r"|[一二][九零〇][零〇一二三四五六七八九]{2}年[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}[日号])"
)
_BORN_AFTER = re.compile(rf"(?:出生|生日|生于|诞生|生辰|出世|DOB)[^0-9，。；一二]{{0,8}}({_DATE})(?!\d)", re.IGNORECASE)
_BORN_BEFORE = re.compile(rf"(?<!\d)({_DATE})[ ,，]?(?:出生|出世|生的|生人|生(?=[,，。；;、 ）)]|$))")


def _birth_dates(text: str) -> Iterator[tuple[int, int]]:
    yield from _group(_BORN_AFTER)(text)
    yield from _group(_BORN_BEFORE)(text)


# ---------------------------------------------------------------- addresses

_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南"
    "|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_H = r"[\u4e00-\u9fff]"
_WAY = "(?:路|街道?|大道|巷|弄|胡同|村|屯|组|新村|小区|花园|家园|公寓|社区|苑|广场|里|庄|寨|镇|乡|大厦|宿舍|城)"
_DOOR = (
    r"(?:\d+ ?(?:号楼?|栋|幢|座|单元|室|弄|组|楼|层|门|排|户|[A-Z]座)|[A-Z]\d*[栋幢座室]|-\d+"
    "|[一二三四五六七八九十]+(?:号楼|栋|幢|单元|组|楼|室))"
)
_ADDRESS = re.compile(
    rf"(?:{_PROVINCE})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区)?"
    rf"(?:{_H}{{1,7}}?(?:市|州|盟|地区|区|县|旗))(?:{_H}{{1,6}}?(?:市|区|县|旗))?"
    rf"(?:[\u4e00-\u9fff0-9A-Za-z]{{1,10}}?{_WAY}){{1,4}}(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*"
    rf"|(?:{_H}{{2,4}}(?:市|县))?(?:{_H}{{1,4}}区)?{_H}{{2,6}}?{_WAY}(?:{_H}{{0,6}}?{_WAY})? ?"
    rf"\d+ ?(?:号楼?|弄|栋|幢|座)(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*"
)
_ADDRESS_HINT = re.compile(
    r"[路街道巷弄同村屯组区园苑寓场里庄寨镇乡厦舍城] ?\d|[省市州盟区县旗].{0,30}[路街道巷弄同村屯组区园苑寓庄寨镇乡厦]"
)
_ADDRESS_WORD = re.compile(
    r"(?:住址|地址|家住|住在|现住|居住在?|户籍(?:地|所在地)?|寄到|邮寄到|收货地?)[是为: ]{0,3}([^，。；,;！？!?\s]{5,40})"
)
_LED_IN = re.compile(r"^(?:.*?(?:家住|住在|位于|地址是?|寄到|搬到|来自|我在|住|在|到|是|去)|我们?家?)")


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _ADDRESS_WORD.finditer(text):
        if re.search(rf"(?:省|市|区|县|镇|乡|村|路|街|{_DOOR})", match[1]) and (
            re.search(r"\d", match[1]) or re.match(_PROVINCE, match[1])
        ):
            yield match.span(1)
    for match in _ADDRESS.finditer(text) if _ADDRESS_HINT.search(text) else ():
        lead = _LED_IN.match(match[0][:12])
        start = match.start() + (lead.end() if lead and not re.match(_PROVINCE, match[0]) else 0)
        yield start, match.end()


class Recogniser(NamedTuple):
    kind: str
    find: Callable[[str], Iterator[tuple[int, int]]]
    run: int  # it finds nothing in a text without as many digits in a row, separators between them allowed
    words: tuple[str, ...]  # nor in one without any of these, where there are any; all in lower case


_RECOGNISERS = (
    Recogniser("email", _whole(_EMAIL), 0, ("@", "at", "艾特")),
    Recogniser("url", _whole(_URL), 0, (".", "://")),
    Recogniser("id_card", _id_cards, 15, ()),
    Recogniser("mobile", _whole(_MOBILE), 11, ()),
    Recogniser("bank_card", _bank_cards, 15, ()),
    Recogniser("qq", _group(_QQ), 5, ("q", "扣扣", "企鹅", "群")),
    Recogniser("wechat", _group(_WECHAT), 0, ("信", "v", "x")),
    Recogniser("record_no", _group(_RECORD), 2, ("号", "编", "id", "no")),
    Recogniser("passport", _passports, 7, ()),
    Recogniser("landline", _landlines, 7, ()),
    Recogniser("plate", _whole(_PLATE), 0, tuple(_PLATES)),
    Recogniser("birth_date", _birth_dates, 0, ("生", "世", "诞", "dob")),
    Recogniser("address", _addresses, 0, tuple("路街道巷弄村屯组园苑寓区里庄寨镇乡厦舍城")),
    Recogniser("name", names.spans, 0, ()),
)

# What every find has at least one of, in patterns plain and few enough for a fast engine without look-around; for the bulk of
# rows that hold nothing personal. On normalised text only.
TRIGGERS = (
    r"[0-9](?:[ .\-]{0,3}[0-9]){5}|[A-Za-z]-?[0-9]{2}|[零〇一幺二三四五六七八九]{9}",
    r"@|艾特|\(at\)|\[at\]|#at#|(?i: at )|://",
    r"(?i:\.(?:com|cn|net|org|edu|gov|top|vip|info|cc|hk|tw|xyz|site|wang|club))",
    r"(?i:[微薇威徽巍v] ?-?信|weixin|wechat|v-?xin|[vw]x|v ?[号:：])|企鹅|扣扣|群号|加群",
    r"(?:号码?|编号|ID|id|[Nn]o\.?)[是为:：# ]{0,3}[A-Za-z]{0,4}-?[0-9]",
    r"出生|生日|生于|诞生|生辰|出世|(?i:dob)|[0-9日月号] ?[,，]?生",
    r"住址|地址|家住|住在|现住|居住|户籍|寄到|收货|[路街巷弄村组区园苑寓道庄里城厦同屯寨镇乡] ?[0-9]",
    r"姓 ?名|联系人|监护人|收件人|持卡人|户主|签[ 名字]|医?[师生士者人] ?[:：=]|[叫名] ?(?:是|叫)? ?["
    + names.SURNAMES
    + r"欧司上诸夏皇尉慕令东南宫端长宇西]",
    r"·|实名|(?:患者|病人|患儿|产妇|本人|我是|家属) ?["
    + names.SURNAMES
    + r"欧司上诸皇尉慕令东南端长宇西]\p{Han}{1,3}(?:[，,、。 \n(（男女0-9]|今年|先生|女士|$)",
    rf"[{names.CLEAR}]\p{{Han}}{{0,2}}?(?:副?主任)?{names.TITLE}|(?:{names.DOUBLE})\p{{Han}}{{0,2}}{names.TITLE}",
)
