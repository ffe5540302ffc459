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

from xinglin.safety import contacts, names
from xinglin.safety.contacts import CHINESE, before, group, whole

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

_RUN = re.compile(rf"[0-9OoIl{CHINESE}](?:[ .,_/·\-()转]{{0,3}}[0-9OoIl{CHINESE}])+")
_END = r"(?![0-9A-Za-z])"
_START = r"(?<![0-9A-Za-z])"


def mask(text: str) -> Masked:
    """``text`` with every personal datum replaced by a placeholder, and the spans they had."""
    spans = find(text)
    numbers: dict[str, dict[str, int]] = {}
    parts, last = [], 0
    for start, end, kind in spans:
        known = numbers.setdefault(kind, {})
        number = known.setdefault(_canonical(text[start:end]), 1 + len(known))
        parts += [text[last:start], f"[{PLACEHOLDERS[kind]}{number}]"]
        last = end
    return Masked("".join(parts) + text[last:], spans)


def find(text: str) -> list[Span]:
    """What is personal in ``text``: start, end and kind, in order, none overlapping."""
    folded = text.translate(_SAME_LENGTH)
    lower = folded.lower()
    longest = max(map(len, _RUN.findall(folded)), default=0)
    taken, covered = [], bytearray(len(text))
    for kind, recognise, run, words in _RECOGNISERS:
        if longest < run or (words and not any(word in lower for word in words)):
            continue
        for start, end in recognise(folded):
            if covered.find(1, start, end) < 0:
                taken.append((start, end, kind))
                covered[start:end] = b"\1" * (end - start)
    return sorted(taken)


def _canonical(value: str) -> str:
    return re.sub(r"[ .,_()\-]", "", value.translate(_SAME_LENGTH)).lower()


def _digits(value: str) -> str:
    return re.sub(r"[^0-9Xx]", "", value)


# ---------------------------------------------------------------- numbers with a check digit

_PROVINCES_ID = {*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55), *range(61, 66), 71, 81, 82, 83}
_ID_18 = re.compile(rf"{_START}[1-8](?:[ .\-]?\d){{16}}[ .\-]?[\dXx]{_END}")
_ID_15 = re.compile(rf"{_START}[1-8]\d{{14}}{_END}")
_ID_WORD = re.compile(r"身份|证件|证号|ID号")
_CARD = re.compile(rf"{_START}[2-69](?:[ \-]?\d){{14,18}}{_END}")
_CARD_WORD = re.compile(r"银行|信用卡|储蓄|借记|卡号|账号|账户|帐号|打款|转账|汇款|工行|农行|建行|中行|招行|邮储")
_OTHER_CARD = re.compile(r"医保|社保|就诊|诊疗|门诊|住院|条码|批号|订单|单号|国药")


_ID_HIDDEN = re.compile(r"(?<![0-9A-Za-z])[1-8]\d{2}(?:\d{3,12}[*xX]{4,8}|[*xX]{8,14})\d{0,4}[\dXx](?![0-9A-Za-z*])")
_ID_HONG_KONG = re.compile(r"(?<![0-9A-Za-z])([A-Z]{1,2}\d{6}) ?\(?([\dA])(?:\)|(?![0-9A-Za-z]))", re.IGNORECASE)
_ID_TAIWAN = re.compile(rf"{_START}[A-Z][1289]\d{{8}}{_END}", re.IGNORECASE)
_ID_ELSEWHERE = re.compile(r"身份|证件|证号|统一编号|香港|台湾")


def _id_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _ID_18.finditer(text):
        value = _digits(match[0])
        named = before(text, match.start(), _ID_WORD, 12)
        if int(value[:2]) in _PROVINCES_ID and _is_date(value[6:14]) and (named or check_digit(value) == value[17].upper()):
            yield match.span()
    for match in _ID_15.finditer(text):
        if int(match[0][:2]) in _PROVINCES_ID and _is_date("19" + match[0][6:12]):
            yield match.span()


def _ids_elsewhere(text: str) -> Iterator[tuple[int, int]]:
    for match in _ID_HONG_KONG.finditer(text):
        if hong_kong_digit(match[1].upper()) == match[2].upper() and (
            ")" in match[0] or before(text, match.start(), _ID_ELSEWHERE, 12)
        ):
            yield match.span()
    for match in _ID_TAIWAN.finditer(text):
        if before(text, match.start(), _ID_ELSEWHERE, 12):
            yield match.span()


