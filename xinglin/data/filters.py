"""Filters: what makes a row unfit for training, each rule with a name.

In: a Polars frame with normalised ``question`` and ``answer``. Out: a column with the name of the first rule that hits, or null::

    "您好，加我微信 abc_2020 细说。"   ->   "contact_soliciting"
"""

import re
from collections.abc import Mapping

import polars as pl

from xinglin.safety.contacts import CRISIS_LINES

NAMES = {
    "unreadable": "无法读取",
    "no_question": "没有问题",
    "no_answer": "没有回答",
    "empty_answer": "回答为空",
    "mojibake": "乱码",
    "no_chinese": "没有中文",
    "greeting_only": "只有客套话",
    "non_answer": "答非所问（见上、同上、点此咨询）",
    "too_short": "太短",
    "too_long": "太长",
    "question_equals_answer": "回答照抄问题",
    "repetition": "重复刷屏",
    "contact_soliciting": "索要或留下联系方式",
    "advertisement": "广告",
    "cut_off": "回答中断",
    "same_answers": "好坏两个回答相同",
    "benchmark": "与评测题重合",
    "exact_duplicate": "完全重复",
    "near_duplicate": "近似重复",
}

_CHINESE_NUMBER = "[一二三四五六七八九十百千\\d]"

# UTF-8 read as GBK shows these ideographs, which no simplified text uses; GBK read as Latin-1 shows runs of À-ÿ.
_MOJIBAKE = "|".join((
    r"\x{FFFD}|锟斤拷|烫烫烫|[\x{E000}-\x{F8FF}]{2}|[À-ÿ][À-ÿ¡-¿]{3}",
    r"(?:[锛銆鐨鍙鏄鍚鍦鍐鐥鎴鍒鎮杩鑳闂紝].{0,12}){3}",
))  # fmt: skip
_GREETING = "|".join((
    r"亲爱的?(?:患者|朋友|用户)?|[您你]好[呀啊吗]?|亲|在的[哦呢]?|(?:很)?高兴(?:能)?为[您你](?:解答|服务)|早上好|晚上好|下午好",
    r"我是[^，。！!,]{0,8}(?:医生|大夫|主任|药师)|(?:请[您你]?)?(?:稍等|稍候)(?:片刻|一下)?|医生(?:会?马上|稍后|正在)为[您你][^，。！!,]{0,6}|欢迎(?:咨询|提问)",
    r"感谢[您你](?:对我)?的?(?:信任|咨询|提问)|[您你]的问题我已经?看到了?",
    r"(?:希望|期望)(?:我|以上)的?(?:回答|解释|建议|解答)?(?:能)?对[您你]有所?帮助",
    r"祝[您你]?(?:早日|身体|生活|工作|全家|家人|开心|天天|健康|平安|幸福|好运|顺利)[^。！!，,]{0,10}",
    r"(?:早日康复|身体健康|生活愉快)|谢谢[您你]?(?:的咨询|的信任)?|不(?:用)?客气|不用?谢|再见|好的",
    r"这里是[^。，]{0,15}(?:为[您你]服务|医生)|请问有什么(?:可以)?帮[到助]?[您你]?的?",
))  # fmt: skip
_NON_ANSWER = "|".join((
    r"(?:答案|回答|回复)?(?:见|同|如)(?:上|楼上|前)(?:面)?(?:的?(?:回答|回复|所述))?[，。,.！!]?(?:$|不再|看|即可|谢谢)",
    r"(?:参考|看|问|同意?)楼上|楼上(?:说|正解|回答)|看我(?:前面|之前|上面)的",
    r"点(?:此|击(?:这里|此处|链接|进入|头像|下方))[^。]{0,10}(?:咨询|查看|提问|预约|问诊)",
    r"点(?:击)?一?下?我的?(?:头像|名字|主页)|申请(?:付费|电话|图文)咨询|(?:请|可以?)?(?:查看|看)(?:我的?)?上一条|已(?:经)?回复[，,。]?(?:请|见|查)|详见附件",
    r"自己(?:去)?(?:百度|搜|查)|百度一下|帮顶|帮你顶|路过|占楼|同问|求解答",
    r"^(?:这个)?(?:我)?(?:也)?不太?(?:清楚|知道|懂)[，,。！!]?(?:帮顶|等|路过|$|建议问)",
))  # fmt: skip
_CONTACT_NUMBER = r"(?:1[3-9]\d[ -]?\d{4}[ -]?\d{4}|0\d{2,3}[ -]?\d{7,8}|[48]00[ -]?\d{3,4}[ -]?\d{3,4}|\b[2-9]\d{6,7}\b)"
# To name a crisis line is no soliciting: the known ones, and what is called one.
_CRISIS = "|".join(line.replace("-", "[ )）-]{0,2}") for line in CRISIS_LINES) + (
    rf"|(?:心理援助|心理危机|危机干预|预防自杀|自杀干预|生命热线|希望24)[^。；，]{{0,20}}?{_CONTACT_NUMBER}"
)
# Kept apart: joined into one, they no longer fit the engine's cache and take fifty times as long.
_CONTACT = tuple("(?i)" + pattern for pattern in (
    r"(?:加|扣|添加|联系|咨询|关注|搜)(?:我|一下|个|下)?(?:的)?(?:医生)?(?:个人)?"
    r"(?:微信|薇信|威信|v信|vx|wx|qq|扣扣|企鹅|公众号|v[:： ])",
    r"(?:微信|薇信|威信|v信|vx|wx|qq|扣扣|同号)(?:群|号|号码)?\s?(?:是|为|:|：)?\s?[a-z0-9_-]{5,}",
    r"加(?:我|个|一下|下)?好友|(?:加|➕)(?:我)?[薇微威徽v][❤♥心]?\s?[:：]?\s?[a-z][a-z0-9_-]{4,}|[v薇威][❤♥][:：]?\s?[a-z0-9_-]{4,}",
    r"(?:加入?|进)[^。，]{0,10}(?:交流|患者|病友|咨询|微信|qq)群|卫星号?\s?[:：]?\s?[a-z][a-z0-9_-]{5,}",
    r"群号\s?[:：]?\s?\d{6,}|(?:私信|私聊|私)我|有需要(?:的)?私信|(?:扫|识别)[^。，]{0,8}二维码",
    r"(?:发|传)(?:到|给|至)?我(?:的)?邮箱|留下?(?:您|你)?的?(?:姓名|电话|手机|联系方式|微信|qq)",
    rf"(?:拨打|致电|来电|电话|热线|打|联系|手机|咨询)[^。]{{0,12}}{_CONTACT_NUMBER}",
    r"[a-z0-9._-]+@[a-z0-9-]+\.[a-z]{2,}",
))  # fmt: skip
# One of these is enough, ...
_ADVERTISEMENT = "|".join((
    r"祖传(?:秘|验|老)?方|宫廷秘方|无效(?:包)?退款|(?:全额|不好|包)退款|货到付款|先到先得|名额有限|机会难得|错过再等",
    r"特惠价|立减|领券|优惠券|优惠卡|优惠活动|厂家直销|零元加盟|(?:诚)?招(?:各地区?)?代理|一件代发|旗舰店",
    rf"月入过万|老客带新客|买{_CHINESE_NUMBER}送{_CHINESE_NUMBER}|签约治疗",
))  # fmt: skip
# ... of these three different ones.
_PROMOTION = "|".join((
    r"我院|本院|我们医院|(?:专科|男科|妇科|皮肤|口腔|不孕|白癜风|癫痫|骨科)医院|专科门诊部|口腔！",
    r"欢迎(?:预约|来院|前来|您)|预约来院|名医团队|专家团队|专家坐诊|亲自坐诊",
    r"免费(?:检查|会诊|咨询|领取|挂号)|检查费全免|(?:德国|美国|日本|国际)(?:进口|先进|领先)|唯一一家|活动价|特价",
    rf"{_CHINESE_NUMBER}+元(?:一[颗盒]|[颗盒起])|周年庆|国庆期间|最后{_CHINESE_NUMBER}天|直降|随治随走|专利配方",
    rf"吸收率[^。]{{0,8}}倍|彻底根治|能根治|不复发|纯天然|无副作用|包治百病|第{_CHINESE_NUMBER}+代|推荐使用|下单|连锁门店",
))  # fmt: skip
# How a text ends that breaks off. A missing full stop says nothing: half of all web answers lack it, and many end on a comma.
_BREAKS_OFF = "(?:" + "|".join((
    r"[^的了康。！，,\s]、|[：:《〈—]|[（(“【][^（()“”）【】\"。！？]{0,25}",
    r"(?:^|[\s。；;！？，,：:])(?:\d{1,2}[、.．)）]|[(（]\d{1,2}[)）]|[一二三四五六七八九十]、|第[一二三四五六七八九十]|[①-⑳])",
    r"(?:疗程|每日|每天|一天|一日|每次|一次|剂量|大约|大概|约|共)\d{1,2}",
    # Characters that begin a word and, in the right sense, end none.
    r"[^疾后]患|[建就还也或很癫都其但自再并较避每仔咨恢采配营又朋另蔬彻恰希第锻肚至摄协综携愉各互螺幽啤胰扩尤逐瘙荨哮甚萎遵虽某咋纾仍]",
    r"[^缓柔温饱中平调总暖]和|[^参给赋]与|[以]及|[^反]而|[^原规准守法]则|[^盖棉]被|[^麻]将|[^服听顺盲]从",
    # Words that need another behind them.
    r"但是|因为|所以|因此|因而|从而|然而|如果|假如|倘若|虽然|即使|只有|只要|除非|无论|不管|不仅|不但|或者|并且|而且|例如|比如|譬如|诸如|包括",
    r"尤其是?|特别是|甚至|一方面|还是|随着|按照|对于|由于|属于|针对|为了|以便|以免|致使|促使|分为|表现为|称为|主要为|多为|均为|较为",
    r"(?:其次|首先|再次|最后|主要|尤其|一般|通常|多半|多数|往往|可能|应该|就|这|也|而|不|都)是|主要有|常见的?有|常用的?有|大概需|一般用|应该|必须",
    r"马上|立即|(?:平时|同时|生活中|饮食上)要?注意|[^是的为作]首选|(?:[，。；,\s者您你]|[还就则都]|一般|同时|首先|通常)需要|(?:[，。；,\s者您你]|另外|平时|一般|同时)可以",
    r"(?:[，。；,\s]|[我还]|同时|因此)建议|(?:^|[^万要好能])不要|(?:[，。；,\s]|[也就都还者您你])不能|切勿|如果[^，。！？；]{1,15}的话",
    r"(?:对于?|就)[^，。！？；]{1,20}(?:来说|而言|来讲)[，,]?",
    # Words cut in half.
    r"(?:其次|首先|主要|进行|药物|手术|保守|对症|及时|长期|规范)是?治|根除治|[来以者再后]决|进行检|(?:平时|生活中|[请要应需])注|加强锻",
    r"(?:正规|当地|咨询|到|去|的|专科)医|(?:主要|常见|有关|可疑)病|(?:主要|常见|根本|具体|有关|的)原|[的种这]情|[，。；,]因|[，。；,者您你]可",
    r"消化内|心内|神经内|呼吸内|幽门螺旋?|胃镜检|螺旋杆|血常|尿常|心电|奥美拉|阿莫西|阿司匹|布洛|头孢[克呋拉]|抗生|维生|免疫系",
)) + r")\s*$"  # fmt: skip


