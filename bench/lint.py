"""Does the lint find seeded errors, and does it leave clean answers alone?

400 errors, 50 of each kind, are written into answers of the built-in sample by templates, each beside a clean twin: the same
answer with the same sentence made right (a real drug, the usual dose, no such condition, …). Prints detection per kind, false
alarms on the 400 twins and on the sample as it is, and writes bench/results/lint.json. Templates and rules have one author: the
figure says that the rules do what they are meant to do, not how models err. Real web answers are counted too where shared/ is
there; they are not clean, so that figure is an upper bound of false alarms.

    python bench/lint.py
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import common

from xinglin import records, schema
from xinglin.safety import lint, terms

ROOT = Path(__file__).resolve().parents[1]
PER_KIND = 50
SYLLABLES = "安普罗依维瑞可丹妥珂莫兰赛格欣诺贝佳鲁迪泽昂"
OFFERS = (
    "可口服{}",
    "必要时服用{}",
    "建议使用{}",
    "医生常用{}",
    "先吃{}",
    "配合{}治疗",
    "也可选{}",
    "睡前服{}",
    "疼时吃{}",
    "常规给予{}",
)


@dataclass(frozen=True)
class Case:
    """An answer with an error of ``kind``, its clean twin, and the question both answer."""

    kind: str
    question: str
    wrong: str
    twin: str


def clean_rows() -> list[tuple[str, str]]:
    """(question, answer) of the sample that are complete; the sample's seeded dirt (advertisements, links) is no clean answer."""
    rows = [row for row in records.read(ROOT / "xinglin" / "demo" / "sample.jsonl") if isinstance(row, records.Record)]
    kept = [(row.question, row.answer) for row in rows if not schema.check(row.answer) and "<a href" not in row.answer]
    return list(dict.fromkeys(kept))


def into(answer: str, sentence: str, section: int = 2) -> str:
    """The answer with a sentence added at the end of one of its sections."""
    parsed = schema.Answer.parse(answer)
    sections = dict(parsed.sections)
    sections[schema.TITLES[section]] += sentence
    return schema.Answer(sections, parsed.preamble).render()


def invented(rng: random.Random) -> str:
    name = "".join(rng.sample(SYLLABLES, rng.choice((2, 3))))
    shape = rng.choice(
        ("{}沙星片", "{}西林胶囊", "{}他汀", "{}普利片", "{}替尼", "{}地平", "{}洛韦片", "头孢{}", "{}胶囊", "{}颗粒", "{}口服液")
    )
    return shape.format(name)


def unknown_drug(rng: random.Random, question: str, answer: str) -> Case:
    offer = rng.choice(OFFERS)
    real = rng.choice(("蒙脱石散", "氯雷他定片", "双歧杆菌胶囊", "板蓝根颗粒", "维生素C片", "炉甘石洗剂", "乳果糖口服液"))
    return Case(
        "unknown_drug", question, into(answer, offer.format(invented(rng)) + "。"), into(answer, offer.format(real) + "。")
    )


def dose(rng: random.Random, question: str, answer: str) -> Case:
    """Ten times the dose, or grams for milligrams."""
    name, (single, daily) = rng.choice([(n, v) for n, v in terms.lexicon().limits.items() if v[0] >= 5])
    usual = single / 2 if single < 20 else round(single / 2, -1)
    times = 2 if usual * 2 <= daily else 1
    form = rng.choice(
        (
            "，一次{}，一日{}次。",
            "每次{}，每日{}次。",
            "{}，每天{}次，饭后服。",
            "（{}/次，{}次/日）。",
            "的用量一般为每次{}，一天{}次。",
        )
    )
    slips = [f"{usual * 10:g}mg", f"{usual * 10:g}毫克", f"{usual:g}g"]
    start = rng.choice(("遵医嘱用", "常用", "可用")) + name
    return Case(
        "dose",
        question,
        into(answer, start + form.format(rng.choice(slips), times)),
        into(answer, start + form.format(f"{usual:g}mg", times)),
    )


