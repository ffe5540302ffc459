"""Faithfulness of a rewritten answer, by rules and word lists, without a model; a few milliseconds at most.

In: the question, the source answer, the rewritten answer. Out: findings, ``[]`` when the rewritten answer is faithful::

    check("嗓子疼", "口服布洛芬0.3g，胃溃疡禁用。", "口服布洛芬3g。")
    [Finding("new number", "3g", "出现了原文没有的数值“3g”，请按原文写"), Finding("dropped dose", "0.3g", "…"),
     Finding("dropped prohibition", "胃溃疡禁用", "…")]

New drugs, numbers with units, test results and certain words must stand in the question or in the source; the source's drugs,
doses, prohibitions, sides, ages and pregnancies must still stand in the rewritten answer. The words are our own (未经医师审定).
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.safety import prohibitions, spoken, terms
from xinglin.safety.terms import Drug, Quantity


@dataclass(frozen=True)
class Finding:
    """``span``: the words it is about, of the rewritten answer or, for what was dropped, of the source.
    ``message``: one Chinese line that tells the model what to mend."""

    kind: str
    span: str
    message: str


MESSAGES = {
    "new drug": "出现了原文没有的药名“{}”，请删去",
    "dropped drug": "漏掉了原文的药名“{}”，请补上",
    "new number": "出现了原文没有的数值“{}”，请按原文写",
    "dropped dose": "漏掉或改动了原文的用量“{}”，请按原文写",
    "dropped limit": "漏掉或改动了原文的限度“{}”，请按原文写",
    "new result": "出现了原文没有的检查结果“{}”，请删去",
    "new certainty": "出现了原文没有的肯定说法“{}”，请删去或改为原文的说法",
    "dropped prohibition": "漏掉了原文的禁忌或劝阻“{}”，请补上",
    "flipped prohibition": "把原文的禁忌或劝阻“{}”写成了别的意思，请按原文写",
    "laterality": "左右与原文不符或漏写：“{}”，请按原文写",
    "age": "漏掉了原文的年龄“{}”，请补上",
    "pregnancy": "孕期或哺乳信息与原文不符：“{}”，请按原文写",
}


def check(question: str, source: str, rewritten: str) -> list[Finding]:
    """All findings, the gravest kinds first, one for each kind and span."""
    question, source, rewritten = (spoken.plain(text) for text in (question, source, rewritten))
    given = f"{question}\n{source}"
    found = [
        *_drugs(given, source, rewritten),
        *_numbers(given, source, rewritten),
        *_results(given, rewritten),
        *_certainty(given, source, rewritten),
        *prohibitions.lost(source, rewritten, question),
        *_sides(given, source, rewritten),
        *_people(given, source, rewritten),
    ]
    return [Finding(kind, span, MESSAGES[kind].format(span)) for kind, span in dict.fromkeys(found)]


@functools.cache
def version() -> str:
    """Hash of the rules: answers judged by others are judged again."""
    folder = Path(__file__).parent
    names = (
        *("faithfulness.py", "faithfulness.json", "prohibitions.py", "prohibitions.json"),
        *("spoken.py", "wording.py", "wording.json", "terms.py", "drugs.json"),
    )
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:16]


@functools.cache
def _words() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("faithfulness.json").read_text(encoding="utf-8"))
    return data


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_words()[name])


Found = tuple[str, str]
Value = tuple[str, float]

# ---------------------------------------------------------------- drugs


def _drugs(given: str, source: str, rewritten: str) -> Iterator[Found]:
    """``given`` ends with ``source``."""
    known, now = _drug_list(given), _drug_list(rewritten)
    for drug in now:
        if not _named(drug, known, given) and drug.name not in _words()["no_drugs"].split():
            yield "new drug", drug.text
    for drug in known:
        if drug.start >= len(given) - len(source) and not _named(drug, now, rewritten):
            yield "dropped drug", drug.text


@functools.lru_cache(maxsize=64)
def _drug_list(text: str) -> tuple[Drug, ...]:
    return tuple(terms.drugs(text))


def _named(drug: Drug, others: Sequence[Drug], text: str) -> bool:
    """Whether ``text``, with ``others`` in it, names the drug, under any of its names or by the class it begins with."""
    if any(drug.name == other.name for other in others):
        return True
    if drug.name.endswith("类"):
        return any(other.name.startswith(drug.name[:2]) for other in others)
    if drug.known:
        return drug.text.endswith("疫苗") and drug.text.removesuffix("疫苗") in text
    return _echoes(drug.text, text)


# ---------------------------------------------------------------- numbers

DOSES = {"mg", "ml", "mg/kg", "IU", "片", "袋", "支", "滴", "喷"}
# "一" before these is an article as often as a number.
VAGUE = {"天", "次", "年", "月", "度", "℃", "级", "期", "倍", "杯", "瓶", "斤", "分钟"}
SCALE = {
    "g": ("mg", 1000.0), "μg": ("mg", 0.001), "L": ("ml", 1000.0), "斤": ("kg", 0.5), "小时": ("分钟", 60.0),
    "粒": ("片", 1.0), "丸": ("片", 1.0), "包": ("袋", 1.0), "揿": ("喷", 1.0), "万单位": ("IU", 10000.0),
    "天": ("分钟", 1440.0), "周": ("分钟", 10080.0), "月": ("分钟", 43200.0), "年": ("分钟", 518400.0),
}  # fmt: skip
_PART = re.compile(rf"(\d+(?:\.\d+)?|半|[一二两三四五六七八九十百千]+)\s*({terms.UNIT})?")
LIMIT = re.compile(r"(?:[不别勿]\S{0,3}|最[多大少高])[超少低多高][过于]?$|最[多大少高]$|至[多少]$")
_IDIOM = re.compile("酒?[都也别不就]|下去|接一|又一")  # 一滴都不能沾, 一喷就通
_MEASURED = re.compile("[量测查洗刷泡漱喂翻拉尿晒走练按换]|复诊|通风|运动|活动|大便|排便|锻炼|坐浴")  # 早晚各量一次
_EACH = re.compile("[每整](片|粒|袋|支|滴|丸|喷|揿|包)")
LITRE = 500  # ml from which a number is drunk or passed, no dose
NEAR = 25  # characters; a frequency this close to a drug or a dose is part of its use


def _numbers(given: str, source: str, rewritten: str) -> Iterator[Found]:
    stated, found = terms.quantities(given), terms.quantities(rewritten)
    known, now = _values(stated, given), _values(found, rewritten)
    for quantity in found:
        if not (
            _is_vague(quantity)
            or _is_among(quantity, known)
            or _is_measured(quantity, given)
            or _is_daily(quantity, given, known)
        ):
            yield "new number", quantity.text
    offset = len(given) - len(source)
    wanted = [quantity for quantity in stated if quantity.start >= offset]
    places = [quantity.start for quantity in wanted if _unit(quantity) in DOSES] + [drug.start for drug in _drug_list(given)]
    for quantity in wanted:
        if _is_among(quantity, now):
            continue
        if _is_use(quantity, places, given) and not _IDIOM.match(given[quantity.end :]):
            yield "dropped dose", quantity.text
        if LIMIT.search(source[: quantity.start - offset][-6:]):
            yield "dropped limit", quantity.text
        if quantity.unit == "岁":
            yield "age", quantity.text


def _values(found: list[Quantity], text: str) -> set[Value]:
    """All that the quantities of a text say, and what follows from other words of it."""
    return {
        *(value for quantity in found for form in _forms(quantity) for value in form),
        *(("次/日", times) for times in spoken.frequencies(text)),
        *(_value("1", unit) for unit in _EACH.findall(text)),
    }


def _is_among(quantity: Quantity, values: set[Value]) -> bool:
    return any(form <= values for form in _forms(quantity))


def _unit(quantity: Quantity) -> str:
    return SCALE.get(quantity.unit, (quantity.unit, 1.0))[0]


def _forms(quantity: Quantity) -> list[set[Value]]:
    """What says the same: both ends of a range, in one unit for masses, volumes and times; for 每6小时1次 also times a day."""
    unit = "小时" if quantity.unit == "次/日" else quantity.unit
    parts = {_value(text, own or unit) for text, own in _PART.findall(quantity.text)}
    if quantity.unit != "次/日":
        return [parts]
    return [
        {("次/日", round(quantity.value, 3))},
        *([{part for part in parts if part[0] == "分钟"}] if "小时" in quantity.text else []),
        *([{_value("1", "周")}] if quantity.value * 7 == 1 else []),
    ]


def _value(text: str, unit: str) -> Value:
    unit, scale = SCALE.get(terms.CANONICAL.get(unit, unit), (terms.CANONICAL.get(unit, unit), 1.0))
    return unit, round(terms.number(text) * scale, 6)


def _is_measured(quantity: Quantity, given: str) -> bool:
    """No dose, and question or source give the number without this unit: 发烧38.2, 踮脚50下."""
    numbers = re.findall(r"\d+(?:\.\d+)?", quantity.text)
    return (
        bool(numbers)
        and (_unit(quantity) not in DOSES or (quantity.unit == "ml" and quantity.value >= LITRE))
        and all(_is_bare(one, given) for one in numbers)
    )


def _is_daily(quantity: Quantity, given: str, known: set[Value]) -> bool:
    """A frequency told by the hour of the day (睡前一粒 for 每日1次) or left to the context (1g三次)."""
    if quantity.unit != "次/日":
        return False
    return ("次", quantity.value) in known or (quantity.value == 1 and bool(_pattern("once_a_day").search(given)))


def _is_bare(number: str, given: str) -> bool:
    return bool(re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]|{terms.UNIT}(?!半))", given))


def _is_vague(quantity: Quantity) -> bool:
    return (quantity.text.startswith(("一", "半")) and quantity.unit in VAGUE) or (
        quantity.unit == "次" and (quantity.value == 1 or not quantity.text[0].isdigit())
    )


def _is_use(quantity: Quantity, places: list[int], given: str) -> bool:
    if quantity.unit != "次/日":
        bought = quantity.text[0] == "一" and given[quantity.start - 1 : quantity.start] in set("开备买带拿")
        return _unit(quantity) in DOSES and not bought
    start = max(given.rfind(sign, 0, quantity.start) for sign in "，。；,;\n") + 1
    clause = given[start : quantity.end + 4]
    if _MEASURED.search(clause) and not any(start <= place < quantity.end for place in places):
        return False
    return any(abs(place - quantity.start) <= NEAR for place in places)


# ---------------------------------------------------------------- test results


ECHO, SAME = 0.4, 0.8  # shares of the character pairs


def _results(given: str, rewritten: str) -> Iterator[Found]:
    given, rewritten = (_one_name(_pattern("no_results").sub("", text)) for text in (given, rewritten))
    found = [(clause, _result(clause)) for clause in prohibitions.CLAUSES.split(rewritten)]
    match = _pattern("based_on").search(rewritten)
    if not match and not any(results for _, results in found):
        return
    known = _reported(given)
    for clause, results in found:
        for test, value in results:
            shown = re.split(_words()["results"]["shown"], clause)[-1]
            stated = (test, value) in known or (not test and (bool(known) or not shown or _is_told(shown, given)))
            if not _is_repeated(test, shown, given) and (not stated or (value == "shown" and not _echoes(shown, given))):
                yield "new result", clause.strip()
    if match and not known and match[0] not in given:
        yield "new result", match[0]


@functools.cache
def _names() -> tuple[dict[str, str], re.Pattern[str]]:
    return terms.mapping(_words()["test_names"])


def _one_name(text: str) -> str:
    """Tests under one name each, and one word for what is not there."""
    plain, pattern = _names()
    return pattern.sub(lambda match: plain[match[0]], text).replace("没有", "没")


def _result(clause: str) -> list[tuple[str, str]]:
    """The tests a clause gives a result of, with the result: (test or "" for tests in general, kind of result)."""
    tests = _pattern("tests").findall(clause)
    if (not tests and not _pattern("general_tests").search(clause)) or _pattern("hypothetical").search(clause):
        return []
    return [(test, kind) for kind in _kinds(clause) for test in tests or [""]]


def _is_repeated(test: str, shown: str, given: str) -> bool:
    """Whether question or source name the test, and what it shows in the same words."""
    return bool(shown) and test in given and _echoes(shown, given, SAME)


def _echoes(said: str, text: str, least: float = ECHO) -> bool:
    """Whether ``text`` says the same in about these words."""
    pairs = [said[start : start + 2] for start in range(len(said) - 1)]
    return sum(pair in text for pair in pairs) >= least * len(pairs)


@functools.cache
def _kind_patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [(kind, re.compile(pattern)) for kind, pattern in _words()["results"].items()]


@functools.cache
def _told() -> list[tuple[str, re.Pattern[str]]]:
    """Results in the words of patients and of spoken answers: 一条杠, 没事, 查到."""
    return [(kind, re.compile(pattern)) for kind, pattern in _words()["told"].items()]


def _kinds(text: str) -> list[str]:
    return [kind for kind, pattern in _kind_patterns() if pattern.search(text)]


def _reported(given: str) -> set[tuple[str, str]]:
    """What question and source report of tests, read generously: a test and its result may stand in different clauses,
    a bare value may be called high or low, and a test that was done shows something."""
    found: set[tuple[str, str]] = set()
    for sentence in prohibitions.SENTENCES.split(given):
        facts = [clause for clause in prohibitions.CLAUSES.split(sentence) if not _pattern("hypothetical").search(clause)]
        kinds = {kind for clause in facts for kind in _kinds(clause)}
        found |= {(test, kind) for test in _pattern("tests").findall(sentence) for kind in kinds}
        found |= {(test, "shown") for clause in facts for test in _pattern("tests").findall(clause)}
        valued = re.findall(rf"({_words()['tests']})\D{{0,6}}\d", sentence)
        found |= {(test, kind) for test in valued for kind in ("shown", "high", "low", "normal")}
        found |= {("", kind) for clause in facts if _pattern("general_tests").search(clause) for kind in _kinds(clause)}
        told = {kind.strip() for kind, pattern in _told() if pattern.search(sentence)}
        found |= {(test, kind) for kind in told for test in ["", *_pattern("tests").findall(sentence)]}
    return found


# ---------------------------------------------------------------- certainty


def _certainty(given: str, source: str, rewritten: str) -> Iterator[Found]:
    allowed = set(_claims("cure", source)) | set(_claims("diagnosis", given))
    for name in ("cure", "diagnosis"):
        for claim in _claims(name, rewritten):
            if claim not in allowed and claim[-4:] not in given and not (name == "diagnosis" and _is_told(claim, given)):
                yield "new certainty", claim


def _claims(name: str, text: str) -> Iterator[str]:
    """What is claimed, a diagnosis with the first characters of what it names."""
    if not _pattern(name).search(text):
        return
    for clause in prohibitions.CLAUSES.split(text):
        for match in _pattern(name).finditer(clause):
            before = clause[max(0, match.start() - 6) : match.start()]
            denied = _pattern("negated").search(before) if name == "cure" else _pattern("unsure").search(clause)
            asked = match[0][0] in "不没" and before.endswith(match[0][1])  # 会不会, 有没有
            if not denied and not asked:
                named = clause[match.end() : match.end() + 4] if name == "diagnosis" else ""
                yield match[0] + named


def _is_told(claim: str, given: str) -> bool:
    """Whether the patient or the doctor says of the disease a claim ends with that it was found: 查出脂肪肝, 刚确诊."""
    named = _pattern("before_name").sub("", claim) or claim[-2:]
    return len(named) > 1 and any(
        named in clause and _pattern("told_disease").search(clause) and not _pattern("doubted").search(clause)
        for clause in prohibitions.CLAUSES.split(given)
    )


# ---------------------------------------------------------------- sides, pregnancy


def _sides(given: str, source: str, rewritten: str) -> Iterator[Found]:
    given, source, rewritten = (re.sub(_words()["no_sides"], "", text) for text in (given, source, rewritten))
    known, wanted, now = (_sided(text) for text in (given, source, rewritten))
    for side, part in now:
        other = ("左" if side == "右" else "右", part)
        if side not in given or (other in known and (side, part) not in known and part not in "侧边"):
            yield "laterality", side + part
    for side, part in wanted:
        if side not in rewritten:
            yield "laterality", side + part


def _sided(text: str) -> list[tuple[str, str]]:
    """Each side with the character after it."""
    return re.findall(r"(左|右)(.)", text)


def _people(given: str, source: str, rewritten: str) -> Iterator[Found]:
    given, source, rewritten = (_pattern("not_people").sub("", text) for text in (given, source, rewritten))
    for state, pattern in _words()["people"].items():
        now, wanted = (re.search(pattern, text) for text in (rewritten, source))
        if now and not re.search(f"{pattern}|{_words()['people_known'][state]}", given):
            yield "pregnancy", rewritten[now.start() : now.start() + 4]
        if wanted and not now:
            yield "pregnancy", source[wanted.start() : wanted.start() + 4]