def reasons(min_chars: int, max_chars: int) -> pl.Expr:
    """The name of the first rule that hits a row of ``question`` and ``answer``, or null."""
    question, answer = pl.col("question"), pl.col("answer")
    length = answer.str.len_chars()
    return _first(
        {
            "no_question": ~question.str.contains(r"\w"),
            "empty_answer": ~answer.str.contains(r"\w"),
            "mojibake": answer.str.contains(_MOJIBAKE) | question.str.contains(_MOJIBAKE),
            "no_chinese": ~answer.str.contains(r"\p{Han}") | ~question.str.contains(r"\p{Han}"),
            "greeting_only": courtesy(answer),
            "non_answer": _evades(answer),
            "too_short": length < min_chars,
            "too_long": length > max_chars,
            "question_equals_answer": question == answer,
            "repetition": _repeats(answer),
            "contact_soliciting": _solicits(answer),
            "advertisement": _advertises(answer),
            "cut_off": cut_off(answer),
        }
    )


def unfit(answer: pl.Expr) -> pl.Expr:
    """The name of the first rule that an answer breaks wherever it stands in a dialogue, or null."""
    return _first(
        {
            "mojibake": answer.str.contains(_MOJIBAKE),
            "non_answer": _evades(answer),
            "repetition": _repeats(answer),
            "contact_soliciting": _solicits(answer),
            "advertisement": _advertises(answer),
        }
    )