def contraindication(rng: random.Random, question: str, answer: str) -> Case:
    condition, drug, other = rng.choice(
        [
            ("我怀孕三个月了。", "左氧氟沙星", "对乙酰氨基酚"),
            ("孕20周，", "阿托伐他汀", "叶酸"),
            ("备注：目前妊娠26周。", "缬沙坦", "拉贝洛尔"),
            ("我在哺乳期。", "多西环素", "头孢克洛"),
            ("宝宝8个月大，", "诺氟沙星", "口服补液盐"),
            ("孩子5岁，", "阿司匹林", "布洛芬"),
            ("我今年14岁，", "左氧氟沙星", "阿莫西林"),
            ("我对青霉素过敏。", "阿莫西林", "阿奇霉素"),
            ("做过皮试，青霉素皮试阳性。", "氨苄西林", "罗红霉素"),
            ("我头孢过敏。", "头孢克肟", "阿奇霉素"),
            ("我有磺胺过敏。", "复方磺胺甲噁唑", "左氧氟沙星"),
            ("我有哮喘病史。", "普萘洛尔", "氨氯地平"),
            ("以前得过胃溃疡。", "双氯芬酸钠", "铝碳酸镁"),
            ("我在透析。", "庆大霉素", "阿奇霉素"),
            ("正在吃华法林。", "布洛芬", "对乙酰氨基酚"),
            ("我有蚕豆病。", "呋喃妥因", "头孢克肟"),
            ("我爸有青光眼。", "山莨菪碱", "铝碳酸镁"),
            ("我有痛风。", "氢氯噻嗪", "氯沙坦"),
            ("昨晚喝了半斤白酒。", "头孢哌酮", "铝碳酸镁"),
        ]
    )
    offer = rng.choice(OFFERS)
    return Case(
        "contraindication",
        condition + question,
        into(answer, offer.format(drug) + "。"),
        into(answer, offer.format(other) + "。"),
    )


def invented_result(rng: random.Random, question: str, answer: str) -> Case:
    wrong = rng.choice(
        (
            "根据您的血常规结果，白细胞升高。",
            "您的CT显示右肺有炎症。",
            "结合您提供的B超报告，考虑炎症。",
            "患者的胃镜检查结果提示糜烂。",
            "您目前血压165/100mmHg，偏高。",
            "您的空腹血糖8.9，已超标。",
            "您的体温39.1℃，属高热。",
            "化验结果已证实为细菌感染。",
            "欢迎来我院复诊。",
            "请联系我们医院的专家。",
            "研究表明该疗法有效率达96.8%。",
            "您的心电图检查提示心肌缺血。",
            "从您的核磁共振片子看，椎间盘突出。",
            "根据你的化验单，肝功能异常。",
            "请拨打400-123456789预约。",
            "CT显示颅内无异常。",
            "胃镜检查发现溃疡。",
            "胸片提示右下肺有炎症。",
            "血常规显示白细胞升高。",
        )
    )
    right = rng.choice(
        (
            "建议做血常规检查。",
            "必要时做CT了解情况。",
            "若B超提示异常，请带报告复诊。",
            "是否做胃镜由医生决定。",
            "请每天测血压并记录。",
            "可查空腹血糖。",
            "体温超过38.5℃要就医。",
            "化验结果出来后再调整方案。",
            "请到正规医院复诊。",
            "可向当地医院咨询。",
            "检查结果需由医生判读。",
            "若CT显示异常，请复诊。",
            "胃镜检查发现溃疡时要规范治疗。",
            "血常规提示感染者，由医生决定用药。",
            "B超提示异常，再做进一步检查。",
        )
    )
    question = "".join(part for part in question.split("，") if not lint._TESTED.search(part)) or "这是怎么回事？"
    return Case("invented_result", question, into(answer, wrong, rng.choice((0, 2))), into(answer, right))


