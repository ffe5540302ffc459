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

from xinglin.safety import terms
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
CLAUSES = re.compile(r"[。！？!?；;\n，,：:]")
SENTENCES = re.compile(r"[。！？!?；;\n]")


def check(question: str, source: str, rewritten: str) -> list[Finding]:
    """All findings, the gravest kinds first, one for each kind and span."""
    question, source, rewritten = (_plain(text) for text in (question, source, rewritten))
    given = f"{question}\n{source}"
    found = [
        *_drugs(given, source, rewritten),
        *_numbers(given, source, rewritten),
        *_results(given, rewritten),
        *_certainty(given, source, rewritten),
        *_prohibitions(source, rewritten),
        *_sides(given, source, rewritten),
        *_people(given, source, rewritten),
    ]
    return [Finding(kind, span, MESSAGES[kind].format(span)) for kind, span in dict.fromkeys(found)]


@functools.cache
def version() -> str:
    """Hash of the rules: answers judged by others are judged again."""
    folder = Path(__file__).parent
    names = ("faithfulness.py", "faithfulness.json", "terms.py", "drugs.json")
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:16]


@functools.cache
def _words() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("faithfulness.json").read_text(encoding="utf-8"))
    return data


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_words()[name])


def _mapping(words: dict[str, str]) -> tuple[dict[str, str], re.Pattern[str]]:
    """From "plain: word word" to a plain form for each word and a pattern of all of them, the longest first."""
    plain = {word: plain for plain, written in words.items() for word in written.split()}
    return plain, re.compile("|".join(sorted(map(re.escape, plain), key=len, reverse=True)))


_SPOKEN = [
    (re.compile(pattern, re.IGNORECASE), plain)
    for pattern, plain in (
        (r"(?<=[\d一二两三四五六七八九十半])个(?=小时|单位|星期)", ""),
        (r"早晚各\w{0,3}?(?:一|1)次", "每日2次"),
        (r"\bbid\b", "每日2次"),
        (r"\btid\b", "每日3次"),
        (r"\bq[dn]\b", "每日1次"),
    )
]


def _plain(text: str) -> str:
    text = text.translate(terms.FULL_WIDTH)
    for pattern, plain in _SPOKEN:
        text = pattern.sub(plain, text)
    return text


Found = tuple[str, str]

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

DOSES = {"mg", "ml", "mg/kg", "IU", "万单位", "片", "粒", "袋", "支", "滴", "丸", "喷", "揿", "包", "枚"}
# "一" before these is an article as often as a number.
VAGUE = {"天", "次", "年", "月", "度", "℃", "级", "期", "倍", "杯", "瓶", "斤", "分钟"}
SCALE = {"g": ("mg", 1000.0), "μg": ("mg", 0.001), "L": ("ml", 1000.0), "周": ("天", 7.0), "年": ("月", 12.0)}
_NUMBER = re.compile(r"\d+(?:\.\d+)?|半|[一二两三四五六七八九十百]+")
LIMIT = re.compile(r"(?:[不别勿]\S{0,3}|最[多大少高])[超少低多高][过于]?$|最[多大少高]$|至[多少]$")
MEASURES = {"℃", "mmHg", "mmol/L", "μmol/L", "kPa", "cm", "mm"}
NEAR = 25  # characters; a frequency this close to a drug or a dose is part of its use


def _numbers(given: str, source: str, rewritten: str) -> Iterator[Found]:
    stated = terms.quantities(given)
    known = {value for quantity in stated for value in _values(quantity)}
    found = terms.quantities(rewritten)
    now = {value for quantity in found for value in _values(quantity)}
    for quantity in found:
        if not _is_vague(quantity) and not _values(quantity) <= known and not _is_measured(quantity, given):
            yield "new number", quantity.text
    offset = len(given) - len(source)
    wanted = [quantity for quantity in stated if quantity.start >= offset]
    places = [quantity.start for quantity in wanted if _unit(quantity) in DOSES] + [drug.start for drug in _drug_list(given)]
    for quantity in wanted:
        if _is_use(quantity, places) and not _values(quantity) <= now:
            yield "dropped dose", quantity.text
        if LIMIT.search(source[: quantity.start - offset][-6:]) and not _values(quantity) <= now:
            yield "dropped limit", quantity.text
        if quantity.unit == "岁" and not _values(quantity) <= now:
            yield "age", quantity.text


def _unit(quantity: Quantity) -> str:
    return SCALE.get(quantity.unit, (quantity.unit, 1.0))[0]


def _values(quantity: Quantity) -> set[tuple[str, float]]:
    """Both ends of a range, in one unit for masses, volumes and times."""
    if quantity.unit == "次/日":
        return {("次/日", round(quantity.value, 3))}
    unit, scale = SCALE.get(quantity.unit, (quantity.unit, 1.0))
    return {(unit, round(terms.number(text) * scale, 6)) for text in _NUMBER.findall(quantity.text)}


