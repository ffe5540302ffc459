"""The faithfulness check: what a rewritten answer must not bring, drop or turn round."""

import pytest

from xinglin.safety import faithfulness
from xinglin.schema import Answer

SOURCE = "像是咽炎，可以口服布洛芬缓释胶囊0.3g，一日两次，最多5天，胃溃疡的人禁用。不要抽烟喝酒，三天不好去医院看。"
KEPT = "口服布洛芬缓释胶囊，每次0.3克，每日2次，不超过5天；胃溃疡患者禁用。戒烟，禁酒，三天未愈应就医。"


def kinds(rewritten: str, source: str = SOURCE, question: str = "我嗓子疼，左耳也疼，28岁") -> set[str]:
    return {finding.kind for finding in faithfulness.check(question, source, rewritten)}


def test_other_words_for_the_same_are_faithful() -> None:
    assert kinds(KEPT) == set()
    assert (
        kinds(Answer.from_points([("咽痛。", "考虑咽炎。"), ("未提及。", "未提及。"), ("三天未愈就医。", KEPT)]).render())
        == set()
    )


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("布洛芬", "双氯芬酸", "new drug"),
        ("口服布洛芬缓释胶囊，", "", "dropped drug"),
        ("0.3克", "3克", "new number"),
        ("0.3克", "0.3毫克", "new number"),
        ("0.3克", "0.3mg", "dropped dose"),
        ("每日2次", "每日4次", "dropped dose"),
        ("不超过5天；", "", "dropped limit"),
        ("胃溃疡患者禁用。", "", "dropped prohibition"),
        ("胃溃疡患者禁用", "胃溃疡患者可用", "flipped prohibition"),
        ("戒烟，禁酒，", "", "dropped prohibition"),
        ("口服", "血常规提示白细胞升高，口服", "new result"),
        ("口服", "根据您的检查结果，口服", "new result"),
        ("口服", "坚持用药可以根治，口服", "new certainty"),
        ("口服", "您得的是急性咽炎，口服", "new certainty"),
        ("口服", "右耳疼痛。口服", "laterality"),
        ("戒烟", "孕妇慎用，戒烟", "pregnancy"),
    ],
)
def test_each_kind_of_error_is_found_and_its_span_named(old: str, new: str, kind: str) -> None:
    findings = faithfulness.check("我嗓子疼，左耳也疼，28岁", SOURCE, KEPT.replace(old, new))
    assert kind in {finding.kind for finding in findings}
    assert all(finding.span and finding.span in finding.message for finding in findings)


def test_hypothetical_results_and_denied_cures_are_not_claims() -> None:
    assert kinds(KEPT + "若血常规提示白细胞升高应复诊，本病难以根治。") == set()


def test_results_and_measures_of_the_question_may_be_told_again() -> None:
    said = "血常规提示白细胞升高，体温38.5℃。" + KEPT
    assert kinds(said, question="查血常规，白细胞偏高，发烧38.5，怎么办") == set()
    assert "new number" in kinds(said, question="查血常规，白细胞偏高，怎么办")


def test_brand_and_generic_name_are_one_drug() -> None:
    assert kinds("可用对乙酰氨基酚0.5g退热。", source="可以吃扑热息痛0.5g退烧。") == set()


def test_what_stands_in_another_unit_is_the_same_dose() -> None:
    assert kinds("每次500mg，连用14天。", source="一次0.5克，吃两周。", question="胃炎") == set()


