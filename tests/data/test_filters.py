"""Each rule hits what it is named after and leaves good answers alone; normalising keeps the meaning of doses and units."""

import polars as pl
import pytest

from xinglin.data import filters
from xinglin.data.normalise import normalise_text

GOOD = "考虑慢性胃炎，建议到消化内科做胃镜；平时规律进食，少吃辛辣。"


def reason(answer: str, question: str = "胃疼怎么办？") -> str | None:
    frame = pl.DataFrame({"question": [question], "answer": [normalise_text(answer)]})
    found: str | None = frame.select(filters.reasons(10, 4000)).item()
    return found


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("您好，很高兴为您解答，祝您早日康复！", "greeting_only"),
        ("同上，不再重复。", "non_answer"),
        ("请点击下方链接在线咨询", "non_answer"),
        ("请自己去百度", "non_answer"),
        ("您好，我是张医生，很高兴为您服务，请问有什么可以帮您？", "greeting_only"),
        ("感谢您的信任，祝您健康！", "greeting_only"),
        ("亲爱的患者您好，请您稍等，医生马上为您解答。", "greeting_only"),
        ("不客气，祝早日康复", "greeting_only"),
        ("请点击我的名字进行咨询", "non_answer"),
        ("可以点击我的头像，申请付费咨询", "non_answer"),
        ("已回复，请查看上一条", "non_answer"),
        ("加我好友详细聊，V❤：abc123，我看一下片子。", "contact_soliciting"),
        ("这个要面谈，加薇 lisi8888 详细说说你的情况。", "contact_soliciting"),
        ("加入患者交流群 123456789，里面有老师讲课。", "contact_soliciting"),
        ("有需要的话私我，我把方子发给你，很便宜的。", "contact_soliciting"),
        ("多喝水。", "too_short"),
        ("……！！", "empty_answer"),
        ("Please see a doctor as soon as possible.", "no_chinese"),
        ("注意休息，多喝热水。" * 8, "repetition"),
        (f"{GOOD}{'。' * 40}", "repetition"),
        ("胃疼怎么办？", None),
        ("详情请加我微信 wq_2019abc，发舌苔照片给我看看。", "contact_soliciting"),
        ("可以拨打咨询电话：4000322310进行询问，也可网上咨询。", "contact_soliciting"),
        ("心理问题请拨打咨询电话：010-82951333，专人接听。", "contact_soliciting"),
        ("扫描头像里的二维码进群领取护理资料，有老师指导。", "contact_soliciting"),
        ("祖传秘方专治胃病，三盒见效，无效退款，货到付款。", "advertisement"),
        ("欢迎来院就诊，我院名医团队亲自坐诊，免费检查名额不多。", "advertisement"),
        ("先做胃镜，明确有没有溃疡，如果幽门螺杆菌阳性，就需要", "cut_off"),
        ("先规律饮食。再观察三天。若仍疼痛可口服奥美拉唑肠溶胶囊，饭前吃，并", "cut_off"),
        ("这是 ï¼Œä½ å¥½ä¸­å›½ ï¼Œè¯· çš„å›žç­” 内容。", "mojibake"),
        ("鐥涚敤渚濇墭鑰冩様锛岄檷灏块吀鐨勮嵂绛変笉鐥涗袱鍛ㄤ互鍚庡啀鍔犮", "mojibake"),
    ],
)
def test_hits(answer: str, name: str | None) -> None:
    question = "胃疼怎么办？" if name else "胃疼怎么办"
    assert reason(answer, question) == (name or "too_short")


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        "请不要独自承受，心理援助热线010-82951332可以24小时拨打，也可以打 400 161 9995。",
        "可以拨打当地的心理危机干预热线0571-88880000，全天有人接听。",
        "如出现胸痛大汗，立即拨打120；心理援助可拨12356。不要自己开车去医院。",
        "乙肝没有根治的办法，不要相信能够包治百病的偏方，请到正规医院的肝病科就诊。",
        "可以吃甲硝唑，每次0.2g，一天3次，连用7天，期间不能喝酒，祝您早日康复",
        "两个疗程后复查。手术费用在1500元到2000元左右，不同医院略有差别。",
        "通过微信挂号即可，复查时带上以前的报告单，建议挂消化内科。",
        "体温38.5℃以上可以吃布洛芬，间隔6小时以上；WBC 12×10^9/L 提示感染。",
        "您好，胃疼多与饮食有关，希望我的回答对您有帮助，祝您健康！",
        "先规律饮食。再观察三天。若仍疼痛可口服奥美拉唑肠溶胶囊并复查幽门螺杆菌抗体滴度",
        "考虑是胃炎。先观察两天，注意休息，少吃多餐，",
        "血型不合的溶血多在出生后两天内出现，我是建议先查胆红素，请稍等结果出来再决定。",
        "家长可以加入学校组织的运动，每天跳绳，改善微量元素缺乏。",
        "加微波炉热敷十分钟即可缓解，注意避免烫伤；加V形垫也有帮助。",
        "1. 清淡饮食\n2. 按时服药\n3. 两周后复查\n4. 疼痛加重立即就诊\n5. 戒烟戒酒",
    ],
)
def test_leaves_good_answers_alone(answer: str) -> None:
    assert reason(answer) is None


def test_a_copied_question_and_missing_chinese_in_the_question() -> None:
    assert reason("胃疼三天了，要不要做胃镜检查？", "胃疼三天了，要不要做胃镜检查？") == "question_equals_answer"
    assert reason(GOOD, "stomach ache") == "no_chinese"
    assert reason(GOOD, "？？") == "no_question"
    assert reason(GOOD * 200) in {"too_long", "repetition"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("体温３８．５℃，吃０．３ｇ布洛芬①", "体温38.5℃,吃0.3g布洛芬①".replace(",", "，")),
        ("ＣＴ检查：①正常；②ＷＢＣ　１２×１０⁹／Ｌ", "CT检查：①正常；②WBC 12×10⁹/L"),
        ("10<sup>9</sup>/L，H<sub>2</sub>O", "10^9/L，H2O"),
        ("血压&lt;140/90mmHg&nbsp;&nbsp;正常&amp;amp;稳定", "血压<140/90mmHg 正常&稳定"),
        ("<p>第一段</p><p>第二段<br/>换行</p><script>alert(1)</script>", "第一段\n\n第二段\n换行"),
        ("&lt;br/&gt;多喝水<a href='x'>详情</a>", "多喝水详情"),
        ("pH<7.35且PaCO2>45，a<b", "pH<7.35且PaCO2>45，a<b"),
        ("零\u200b宽\ufeff字\u00ad符\x00和\x07控制", "零宽字符和控制"),
        ("多  个   空格\r\n\r\n\r\n\r\n换\u3000行", "多 个 空格\n\n换 行"),
        ("５㎎、㎝、½片、Ⅱ型、㎡", "5mg、cm、½片、Ⅱ型、㎡"),
        ("⼀⽇三次", "一日三次"),
        ("e\u0301", "é"),
        ("你好！（请问）：是的；", "你好！（请问）：是的；"),
    ],
)
def test_normalises_without_changing_the_meaning(text: str, expected: str) -> None:
    assert normalise_text(text) == expected
    assert normalise_text(expected) == expected


def test_traditional_becomes_simplified_only_when_asked() -> None:
    assert normalise_text("頭暈、咳嗽兩週") == "頭暈、咳嗽兩週"
    assert normalise_text("頭暈、咳嗽兩週", simplified=True) == "头晕、咳嗽两周"