def _is_measured(quantity: Quantity, given: str) -> bool:
    """A measurement whose number the question or the source gives without a unit: 发烧38.2."""
    numbers = re.findall(r"\d+(?:\.\d+)?", quantity.text)
    return quantity.unit in MEASURES and all(re.search(rf"(?<![\d.]){re.escape(one)}(?![\d.])", given) for one in numbers)


def _is_vague(quantity: Quantity) -> bool:
    return (quantity.text.startswith(("一", "半")) and quantity.unit in VAGUE) or (
        quantity.unit == "次" and not quantity.text[0].isdigit()
    )


def _is_use(quantity: Quantity, places: list[int]) -> bool:
    if quantity.unit == "次/日":
        return any(abs(place - quantity.start) <= NEAR for place in places)
    return _unit(quantity) in DOSES


# ---------------------------------------------------------------- test results


ECHO = 0.4  # share of the character pairs


def _results(given: str, rewritten: str) -> Iterator[Found]:
    given, rewritten = _one_name(given), _one_name(rewritten)
    found = [(clause, _result(clause)) for clause in CLAUSES.split(rewritten)]
    match = _pattern("based_on").search(rewritten)
    if not match and not any(results for _, results in found):
        return
    known = _reported(given)
    for clause, results in found:
        for test, value in results:
            stated = (test, value) in known or (not test and bool(known))
            shown = re.split(_words()["results"]["shown"], clause)[-1]
            if not stated or (value == "shown" and not _echoes(shown, given)):
                yield "new result", clause.strip()
    if match and not known and match[0] not in given:
        yield "new result", match[0]


@functools.cache
def _names() -> tuple[dict[str, str], re.Pattern[str]]:
    return _mapping(_words()["test_names"])


def _one_name(text: str) -> str:
    """Tests under one name each."""
    plain, pattern = _names()
    return pattern.sub(lambda match: plain[match[0]], text)


def _result(clause: str) -> list[tuple[str, str]]:
    """The tests a clause gives a result of, with the result: (test or "" for tests in general, kind of result)."""
    tests = _pattern("tests").findall(clause)
    if (not tests and not _pattern("general_tests").search(clause)) or _pattern("hypothetical").search(clause):
        return []
    return [(test, kind) for kind in _kinds(clause) for test in tests or [""]]


def _echoes(said: str, text: str) -> bool:
    """Whether ``text`` says the same in about these words."""
    pairs = [said[start : start + 2] for start in range(len(said) - 1)]
    return sum(pair in text for pair in pairs) >= ECHO * len(pairs)


@functools.cache
def _kind_patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [(kind, re.compile(pattern)) for kind, pattern in _words()["results"].items()]


def _kinds(text: str) -> list[str]:
    return [kind for kind, pattern in _kind_patterns() if pattern.search(text)]


def _reported(given: str) -> set[tuple[str, str]]:
    """What question and source report of tests, read generously: a test and its result may stand in different clauses,
    a bare value may be called high or low, and a test that was done shows something."""
    found: set[tuple[str, str]] = set()
    for sentence in SENTENCES.split(given):
        facts = [clause for clause in CLAUSES.split(sentence) if not _pattern("hypothetical").search(clause)]
        kinds = {kind for clause in facts for kind in _kinds(clause)}
        found |= {(test, kind) for test in _pattern("tests").findall(sentence) for kind in kinds}
        found |= {(test, "shown") for clause in facts for test in _pattern("tests").findall(clause)}
        valued = re.findall(rf"({_words()['tests']})\D{{0,6}}\d", sentence)
        found |= {(test, kind) for test in valued for kind in ("shown", "high", "low", "normal")}
        found |= {("", kind) for clause in facts if _pattern("general_tests").search(clause) for kind in _kinds(clause)}
    return found


# ---------------------------------------------------------------- certainty


def _certainty(given: str, source: str, rewritten: str) -> Iterator[Found]:
    allowed = set(_claims("cure", source)) | set(_claims("diagnosis", given))
    for name in ("cure", "diagnosis"):
        for claim in _claims(name, rewritten):
            if claim not in allowed:
                yield "new certainty", claim


def _claims(name: str, text: str) -> Iterator[str]:
    if not _pattern(name).search(text):
        return
    for clause in CLAUSES.split(text):
        for match in _pattern(name).finditer(clause):
            before = clause[max(0, match.start() - 6) : match.start()]
            denied = _pattern("negated").search(before) if name == "cure" else _pattern("unsure").search(clause)
            if not denied:
                yield match[0]


# ---------------------------------------------------------------- prohibitions