def test_ages_and_pregnancy_of_the_source_must_stay() -> None:
    source = "12岁以下儿童和孕妇禁用。"
    assert kinds("12岁以下儿童禁用，孕妇禁用。", source=source) == set()
    assert "age" in kinds("儿童禁用，孕妇禁用。", source=source)
    assert "pregnancy" in kinds("12岁以下儿童禁用。", source=source)


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("不要吃辣的油炸的，别熬夜。", "饮食清淡，保证充足睡眠。"),
        ("药别自己停。", "切勿擅自中断用药。"),
        ("伤口别沾水。", "保持创口干燥。"),
        ("樟脑丸别放衣柜。", "避免接触樟脑丸。"),
        ("怀孕不能吃逍遥丸。可以吃维生素B6。", "可服维生素B6。逍遥丸孕妇禁用。"),
        ("千万别开大氧气。", "切勿调高氧流量。"),
        ("别撸铁。", "不宜做力量练习。"),  # no word in common: the only prohibition of each
    ],
)
def test_a_prohibition_is_kept_by_its_meaning(source: str, rewritten: str) -> None:
    assert kinds(rewritten, source=source, question="") == set()


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("别喝酒，别吹冷风。", "饮酒可能是诱因。避免受风。"),
        ("有抑郁症的不要用氟桂利嗪。", "预防用氟桂利嗪5mg。"),
        ("不要热敷，不要喝酒。", "避免热敷，注意休息。"),
        ("不能自己停药。", "先停用洗液，不适随诊。"),
        ("别趴着睡。", "取仰卧位，枕头放低。"),
    ],
)
def test_a_prohibition_is_dropped_where_no_warning_speaks_of_it(source: str, rewritten: str) -> None:
    assert "dropped prohibition" in kinds(rewritten, source=source, question="用氟桂利嗪5mg")


@pytest.mark.parametrize(
    "source", ["不用担心。", "别自己吓自己。", "不发烧，能吃能睡。", "不吃也没事。", "不吃奶、尖叫马上去医院。"]
)
def test_comfort_and_description_are_no_prohibitions(source: str) -> None:
    assert kinds("注意观察。", source=source, question="") == set()


@pytest.mark.parametrize(
    ("source", "rewritten"),
    [
        ("一天吃一片半，吃一个半月。", "每日1.5片，服1.5月。"),
        ("每天各一次，吃一个星期。", "每日1次，共1周。"),
        ("8到12次一天。", "每日8～12次。"),
        ("睡前吃一粒。", "每晚1粒，每日1次。"),
        ("一天两次以内。", "每日不超过2次。"),
        ("喝两千毫升水。", "饮水2000ml。"),
    ],
)
def test_numbers_in_other_words_are_the_same(source: str, rewritten: str) -> None:
    assert kinds(rewritten, source=source, question="") == set()


SPELLINGS = {
    "每日2次": ["bid", "2次/日", "2次/d", "一天两次", "日2次", "每天2回", "q12h", "每12小时1次", "早晚各一次", "一早一晚各一次"],
    "200mg": ["200毫克", "200MG", "0.2g", "0.2克", "２００mg"],
    "0.75片": ["四分之三片", "3/4片", "¾片"],
    "1.5小时": ["一个半小时", "1个半小时", "90分钟", "90min", "一个半钟头"],
    "5-10mg/kg": ["5到10毫克每公斤", "5～10毫克/公斤", "每公斤体重5至10毫克", "5~10mg/(kg·d)"],
    "2-3个月": ["两三个月", "2到3个月", "二三个月", "2、3个月"],
    "38.5℃": ["38.5度", "38度5", "三十八度五", "38.5°C", "38.5摄氏度"],
    "12年": ["十二年", "12余年", "十二年多"],
    "隔日1次": ["隔天一次", "隔一天用一次", "每两天一次", "qod", "每2日1次"],
    "切勿抽烟": ["戒烟", "不要吸烟", "别抽烟", "请勿吸烟", "切莫吸烟", "禁止吸烟", "应避免吸烟", "不得吸烟", "远离香烟"],
}


@pytest.mark.parametrize(("one", "other"), [(one, other) for one, others in SPELLINGS.items() for other in others])
def test_each_spelling_stands_for_each_other(one: str, other: str) -> None:
    text = "布洛芬{}，饭后。"
    assert kinds(text.format(one), source=text.format(other), question="") == set()
    assert kinds(text.format(other), source=text.format(one), question="") == set()