def _first(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(*(pl.when(hit).then(pl.lit(name)) for name, hit in rules.items()), pl.lit(None, pl.String))


def courtesy(answer: pl.Expr) -> pl.Expr:
    """Greetings, thanks and wishes, and nothing else."""
    short = pl.when(answer.str.len_chars() < 80).then(answer).otherwise(pl.lit(""))
    return short.str.contains(_GREETING) & (short.str.replace_all(_GREETING, "").str.count_matches(r"\w") < 4)


def _evades(answer: pl.Expr) -> pl.Expr:
    return (answer.str.len_chars() < 40) & answer.str.contains(_NON_ANSWER)


def _solicits(answer: pl.Expr) -> pl.Expr:
    found = pl.any_horizontal(answer.str.contains(pattern) for pattern in _CONTACT)
    return pl.when(found).then(answer).map_batches(_soliciting, return_dtype=pl.Boolean)


def _soliciting(answers: pl.Series) -> pl.Series:
    """Of the few answers with a contact those that still have one without their crisis lines."""
    rest = [text if text is None else re.sub(_CRISIS, "", text) for text in answers]
    found = [text is not None and any(re.search(pattern, text) for pattern in _CONTACT) for text in rest]
    return pl.Series(answers.name, found, dtype=pl.Boolean)


def _advertises(answer: pl.Expr) -> pl.Expr:
    return answer.str.contains(_ADVERTISEMENT) | _promotes(answer)


def _promotes(answer: pl.Expr) -> pl.Expr:
    return answer.str.extract_all(_PROMOTION).list.n_unique() >= 3


def cut_off(answer: pl.Expr) -> pl.Expr:
    """An end that needs more behind it: an open bracket, a bare list number, a conjunction, half a word."""
    return answer.str.slice(-30).str.contains(_BREAKS_OFF)


_LOOP = re.compile(r"(.{4,80}?)\1{3,}|(.)\2{15,}", re.DOTALL)


def _repeats(answer: pl.Expr) -> pl.Expr:
    """A loop over a third of the text covers its first or second third mark; what stands there must stand there thrice."""
    third = pl.max_horizontal(answer.str.len_chars() // 3, 4)
    marks = [answer.str.slice(place * third, 4) for place in (1, 2)]
    often = pl.any_horizontal(answer.str.count_matches(mark, literal=True) >= 3 for mark in marks)
    looping = pl.when(often).then(answer).map_batches(_repetitive, return_dtype=pl.Boolean)
    return (answer.str.len_chars() >= 20) & looping


def _repetitive(answers: pl.Series) -> pl.Series:
    return pl.Series(answers.name, [text is not None and repetitive(text) for text in answers], dtype=pl.Boolean)


def repetitive(text: str) -> bool:
    """Whether a phrase of 4 to 80 characters stands four times in a row and fills a third of the text."""
    return any(match.end() - match.start() > len(text) / 3 for match in _LOOP.finditer(text))