def check_digit(value: str) -> str:
    """The 18th place of an identity number by GB 11643 (ISO 7064, MOD 11-2), from its first 17 digits."""
    weighted = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(value[:17]))
    return "10X98765432"[weighted % 11]


def hong_kong_digit(value: str) -> str:
    """The character in brackets after one or two letters and six digits: weights 9 to 2, modulo 11; no letter counts 36."""
    places = [int(character, 36) for character in value]
    weighted = sum(number * weight for number, weight in zip([36, *places][-8:], range(9, 1, -1), strict=True))
    return "0A987654321"[weighted % 11]


def _is_date(value: str) -> bool:
    try:
        born = date(int(value[:4]), int(value[4:6]), int(value[6:8]))
    except ValueError:
        return False
    return 1900 <= born.year <= 2100


def _bank_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        value = _digits(match[0])
        named = before(text, match.start(), _CARD_WORD, 12) and not before(text, match.start(), _OTHER_CARD, 8)
        usual = value[:2] in {"62", "40", "41", "42", "43", "45", "46", "48", "49", "51", "52", "53", "54", "55"}
        if (luhn(value) and (named or usual)) or (named and value.startswith("62")):
            yield match.span()


def luhn(value: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(value))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


# ---------------------------------------------------------------- documents

_PLATES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE = re.compile(
    rf"[{_PLATES}][A-HJ-NP-Z][ ·•.\-]?"
    r"(?=[A-Z]{0,3}\d[A-Z]?\d|\d[A-Z]{1,3}\d|\d\d)[A-HJ-NP-Z\d]{4}(?:[A-HJ-NP-Z\d]{1,2}|[挂学警港澳])(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_CAR = re.compile("车|牌照|牌号|撞|司机|驾驶|肇事|追尾|尾号")
_TRAVEL = r"(?:护照|通行证|回乡证|台胞证|passport)"
_PASSPORT = re.compile(
    rf"{_TRAVEL}[^，。；0-9A-Za-z]{{0,8}}(?:(?:no\.?|number|id) ?[:#]? ?)?([A-Z]{{1,2}}(?: ?\d){{7,8}}|\d{{8,10}}){_END}",
    re.IGNORECASE,
)
_RECORD_WORD = (
    r"(?:病历|病案|住院|门诊|就诊|医保|社保|诊疗|检查|检验|影像|登记|病理|档案|挂号|报告|标本|超声|放射|病床|床位"
    r"|患者|病人|流水|健康卡|CT|MRI?|B超|X光|X线|处方|条码|申请单|化验单)"
)
_RECORD = re.compile(
    rf"{_RECORD_WORD}[卡单证]? ?(?:号码?|编号|ID号?|No\.?)[是为:# (\n]{{0,4}}(?!69\d{{11}}(?!\d))"
    r"((?=[A-Za-z0-9\-]{0,24}?\d[A-Za-z0-9\-]{0,23}?\d)[A-Za-z0-9][A-Za-z0-9\-]{2,24})(?![A-Za-z0-9])"
    r"|(?:社保|医保|就诊|诊疗|健康)卡[是为:# (\n]{0,4}(\d{6,20}[A-Za-z]?)(?![A-Za-z0-9年月日号.])"
    r"|(?<![A-Za-z])(?:ID|病案|病历) ?[:#=] ?(\d{5,20})(?![A-Za-z0-9.])",
    re.IGNORECASE,
)


def _plates(text: str) -> Iterator[tuple[int, int]]:
    """Only near a word for cars: 苏D12345 is as well a code."""
    for match in _PLATE.finditer(text):
        if "·" in match[0] or _CAR.search(text, max(0, match.start() - 15), match.end() + 8):
            yield match.span()


def _records(text: str) -> Iterator[tuple[int, int]]:
    for match in _RECORD.finditer(text):
        yield match.span(match.lastindex or 0)


# ---------------------------------------------------------------- birth dates

_DATE = (
    r"(?:(?:18|19|20)\d\d ?[年./\-] ?\d{1,2}(?: ?[月./\-] ?\d{1,2} ?[日号]?| ?月)|(?:19|20)\d{2}[01]\d[0-3]\d"
    r"|\d\d年\d{1,2}月\d{1,2}[日号]"
    r"|[一二][九零〇][零〇一二三四五六七八九]{2}年[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}[日号])"
)
_YEAR = r"(?:(?:19|20)\d\d|[一二][九零〇][零〇一二三四五六七八九]{2})"
_DAY = (
    r"(?:农历|阴历|阳历)?(?:\d{1,2}|[正腊冬一二三四五六七八九十]{1,2})月(?:\d{1,2}[日号]?|[初一二三四五六七八九十廿]{1,3}[日号]?)"
)
_BORN_AFTER = re.compile(
    rf"(?:出生|生日|生于|诞生|生辰|出世|DOB)(?:[^0-9，。；一二]{{0,8}}({_DATE})(?!\d)"
    rf"|(?:日期|年月日?|时间)?[是为于在: ]{{0,3}}({_YEAR} ?(?:年(?: ?\d{{1,2}} ?月)?|[./\-]\d{{1,2}}(?![\d.]))"
    rf"|{_DAY}|\d{{1,2}}[./\-]\d{{1,2}}[./\-](?:19|20)\d\d(?!\d)))",
    re.IGNORECASE,
)
_BIRTH = re.compile(r"(?<=[\d初一二三四五六七八九十廿年月日号 ,，的])(?:出生|出世|生的|生人|生日|生(?=[,，。；;、 ）)]|$))")
_BORN_BEFORE = re.compile(rf"(?<!\d)({_DATE}|{_YEAR}年|\d\d年\d{{1,2}}月|{_DAY})[ ,，]?的?$")


def _birth_dates(text: str) -> Iterator[tuple[int, int]]:
    for match in _BORN_AFTER.finditer(text):
        yield match.span(match.lastindex or 0)
    for birth in _BIRTH.finditer(text):
        if date_before := _BORN_BEFORE.search(text, max(0, birth.start() - 20), birth.start()):
            yield date_before.span(1)


# ---------------------------------------------------------------- addresses

_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南"
    "|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_H = r"[\u4e00-\u9fff]"
_WAY = (
    "(?:路|街道?|大道|巷|弄|胡同|村|屯|组|新村|小区|花园|家园|公寓|社区|苑|广场|里|庄|寨|镇|乡|大厦|宿舍|城"
    "|[一二三四五六七八九十东西南北]区)"
)
_DOOR = (
    r"(?:\d+ ?(?:号楼?|栋|幢|座|单元|室|弄|组|楼|层|门|排|户|[A-Z]座)|[A-Z]\d*[栋幢座室]|-\d+"
    "|[一二三四五六七八九十百零〇]+(?:号楼?|栋|幢|单元|组|楼|室))"
)
_FLAT = r"(?:(?<=[栋幢座元楼号]) ?\d{3,4}(?![\d.年月日岁天元次个级型mMkK%]))?"
_ADDRESS = re.compile(
    rf"(?:{_PROVINCE})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区)?"
    rf"(?:{_H}{{1,7}}?(?:市|州|盟|地区|区|县|旗))(?:{_H}{{1,6}}?(?:市|区|县|旗))?"
    rf"(?:[\u4e00-\u9fff0-9A-Za-z]{{1,10}}?{_WAY}){{1,4}}(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*{_FLAT}"
    rf"|(?:{_H}{{2,4}}(?:市|县))?(?:{_H}{{1,4}}区)?{_H}{{2,6}}?{_WAY}(?:{_H}{{0,6}}?{_WAY})? ?"
    rf"(?:\d+ ?(?:号楼?|弄|栋|幢|座)(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*{_FLAT}|\d{{1,3}}-\d{{1,2}}-\d{{3,4}}(?!\d))"
)
_ADDRESS_HINT = re.compile(
    r"[路街道巷弄同村屯组区园苑寓场里庄寨镇乡厦舍城] ?\d|[省市州盟区县旗].{0,30}[路街道巷弄同村屯组区园苑寓庄寨镇乡厦]"
)
_ADDRESS_WORD = re.compile(
    r"(?:住址|地址|家住|住在|现住|居住在?|户籍(?:地|所在地)?|寄到|邮寄到|收货地?)[是为: ]{0,3}([^，。；,;！？!?\s]{5,40})"
)
# An address said outright ends with its last door, else with its last way; what follows belongs to the sentence.
_LAST_DOOR = re.compile(rf".*(?:{_DOOR}{_FLAT}|\d-\d+-\d+|[路街巷道村] ?\d+(?:号|#)?)")
_LAST_WAY = re.compile(r".*[省市区县镇乡村路街道巷园苑城]")
_LED_IN = re.compile(r"^(?:.*?(?:家住|住在|位于|地址是?|寄到|搬到|来自|我在|住|在|到|是|去)|我们?家?)")


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for match in _ADDRESS_WORD.finditer(text):
        last = _LAST_DOOR.match(match[1]) or _LAST_WAY.match(match[1])
        if last and (re.search(rf"\d|{_DOOR}", last[0]) or re.match(_PROVINCE, last[0])):
            yield match.start(1), match.start(1) + last.end()
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
    Recogniser("email", contacts.emails, 0, ("@", "at", "艾特")),
    Recogniser("url", contacts.urls, 0, (".", "://", "www")),
    Recogniser("id_card", _id_cards, 15, ()),
    Recogniser("id_card", _ids_elsewhere, 6, ("(", "证", "编号", "香港", "台湾")),
    Recogniser("id_card", whole(_ID_HIDDEN), 0, ("****", "xxxxxx")),
    Recogniser("mobile", contacts.mobiles, 11, ()),
    Recogniser("mobile", contacts.hidden_mobiles, 0, ("****", "xxxx")),
    Recogniser("bank_card", _bank_cards, 15, ()),
    Recogniser("qq", contacts.qqs, 5, ("q", "扣扣", "企鹅", "群", "秋秋", "球球")),
    Recogniser("wechat", contacts.wechats, 0, ("信", "v", "x", "微", "薇", "威", "徽", "卫星")),
    Recogniser("record_no", _records, 2, ("号", "编", "id", "no", "卡", "病历", "病案")),
    Recogniser("passport", group(_PASSPORT), 7, ("护照", "证", "passport")),
    Recogniser("landline", contacts.landlines, 7, ()),
    Recogniser("plate", _plates, 0, tuple(_PLATES)),
    Recogniser("birth_date", _birth_dates, 0, ("生", "世", "诞", "dob")),
    Recogniser("address", _addresses, 0, (*"路街道巷弄村屯组园苑寓区里庄寨镇乡厦舍城县址", "户籍")),
    Recogniser("name", names.spans, 0, ()),
)