@pytest.mark.parametrize(
    ("source", "rewritten", "question"),
    [
        ("塞来昔布一天一粒200mg。", "塞来昔布200mg（1粒），每日1次。", ""),
        ("阿仑膦酸钠70mg一周吃一片。", "阿仑膦酸钠70mg（1片），每周1次。", ""),
        ("氨氯地平5mg，在家早晚各量一次。", "氨氯地平5mg，每日早晚测量。", ""),
        ("补液盐一包兑250毫升温水。", "补液盐每包以250ml温水冲调。", ""),
        ("那种一喷就通的滴鼻净不能久用。", "滴鼻净不宜长期使用。", ""),
        ("头孢不是必须的话就停了吧。", "如头孢并非必需，建议停用。", ""),
        ("阿托伐他汀20mg，肌肉疼就停他汀来医院。", "阿托伐他汀20mg，疼痛明显则停他汀并就诊。", ""),
        ("过三天再测一次。", "验孕结果为阴性，3天后复测。", "验孕棒一条杠"),
        ("观察。", "超声检查未见异常，观察。", "B超是好的"),
        ("自己突然停药很危险，千万别。", "切勿自行突然停药。", ""),
        ("哮喘别吃普萘洛尔，心慌吃普萘洛尔10mg。", "心慌可服普萘洛尔10mg，哮喘患者禁用普萘洛尔。", ""),
        ("洗完翻回来，别卡住。", "洗后复位，防止嵌顿。", ""),
        ("起床慢点，头晕别摔了。", "缓慢起床，防头晕跌倒。", ""),
        ("长期头痛的人不能吃避孕药，抽烟的也不行。", "有头痛者、吸烟者，禁用避孕药。", ""),
    ],
)
def test_spoken_advice_and_its_written_form_are_the_same(source: str, rewritten: str, question: str) -> None:
    assert kinds(rewritten, source=source, question=question) == set()


def test_one_warning_does_not_stand_for_two_prohibitions() -> None:
    source = "白天别睡觉，睡前别看手机，手机别带上床。"
    assert kinds("白天不要睡觉，睡前不要看手机，手机勿带上床。", source=source, question="") == set()
    assert "dropped prohibition" in kinds("白天不要睡觉，手机勿带上床。", source="别喝酒，" + source, question="")


COPIED = (
    "控释片整片吞，千万不可掰开、嚼碎。每周减一次，减到没有为止，不要自己突然停。大人嚼过的食物不要喂给孩子，餐具煮沸15分钟。"
)


@pytest.mark.parametrize("dropped", ["千万不可掰开、嚼碎", "不要自己突然停", "大人嚼过的食物不要喂给孩子"])
def test_in_an_answer_in_the_sources_words_what_stands_beside_a_prohibition_does_not_stand_for_it(dropped: str) -> None:
    assert kinds(COPIED, source=COPIED, question="") == set()
    rewritten = COPIED.replace(dropped, "").replace("，。", "。").replace("。，", "。")
    assert kinds(rewritten, source=COPIED, question="") == {"dropped prohibition"}


@pytest.mark.parametrize(
    ("said", "turned"), [("不可掰开", "可以掰开"), ("不要自己突然停", "可以自己突然停"), ("不要喂", "可以喂")]
)
def test_a_permission_in_the_place_of_a_prohibition_is_found(said: str, turned: str) -> None:
    assert "flipped prohibition" in kinds(COPIED.replace(said, turned), source=COPIED, question="")


@pytest.mark.parametrize(
    ("question", "source", "rewritten"),
    [
        ("上周查出脂肪肝。", "少喝酒。", "患者已诊断为脂肪肝，少喝酒。"),
        ("会不会复发？", "定期复查。", "询问会不会复发。定期复查。"),
        ("拍片说没骨折。", "先冰敷。", "拍片显示没有骨折，先冰敷。"),
        ("体检的时候得了高血压。", "少吃盐。", "体检报告提示高血压。少吃盐。"),
        ("女.22岁.怎么办", "多休息。", "患者女，22岁。多休息。"),
    ],
)
def test_what_the_patient_reports_may_be_said_again(question: str, source: str, rewritten: str) -> None:
    assert kinds(rewritten, source=source, question=question) == set()


def test_a_disease_the_patient_only_fears_is_no_diagnosis() -> None:
    assert "new certainty" in kinds("患者已诊断为脂肪肝，少喝酒。", source="少喝酒。", question="担心是不是脂肪肝。")


@pytest.mark.parametrize("text", ["成功率是0分之1，注意休息。", "用百分之0.9.2，注意休息。", "百分之30.5的人会痒。"])
def test_odd_numbers_are_read_as_they_stand(text: str) -> None:
    assert kinds(text, source=text, question="") == set()