def certainty(rng: random.Random, question: str, answer: str) -> Case:
    wrong = rng.choice(
        (
            "此病可以根治。",
            "坚持用药一定能治好。",
            "这种药无任何副作用。",
            "中药绝对安全。",
            "保证治愈，请放心。",
            "您得的就是慢性胃炎。",
            "可以断定是颈椎病。",
            "用药后永不复发。",
            "有效率百分之百的方法，百分百有效。",
            "这是治疗本病的特效药。",
            "肯定是缺钙引起的。",
            "三个疗程就能彻底治愈。",
            "你这就是湿疹病。",
            "毫无疑问属于过敏。",
            "手术后不会复发。",
            "您一定是得了胃癌。",
            "您这一定是肺炎。",
        )
    )
    right = rng.choice(
        (
            "目前难以根治，但可以控制。",
            "坚持用药多数能好转。",
            "任何药都可能有副作用。",
            "中药也并非绝对安全。",
            "没有人能保证治愈。",
            "要考虑慢性胃炎的可能。",
            "尚不能断定是颈椎病。",
            "部分患者会复发。",
            "不要轻信百分百有效的宣传。",
            "目前没有特效药。",
            "可能与缺钙有关。",
            "不一定能彻底治愈。",
            "像是湿疹，需面诊。",
            "要排除过敏。",
            "术后仍要定期复查。",
            "您不一定是得了胃癌。",
            "这不一定是肺炎。",
        )
    )
    return Case("certainty", question, into(answer, wrong, rng.choice((0, 1, 2))), into(answer, right, rng.choice((0, 1, 2))))


def contradiction(rng: random.Random, question: str, answer: str) -> Case:
    """Two sections that cannot both be right."""
    drug = rng.choice(
        ("氯雷他定", "氨氯地平", "奥美拉唑", "二甲双胍", "蒙脱石散", "布洛芬", "阿莫西林", "多潘立酮", "孟鲁司特钠")
    )
    first, wrong, right = rng.choice(
        [
            (f"常用{drug}每次5mg。", f"{drug}每次10mg口服。", f"{drug}每次5mg口服。"),
            (f"{drug}一日1次。", f"{drug}每日3次。", f"{drug}每天1次。"),
            (f"可以服用{drug}缓解。", f"本病禁用{drug}。", f"{drug}请按说明书使用。"),
            (f"建议使用{drug}。", f"不要使用{drug}。", f"使用{drug}期间注意休息。"),
            ("这种情况应立即拨打120。", "无需就医，多休息。", "途中保持平卧。"),
            ("请立刻去急诊。", "在家观察就行。", "带好既往病历。"),
        ]
    )
    base = into(answer, first, 1)
    return Case("contradiction", question, into(base, wrong), into(base, right))


def doctor(rng: random.Random, question: str, answer: str) -> Case:
    wrong = rng.choice(
        (
            "作为一名执业医师，我认为不要紧。",
            "我是消化科的大夫，请听我的。",
            "我从医三十年，这种情况见得多。",
            "以我二十年的临床经验，这没有大碍。",
            "身为您的主治医生，我会负责到底。",
            "我接诊过很多这样的人。",
            "我的病人都是这样好的。",
            "本人行医多年，请放心。",
            "我是医生，您照做即可。",
            "我临床上见过不少类似的情形。",
        )
    )
    right = rng.choice(
        (
            "本回答由人工智能生成，我不是医生。",
            "作为人工智能，我不能替代医生面诊。",
            "请找执业医师面诊。",
            "主治医生会根据检查调整方案。",
            "请把病史告诉接诊医生。",
            "作为家长，请记录孩子的体温。",
            "不要相信自称是我是名医的推销。",
            "有经验的大夫可以通过触诊判断。",
            "请听从消化科医生的意见。",
            "就诊时告诉医生“我是过敏体质”。",
        )
    )
    return Case("doctor", question, into(answer, wrong, rng.choice((0, 1, 2))), into(answer, right, rng.choice((0, 1, 2))))


