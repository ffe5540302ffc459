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
    taken: list[Span] = []
    for kind, recognise in _RECOGNISERS:
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
        if luhn(value) and (named or usual) or named and value.startswith("62"):
            yield match.span()


def luhn(value: str) -> bool:
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(value))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


# ---------------------------------------------------------------- telephone, mail, accounts

_MOBILE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:\+?\(?(?:00)?86\)?{_SEPARATOR})?"
    rf"(?:1[3-9]\d{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{4}}|1[3-9]\d\d{_SEPARATOR}\d{{4}}{_SEPARATOR}\d{{3}}|1[3-9]\d{_SEPARATOR}\d{{3}}{_SEPARATOR}\d{{5}}"
    rf"|1[3-9]\d{{3}}{_SEPARATOR}\d{{6}}|1[3-9]\d{{5}}{_SEPARATOR}\d{{4}}|1[ \-][3-9](?:[ \-]\d){{9}}|1[3-9](?:[ \-]\d\d){{4}}[ \-]?\d"
    r"|[一幺1][三四五六七八九3-9][零〇一幺二三四五六七八九0-9]{9})(?![0-9]|\.\d)"
)
_HOTLINE = r"[48]00[ \-]?\d{3}[ \-]?\d{4}|[48]00[ \-]?\d{4}[ \-]?\d{3}"
_AREA = r"(?:010|02[0-57-9]|0[3-9]\d\d)"
_LANDLINE = re.compile(
    rf"(?<![0-9A-Za-z.])(?:(?:\+?86{_SEPARATOR})?(?:\({_AREA}\) ?|{_AREA} ?- ?|{_AREA} )\d{{3,4}}[ \-]?\d{{4}}|{_AREA}[2-8]\d{{6,7}}|{_HOTLINE})"
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
    r"(?:(?<![A-Za-z])q ?q|扣扣|企鹅号?|(?<![A-Za-z])q(?=群|号)|群号|加群) ?(?:号码?|群号?|账号|帐号|联系)? ?[是为叫:=(]? ?([1-9](?:[ \-]?\d){4,10})(?![0-9])",
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
    rf"(?:护照|通行证|passport)[^，。；0-9A-Za-z]{{0,8}}([A-Z]{{1,2}} ?\d{{7,8}}){_END}|{_START}(?<!字)(E[A-HJ-NP-Z]?\d{{7,8}}){_END}",
    re.IGNORECASE,
)
_RECORD = re.compile(
    r"(?:病历|病案|住院|门诊|就诊|医保|社保|诊疗|检查|检验|影像|登记|病理|档案|挂号|报告|标本|超声|放射|病床|床位|患者|病人|流水|健康卡|CT|MRI?|B超|X光|X线)"
    r"[卡单证]? ?(?:号码?|编号|ID号?|No\.?)[是为:# ]{0,3}((?=[A-Za-z0-9\-]*\d[A-Za-z0-9\-]*\d)[A-Za-z0-9][A-Za-z0-9\-]{2,24})(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def _passports(text: str) -> Iterator[tuple[int, int]]:
    for match in _PASSPORT.finditer(text):
        yield match.span(1) if match[1] else match.span(2)


# ---------------------------------------------------------------- birth dates

_DATE = (
    r"(?:(?:18|19|20)\d\d ?[年./\-] ?\d{1,2}(?: ?[月./\-] ?\d{1,2} ?[日号]?| ?月)|(?:19|20)\d{2}[01]\d[0-3]\d|\d\d年\d{1,2}月\d{1,2}[日号]"
    r"|[一二][九零〇][零〇一二三四五六七八九]{2}年[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}[日号])"
)
_BORN_AFTER = re.compile(rf"(?:出生|生日|生于|诞生|生辰|出世|DOB)[^0-9，。；一二]{{0,8}}({_DATE})(?!\d)", re.IGNORECASE)
_BORN_BEFORE = re.compile(rf"(?<!\d)({_DATE})[ ,，]?(?:出生|出世|生的|生人|生(?=[,，。；;、 ）)]|$))")


def _birth_dates(text: str) -> Iterator[tuple[int, int]]:
    yield from _group(_BORN_AFTER)(text)
    yield from _group(_BORN_BEFORE)(text)


# ---------------------------------------------------------------- addresses

_PROVINCE = (
    "北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾"
    "|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
)
_H = r"[\u4e00-\u9fff]"
_WAY = r"(?:路|街道?|大道|巷|弄|胡同|村|屯|组|新村|小区|花园|家园|公寓|社区|苑|广场|里|庄|寨|镇|乡|大厦|宿舍|城)"
_DOOR = r"(?:\d+ ?(?:号楼?|栋|幢|座|单元|室|弄|组|楼|层|门|排|户|[A-Z]座)|[A-Z]\d*[栋幢座室]|[一二三四五六七八九十]+(?:号楼|栋|幢|单元|组|楼|室)|-\d+)"
_ADDRESS = re.compile(
    rf"(?:{_PROVINCE})(?:省|市|自治区|壮族自治区|回族自治区|维吾尔自治区)?(?:{_H}{{1,7}}?(?:市|州|盟|地区|区|县|旗))(?:{_H}{{1,6}}?(?:市|区|县|旗))?"
    rf"(?:[\u4e00-\u9fff0-9A-Za-z]{{1,10}}?{_WAY}){{1,4}}(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*"
    rf"|(?:{_H}{{2,4}}(?:市|县))?(?:{_H}{{1,4}}区)?{_H}{{2,6}}?{_WAY}(?:{_H}{{0,6}}?{_WAY})? ?\d+ ?(?:号楼?|弄|栋|幢|座)(?:[\u4e00-\u9fffA-Za-z]{{0,6}}? ?{_DOOR})*"
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
    for match in _ADDRESS.finditer(text):
        lead = _LED_IN.match(match[0][:12])
        start = match.start() + (lead.end() if lead and not re.match(_PROVINCE, match[0]) else 0)
        yield start, match.end()


# ---------------------------------------------------------------- names

_SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白"
    "崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文庞樊兰殷施陶洪翟安颜倪严牛温芦季俞章鲁葛伍韦申尤毕聂丛焦向柳邢路岳齐沿梅莫庄辛管祝左涂谷祁时舒耿牟卜肖"
    "詹关苗凌费纪靳盛童欧甄项曲成游阳裴席卫查屈鲍位覃霍翁隋植甘景薄单包司柏宁柯阮桂闵解强柴华车冉房边净阴闫佘骆宫蒲褚娄窦戚"
)
_DOUBLE = "欧阳|司马|上官|诸葛|夏侯|皇甫|尉迟|公孙|慕容|司徒|令狐|东方|南宫|端木|长孙|宇文|西门"
_CLEAR = "王李张刘陈杨赵黄周吴徐孙胡朱林郭罗梁宋郑谢韩唐冯董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾魏薛叶阎潘杜戴钟汪姜姚谭廖邹熊陆郝崔邱秦侯邵孟段雷汤尹黎龚庞樊殷陶翟颜倪严俞葛聂邢岳骆肖"
_NAME = rf"(?:(?:{_DOUBLE}){_H}{{1,2}}|[{_SURNAMES}]{_H}{{1,2}})"
_STOP = r"(?=[，。,.;；:、！!？?\s()（）\[\]\-/|0-9]|$|今年|男|女|性别|年龄|先生|女士|的(?:病历|报告|检查|情况)|医生|大夫|主任|电话|手机|身份证|住|同志|医师)"
_LABELLED = re.compile(
    r"(?:姓 ?名|联系人|监护人|收件人|持卡人|户主|家属签[名字]|签 ?[名字]|(?:主治|主管|送检|报告|审核|申请|检查|经治|接诊|住院|值班)?(?:医师|医生|护士|患者|病人))"
    rf"(?:姓名)? ?[:=] ?({_H}{{1,4}}·{_H}{{2,8}}|{_NAME})(?!{_H}{{0,2}}[病症炎癌])" + _STOP
)
_LABELLED_NAME = re.compile(rf"姓 ?名 ?[:= ]? ?({_H}{{2,8}}·{_H}{{2,8}}|{_NAME}|{_H}{{2,3}})" + _STOP)
_CALLED = re.compile(
    r"(?:我叫|我的?名字[是叫]|名字[是叫]|本人叫|名叫|叫做|(?:妈妈?|爸爸?|儿子?|女儿|孩子|宝宝|老公|老婆|妻子|丈夫|奶奶|爷爷|母亲|父亲|患者|病人|朋友|同事|他|她)叫|实名)"
    rf" ?({_NAME}|{_H}{{1,6}}·{_H}{{1,8}})" + _STOP
)
_PATIENT = re.compile(
    rf"(?:患者|病人|患儿|产妇|本人|我是|家属) ?((?:{_DOUBLE}){_H}{{1,2}}|[{_SURNAMES}]{_H}{{1,2}})(?=[，,、。\s(（]|$|男|女|今年|先生|女士|\d)"
)
_TITLE = r"(?:医生|大夫|主任|教授|医师|护士长?|院长|专家|先生|女士|小姐|阿姨|叔叔|奶奶|爷爷|大爷|大妈|老师|同学|师傅)"
_TITLED = re.compile(
    rf"(?:^|(?<=[，。,.;；:、！!？?\s()（）“”\"是找问请叫跟给的谢]))((?:{_DOUBLE}){_H}{{0,2}}|[{_CLEAR}]{_H}{{0,2}}?)(?=(?:副?主任)?{_TITLE})"
)
# What begins like a name in these places and is none.
_NO_NAME = re.compile(
    r"高[血烧热度龄脂尿压危钾钙糖原频敏胆]|黄[疸体色褐痰斑曲连芪芩]|白[带斑癜血细天色内班蛋痰]|胡[萝思说]|马[上甲蹄桶齿]|牛[皮奶肉]|温[度水热]|安[全静胃定眠]|常[常年规见有用]|平[时常]"
    r"|时[间常有候]|方[法便案式]|金[黄属钱]|石[膏头]|水[肿痘]|单[纯位侧独身]|成[年人功]|关[节于心系注]|段[时]|左[侧右腿手肩眼边下上]|包[皮块括]|毛[囊病孔]|宫[颈外腔内]|阴[道囊虚部]|阳[痿虚性]"
    r"|项[目]|向[来上下]|何[时种]|文[化]|万[一]|于[是]|路[上]|梅[毒]|辛[苦辣]|车[祸]|强[直迫烈]|解[决放]|任[何]|易[感怒]|余[下]|雷[诺]|管[理]|曾[经有患用在因行服]|许[多久]|张[力口]|周[围期身岁末]"
    r"|程[度]|梁[骨]|林[巴]|唐[氏筛]|杜[绝冷]|韩[国]|江[湖]|范[围]|查[体出]|华[法]|陈旧|陈述|史[不]|席[汉]|严[重格]|施[行]|应[该]|熊[猫]|贺[普]|苏[醒打]|秦[皮]|叶[酸黄]|薄[弱]|甘[油草]|植[入物]|童[年]"
    r"|经|孕|产妇|儿童|患者|病人|(?:.{1,2}(?:病|症|炎|癌|痛|史|药|性|科|专|门|值|治|全|院))$|(?:王|李|张|刘|陈)(?:牌)|朱砂|沈(?:淀)|雷公|康复|武汉|龙胆|边缘|位置|房(?:颤|间|室|事|子)|卫生|申请|江西|江苏|海南"
)


def _names(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_LABELLED, _LABELLED_NAME, _CALLED, _PATIENT, _TITLED):
        for match in pattern.finditer(text):
            thanks = match[1][0] == "谢" and (
                match[1][1:2] in set("谢您你") or text[match.start(1) - 1 : match.start(1)] in set("谢感多")
            )
            if not thanks and not _NO_NAME.match(match[1]):
                yield match.span(1)


_RECOGNISERS: tuple[tuple[str, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    ("email", _whole(_EMAIL)),
    ("url", _whole(_URL)),
    ("id_card", _id_cards),
    ("mobile", _whole(_MOBILE)),
    ("bank_card", _bank_cards),
    ("qq", _group(_QQ)),
    ("wechat", _group(_WECHAT)),
    ("record_no", _group(_RECORD)),
    ("passport", _passports),
    ("landline", _landlines),
    ("plate", _whole(_PLATE)),
    ("birth_date", _birth_dates),
    ("address", _addresses),
    ("name", _names),
)

# Every recogniser needs one of these; it is plain enough for any regular expression engine, and fast. On normalised text only.
TRIGGER = (
    r"[0-9](?:[ .\-]{0,3}[0-9]){5}|@|艾特|\(at\)|\[at\]|(?i:https?|www\.|\.(?:com|cn|net|org|edu|gov|top|vip|info|cc|hk|tw|xyz|site|wang|club))"
    r"|(?i:[微薇威徽巍v] ?-?信|weixin|wechat|v-?xin|[vw]x|v[号:：])|[零〇一幺二三四五六七八九]{9}|出生|生日|生于|诞生|生辰|出世|生的|生人"
    rf"|[{_PLATES}][A-HJ-NP-Z]|号码?|编号|\dn?o\.|住址|地址|家住|住在|现住|居住|户籍|寄到|收货|[路街巷弄村组区园苑寓] ?[0-9]"
    r"|姓 ?名|联系人|监护人|收件人|持卡人|户主|签[ 名字]|[:：=]\p{Han}{2,3}|叫|实名|患者|病人|患儿|产妇|本人|我是|家属"
    rf"|[{_CLEAR}]\p{{Han}}{{0,2}}?(?:副?主任)?{_TITLE}|(?:{_DOUBLE})\p{{Han}}{{0,2}}{_TITLE}"
)