LONGEST = 20  # characters that say what is prohibited; text without punctuation runs on
MOST = 0.6  # the same of the words that say for whom; then what is prohibited may be left to the context
ENOUGH = 0.5  # share of the characters that say what is prohibited
WEAK = "停戒"  # a prohibition on its own, none behind a permission: 可以停用
STOPPED = re.compile(r"停[用服药]|停止|暂停|停掉")  # what is to be stopped is often left to the context
AGAIN = re.compile("别|不要|不能|勿|避免|忌")  # a marker repeated in a list
LATE = re.compile(r"[禁忌慎]")  # prohibitions that often stand after what they are about


def _prohibitions(source: str, rewritten: str) -> Iterator[Found]:
    """A prohibition is kept when a prohibition of the rewritten answer covers it, or one that covers no other touches it:
    colloquial 别挤痘 becomes 避免挤压."""
    wanted = list(_prohibited(source))
    if not wanted:
        return
    found = [(marker, _content(_uniform(scope))) for marker, scope in _scopes(rewritten)]
    scopes = [scope for _, scope in found]
    strong = [scope for marker, scope in found if _pattern("prohibitions").fullmatch(marker)]
    free = [scope for scope in strong if not any(_covers(scope, item) for *_, items in wanted for item in items)]
    clauses = [_content(_uniform(clause)) for clause in CLAUSES.split(rewritten)]
    for said, marker, subject, items in wanted:
        if STOPPED.search(marker) and STOPPED.search(rewritten):
            continue
        missing = [item for item in items if not any(_covers(scope, item) for scope in scopes)]
        if not missing or (len(subject) > 1 and any(len(scope & subject) >= MOST * len(subject) for scope in scopes)):
            continue
        near = next((scope for scope in free if scope & missing[0]), None)
        if near is not None:
            free.remove(near)
        else:
            flipped = any(_covers(clause, missing[0]) for clause in clauses)
            yield "flipped prohibition" if flipped else "dropped prohibition", said


def _prohibited(text: str) -> Iterator[tuple[str, str, set[str], list[set[str]]]]:
    """What each prohibition of ``text`` forbids: its clause and its marker, for whom, and the characters of every item."""
    for clause in CLAUSES.split(text):
        plain = _pattern("no_prohibition").sub("", clause)
        match = _pattern("prohibitions").search(plain)
        if not match or _is_allowed(match[0], plain[: match.start()]):
            continue
        subject, after = _uniform(plain[: match.start()]), _uniform(AGAIN.sub("", plain[match.end() :]))[:LONGEST]
        if len(_content(after)) < 2 and not _content(after) & set(_words()["synonyms"]):
            subject, after = "", subject[-LONGEST:] + after
        items = [_content(item) for item in re.split(r"[、/]|或者?|以及|及|和|与", after)]
        if any(items):
            yield clause.strip(), match[0], _content(subject), [item for item in items if item]


def _scopes(text: str) -> Iterator[tuple[str, str]]:
    """Markers of ``text`` with what they govern: their clause and what follows, up to a word of permission."""
    for sentence in SENTENCES.split(text):
        clauses = re.split(r"[，,：:]", sentence)
        for number, clause in enumerate(clauses):
            plain = _pattern("no_prohibition").sub("", clause)
            match = _pattern("prohibitions").search(plain) or _pattern("scopes").search(plain)
            if match and not _is_allowed(match[0], plain[: match.start()]):
                yield match[0], _scope(clauses, number, bool(LATE.search(match[0])))


def _is_allowed(marker: str, before: str) -> bool:
    return marker[0] in WEAK and bool(_pattern("permissions").search(before))


def _scope(clauses: list[str], number: int, late: bool) -> str:
    parts = [clauses[number]]
    for clause in clauses[number + 1 :]:
        if _pattern("permissions").search(clause):
            break
        parts.append(clause)
    if late and number and not _pattern("permissions").search(clauses[number - 1]):
        parts.append(clauses[number - 1])
    return "".join(parts)


@functools.cache
def _synonyms() -> tuple[dict[str, str], re.Pattern[str]]:
    return _mapping(_words()["synonyms"])


def _uniform(text: str) -> str:
    """Near words made one."""
    plain, pattern = _synonyms()
    return pattern.sub(lambda match: plain[match[0]], text)


@functools.cache
def _fillers() -> frozenset[str]:
    return frozenset(_words()["fillers"])


def _content(text: str) -> set[str]:
    """The characters of a text that carry its meaning."""
    return {character for character in text if character.isalnum()} - _fillers()


def _covers(scope: set[str], item: set[str]) -> bool:
    return item <= scope if len(item) < 3 else len(scope & item) >= ENOUGH * len(item)


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
    for pattern in _words()["people"].values():
        now, known, wanted = (re.search(pattern, text) for text in (rewritten, given, source))
        if now and not known:
            yield "pregnancy", rewritten[now.start() : now.start() + 4]
        if wanted and not now:
            yield "pregnancy", source[wanted.start() : wanted.start() + 4]