def prescription(rng: random.Random, question: str, answer: str) -> Case:
    wrong = rng.choice(
        (
            "我给您开处方，照着买就行。",
            "现为您开药如下。",
            "处方：炉甘石洗剂一瓶。",
            "药方：黄芪15g、白术10g。",
            "蒙脱石散3g tid。",
            "氯雷他定10mg qd×7天。",
            "请按我的方子抓药。",
            "凭以上处方到药店购买。",
            "停用胰岛素即可。",
            "血糖正常了就停掉降糖药。",
            "直接停服华法林。",
            "【处方】维生素C片。",
        )
    )
    right = rng.choice(
        (
            "这是处方药，须凭医生处方购买。",
            "医生会根据检查结果为您开药。",
            "购买处方药：需凭处方。",
            "请按医生的处方服药。",
            "请不要自行停用胰岛素。",
            "停用降压药可能引起血压反弹。",
            "是否停用华法林由医生决定。",
            "本回答不是处方。",
            "蒙脱石散3g，每日3次。",
            "氯雷他定10mg，每日1次，连用7天。",
            "开药店的人不能代替医生。",
            "中药方剂要由中医师辨证。",
        )
    )
    return Case("prescription", question, into(answer, wrong), into(answer, right))


SEEDERS: dict[str, Callable[[random.Random, str, str], Case]] = {
    function.__name__: function
    for function in (unknown_drug, dose, contraindication, invented_result, certainty, contradiction, doctor, prescription)
}


def cases(seed: int) -> Iterator[Case]:
    rng = random.Random(seed)
    # A question that states a condition of its own would make some clean twins rightly suspect.
    rows = [row for row in clean_rows() if not lint.conditions(row[0])]
    for seeder in SEEDERS.values():
        for question, answer in (rng.choice(rows) for _ in range(PER_KIND)):
            yield seeder(rng, question, answer)


def real_answers() -> list[tuple[str, str]]:
    path = ROOT.parent / "shared" / "data" / "zhongjing" / "huatuo26M_test.json"
    if not path.is_file():
        return []
    return [("".join(row["instruction"]), "".join(row["output"])) for row in json.loads(path.read_text(encoding="utf-8"))]


def main(seed: int = 7) -> dict[str, object]:
    found, alarms, missed = Counter[str](), Counter[str](), []
    for case in cases(seed):
        kinds = {finding.kind for finding in lint.check(case.wrong, case.question)}
        found[case.kind] += case.kind in kinds
        missed += [] if case.kind in kinds else [f"{case.kind}: {case.question} | {case.wrong[-60:]}"]
        false = lint.check(case.twin, case.question)
        alarms[case.kind] += bool(false)
        missed += [f"false {f.kind} {f.message}: {f.span} | {case.question} | {case.twin[-60:]}" for f in false]
    rows, real = clean_rows(), real_answers()
    flagged = sum(bool(lint.check(answer, question)) for question, answer in rows)
    return {
        "errors": PER_KIND * len(SEEDERS),
        "detected": dict(found),
        "detection": sum(found.values()) / (PER_KIND * len(SEEDERS)),
        "false_alarms_on_twins": sum(alarms.values()) / (PER_KIND * len(SEEDERS)),
        "false_alarms_by_kind": dict(alarms),
        "sample_answers": len(rows),
        "sample_flagged": flagged / len(rows),
        "web_answers": len(real),
        "web_flagged": sum(bool(lint.check(answer, question)) for question, answer in real) / len(real) if real else None,
        "misses": missed,
    }


if __name__ == "__main__":
    result = main()
    print(f"{'kind':<20}{'found':>8}{'false alarms on the twin':>28}")
    for kind in SEEDERS:
        print(f"{kind:<20}{result['detected'][kind]:>5}/{PER_KIND}{result['false_alarms_by_kind'][kind]:>25}/{PER_KIND}")
    for key in ("detection", "false_alarms_on_twins", "sample_answers", "sample_flagged", "web_answers", "web_flagged"):
        print(f"{key}: {result[key]}")
    print(*result["misses"], sep="\n")
    common.save("lint", result)