# What every find has at least one of, in patterns plain and few enough for a fast engine without look-around; for the bulk of
# rows that hold nothing personal. On normalised text only.
TRIGGERS = (
    rf"[0-9](?:[ .\-]{{0,3}}[0-9]){{5}}|[A-Za-z]-?[0-9]{{2}}|[{CHINESE}](?:[ \-]?[{CHINESE}]){{8}}"
    r"|1[3-9][0-9](?:\)|_|,[0-9]{4})|1[3-9][0-9Oo]{9}|[0-9](?:\*{4}|[xX]{4})"
    r"|(?:手机|电话|联系方式|号码|联系|拨打)[是为:： (（+]{0,4}[1一幺壹]",
    r"@|艾特|\(at\)|\[at\]|#at#|(?i: at )|://",
    r"(?i:www ?[.。点]|\.(?:com|cn|net|org|edu|gov|top|vip|info|cc|hk|tw|xyz|site|wang|club))",
    r"(?i:[微薇威徽巍v] ?-?信|weixin|wechat|v-?xin|[vw]x|v ?[号:：❤]|wei ?-?信|qq|q ?[:：])"
    r"|企鹅|扣扣|群号|加群|秋秋|球球|卫星|微❤|加(?:我|个|一下)?(?:的)? ?[微薇威徽vVqQ]",
    r"(?:号码?|编号|ID|id|[Nn]o\.?)[是为:：# (（\n]{0,4}[A-Za-z]{0,4}-?[0-9]|护照|(?i:passport)",
    r"出生|生日|生于|诞生|生辰|出世|(?i:dob)|[0-9日月号年] ?[,，]?生",
    r"住址|地址|家住|住在|现住|居住|户籍|寄到|收货|[路街巷弄村组区园苑寓道庄里城厦同屯寨镇乡] ?[0-9]",
    r"姓 ?名|联系人|监护人|收件人|持卡人|户主|签[ 名字]|医?[师生士者人] ?[:：=]|[叫名] ?(?:是|叫)? ?["
    + names.SURNAMES
    + r"欧司上诸夏皇尉慕令东南宫端长宇西]",
    r"·|实名|(?:患者|病人|患儿|产妇|本人|我是|家属) ?["
    + names.SURNAMES
    + r"欧司上诸皇尉慕令东南端长宇西]\p{Han}{1,3}(?:[，,、。;； \n(（男女0-9]|今年|先生|女士|$)",
    rf"[{names.CLEAR}]\p{{Han}}{{0,2}}?(?:副?主任)?{names.TITLE}|(?:{names.DOUBLE})\p{{Han}}{{0,2}}{names.TITLE}",
)
