"""Red flags in what the user wrote, found before any model runs: fixed rules in, at most one fixed Chinese text out.

In: the user's turns, oldest first, as typed (long, unpunctuated, with typos, traditional characters, emoji inside words).
Out: the alert of the highest level found in any turn, or ``None``::

    triage(["我爸胸口压着疼半个多小时了，一身冷汗，应该没事吧"])
    -> Alert(level="A", rule="heart-attack", message="可能是心肌梗死等急症。请立即拨打120……")

The rules are data (``triage.json``). A rule fires when all patterns of one of its lists match close together and every one
of those matches is live: not negated, not past, not taught, not supposed, not told from a film. Words that play a
symptom down are not looked at at all, so they cannot lower a level.
"""

import functools
import json
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Any

LEVELS = "CBA"  # rising: today's doctor, emergency department now, call 120 now
TOLD_BEFORE = 160  # characters a film, a book or a lesson named before a match reaches
SHORTEST = 30
RUN = 120  # characters of neighbouring clauses the classifier reads as one
CLAUSE = 60
PIECE = 4  # characters; shorter pieces between spaces are words typed apart
CLASSIFIER_MESSAGE = (
    "您描述的情况可能是急症。请立即拨打120，或马上到最近的医院急诊；"
    "如果有伤害自己的念头，请拨打110或全国统一心理援助热线12356（不保证24小时接通），并请身边的人陪着您。"
)
MARGIN = 20  # characters a match may itself be long
MATCHES_LOOKED_AT = 12  # per pattern; repeating one word a thousand times must not cost time


@dataclass(frozen=True)
class Alert:
    """Level "A" call 120 now, "B" emergency department now, "C" see a doctor today; the rule's id; the fixed text."""

    level: str
    rule: str
    message: str


@dataclass(frozen=True)
class Rule:
    """``when``: lists of patterns, each list one way to fire. ``within``: characters the matches may lie apart.

    ``despite``: scopes that do not silence this rule, of negated, denied (negated inside), past, habitual,
    supposed, taught, told.
    """

    id: str
    group: str
    level: str
    message: str
    when: tuple[tuple[re.Pattern[str], ...], ...]
    within: int
    despite: frozenset[str]


@dataclass(frozen=True)
class Knowledge:
    """Everything ``triage.json`` holds, compiled."""

    rules: tuple[Rule, ...]
    scopes: dict[str, re.Pattern[str]]
    simplified: dict[int, int]
    typos: dict[str, str]
    typo: re.Pattern[str]
    idioms: re.Pattern[str]


@dataclass(frozen=True)
class Classifier:
    """A linear model over character n-grams: log-odds of an emergency = bias + sum of weights / root of their number."""

    bias: float
    threshold: float
    weights: dict[str, float]


@dataclass(frozen=True)
class Text:
    """A normalised turn: no spaces, emoji or invisible characters; ``breaks`` are the positions where a space stood."""

    plain: str
    breaks: tuple[int, ...]
    found: dict[re.Pattern[str], list[tuple[int, int]]] = field(default_factory=dict, compare=False)


def triage(texts: Sequence[str]) -> Alert | None:
    """The alert of the highest level over all user turns, oldest first; ``None`` when nothing in them is a red flag.

    Each turn is looked at alone and together with the others (an age named first, a fever named later), so an alert
    once raised stays for the rest of the conversation. The first of several alerts of one level wins.
    """
    return _highest(_turn(text) for text in _together(texts))


def by_rules(texts: Sequence[str]) -> Alert | None:
    """What the rules alone say, without the classifier."""
    return _highest(_fired(normalise(text)) for text in _together(texts))


def _together(texts: Sequence[str]) -> list[str]:
    return [*texts, "\n".join(texts)] if len(texts) > 1 else list(texts)


def _highest(alerts: Iterable[Alert | None]) -> Alert | None:
    return max((alert for alert in alerts if alert), key=lambda alert: LEVELS.index(alert.level), default=None)


@functools.lru_cache(maxsize=4096)
def _turn(text: str) -> Alert | None:
    """The rules first; the classifier is asked only where they raise no alarm, so that it can add one but never lower one."""
    normal = normalise(text)
    alert = _fired(normal)
    if alert and alert.level != "C":
        return alert
    model = classifier()
    return Alert("A", "classifier", CLASSIFIER_MESSAGE) if score(normal, model) > model.threshold else alert


def _fired(normal: Text) -> Alert | None:
    knowledge = load()
    rule = next((rule for rule in knowledge.rules if _fires(rule, normal, knowledge.scopes)), None)
    return Alert(rule.level, rule.id, rule.message) if rule else None


# ---------------------------------------------------------------- the classifier beside the rules


@functools.cache
def classifier() -> Classifier:
    """The weights that ship with the package, fitted by ``bench/triage_fit.py``."""
    data = json.loads(Path(__file__).with_name("ngrams.json").read_text(encoding="utf-8"))
    return Classifier(data["bias"], data["threshold"], data["weights"])


def score(text: Text, model: Classifier) -> float:
    """The log-odds of the run of clauses that looks most like an emergency."""
    return best_run(clauses(text), model)[0]


def best_run(parts: Sequence[str], model: Classifier) -> tuple[float, int, int]:
    """Log-odds of the best run of clauses, and its first and past-the-last clause.

    Runs of ``SHORTEST`` to ``RUN`` characters are tried, so that small talk around an emergency cannot dilute it and
    a few words torn out of their sentence cannot make one.
    """
    sums = [(0.0, 0, 0)]
    for clause in parts:
        weight, count, length = sums[-1]
        found = ngrams(clause)
        sums.append((weight + sum(model.weights.get(gram, 0.0) for gram in found), count + len(found), length + len(clause)))
    shortest = min(SHORTEST, sums[-1][2])
    best = (-math.inf, 0, 0)
    for first, (weight, count, length) in enumerate(sums[:-1]):
        for last in range(first + 1, len(sums)):
            size = sums[last][2] - length
            if size > RUN and last > first + 1:
                break
            if size >= shortest:
                value = (sums[last][0] - weight) / math.sqrt(sums[last][1] - count)
                if value > best[0]:
                    best = (value, first, last)
    return best[0] + model.bias, best[1], best[2]


def clauses(text: Text) -> list[str]:
    """The text between punctuation and former spaces, nothing longer than ``CLAUSE`` characters."""
    edges = [0, *text.breaks, len(text.plain)]
    parts = [part for start, end in pairwise(edges) for part in re.split("[。，、□]+", text.plain[start:end])]
    return [part[start : start + CLAUSE] for part in parts for start in range(0, len(part), CLAUSE)]


def ngrams(clause: str) -> list[str]:
    """Single characters and pairs, with the edges of the clause marked."""
    edged = f"|{clause}|"
    return [*clause, *(edged[place : place + 2] for place in range(len(edged) - 1))]


# ---------------------------------------------------------------- reading the rules


@functools.cache
def load() -> Knowledge:
    """The rules that ship with the package, highest level first."""
    data = json.loads(Path(__file__).with_name("triage.json").read_text(encoding="utf-8"))
    words = data["words"]
    rules = [_rule(entry, words) for entry in data["rules"]]
    rules.sort(key=lambda rule: -LEVELS.index(rule.level))
    scopes = {name: re.compile(_expand(pattern, words)) for name, pattern in data["scopes"].items()}
    table = str.maketrans(data["traditional"]["from"], data["traditional"]["to"])
    typos = data["typos"]
    typo = re.compile("|".join(sorted(map(re.escape, typos), key=len, reverse=True)))
    idioms = re.compile(_expand("|".join(data["idioms"]), words))
    return Knowledge(tuple(rules), scopes, table, typos, typo, idioms)


def _rule(entry: dict[str, Any], words: dict[str, str]) -> Rule:
    when = tuple(tuple(re.compile(_expand(pattern, words)) for pattern in patterns) for patterns in entry["when"])
    despite = frozenset(entry.get("despite", ()))
    return Rule(entry["id"], entry["group"], entry["level"], entry["message"], when, entry.get("within", 60), despite)


def _expand(pattern: str, words: dict[str, str]) -> str:
    """Put the word lists in for their names: ``{胸}{痛}`` becomes ``(?:胸口|心口|…)(?:痛|疼|…)``."""
    while re.search(r"\{[^\d{},][^{}]*\}", pattern):
        pattern = re.sub(r"\{([^\d{},][^{}]*)\}", lambda name: f"(?:{words[name[1]]})", pattern)
    return pattern


# ---------------------------------------------------------------- normalising


def normalise(text: str) -> Text:
    """Full width to half width, traditional to simplified, common typos mended, nothing left inside words."""
    knowledge = load()
    folded = unicodedata.normalize("NFKC", text).lower().translate(knowledge.simplified)
    folded = re.sub(r"(?<=\d)[.。](?=\d)", "\ue000", folded)
    folded = re.sub(r"[!?;。…\r\n]+|\.{2,}", "。", folded)
    folded = re.sub(r"[,:，：]", "，", folded)
    pieces = re.split(r"(?:[^\w。，、\ue000]|_)+", folded)
    plain = "".join(pieces).replace("\ue000", ".")
    mended = knowledge.typo.sub(lambda found: knowledge.typos[found[0]], plain)
    return Text(knowledge.idioms.sub(lambda found: "□" * len(found[0]), mended), _breaks(pieces))


def _breaks(pieces: Sequence[str]) -> tuple[int, ...]:
    """Where, in the joined pieces, a space may have ended a clause: between two pieces long enough not to be parts of a word."""
    ends = [0, *accumulate(len(piece) for piece in pieces)]
    return tuple(ends[place] for place in range(1, len(pieces)) if min(len(pieces[place - 1]), len(pieces[place])) >= PIECE)


# ---------------------------------------------------------------- matching


def _fires(rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> bool:
    return any(_all_match(patterns, rule, text, scopes) for patterns in rule.when)


def _all_match(patterns: Sequence[re.Pattern[str]], rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> bool:
    """Whether all patterns match live, close together; the later ones are looked for only around matches of the first."""
    first, *others = patterns
    for start, end in _live(_matches(first, text), rule, text, scopes):
        low, high = max(0, start - rule.within - MARGIN), end + rule.within + MARGIN
        spans = [_live([found.span() for found in other.finditer(text.plain, low, high)], rule, text, scopes) for other in others]
        if any(_spread(chosen) <= rule.within for chosen in product([(start, end)], *spans)):
            return True
    return False


def _live(spans: Sequence[tuple[int, int]], rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> list[tuple[int, int]]:
    return [span for span in spans if _is_live(text, span, rule.despite, scopes)]


def _matches(pattern: re.Pattern[str], text: Text) -> list[tuple[int, int]]:
    if pattern not in text.found:
        text.found[pattern] = [
            found.span() for _, found in zip(range(MATCHES_LOOKED_AT), pattern.finditer(text.plain), strict=False)
        ]
    return text.found[pattern]


def _spread(spans: Sequence[tuple[int, int]]) -> int:
    """Characters between the end of the first match and the start of the last."""
    return max(start for start, _ in spans) - min(end for _, end in spans)


# ---------------------------------------------------------------- what silences a match


def _is_live(text: Text, span: tuple[int, int], despite: frozenset[str], scopes: dict[str, re.Pattern[str]]) -> bool:
    return not any(name not in despite for name in _silenced(text, span, scopes))


def _silenced(text: Text, span: tuple[int, int], scopes: dict[str, re.Pattern[str]]) -> Iterator[str]:
    """The scopes a match stands in."""
    plain, (start, end) = text.plain, span
    sentence_start = plain.rfind("。", 0, start) + 1
    sentence_end = (plain + "。").index("。", end)
    clause_start = max(sentence_start, plain.rfind("，", 0, start) + 1, _break_before(text, start))
    clause_end = min(sentence_end, (plain + "，").index("，", end))
    sentence, before = plain[sentence_start:sentence_end], plain[sentence_start:start]
    clause, after, rest = plain[clause_start:start], plain[end:clause_end], plain[end:sentence_end]
    here = scopes["here"].search(sentence)
    if scopes["negation"].search(clause) or scopes["negation_after"].match(after):
        yield "negated"
    if scopes["negation_inside"].search(plain[start:end]):
        yield "denied"
    if _since("past", clause, "lately", scopes) or (scopes["over"].search(rest) and _since("past", before, "now", scopes)):
        yield "past"
    if not here and scopes["settled"].search(sentence):
        yield "past"
    if scopes["supposed"].search(before):
        yield "supposed"
    if _since("told", plain[max(0, start - TOLD_BEFORE) : start], "person", scopes) or (not here and scopes["told"].search(rest)):
        yield "told"
    if not here and scopes["taught"].search(sentence):
        yield "taught"
    if not here and scopes["habitual"].search(plain[clause_start:clause_end]):
        yield "habitual"


def _since(name: str, before: str, ended_by: str, scopes: dict[str, re.Pattern[str]]) -> bool:
    """Whether the last word of a scope in ``before`` comes after the last word that ends the scope."""
    opened = [found.end() for found in scopes[name].finditer(before)]
    ended = [found.end() for found in scopes[ended_by].finditer(before)]
    return max(opened, default=-1) > max(ended, default=-1)


def _break_before(text: Text, position: int) -> int:
    index = bisect_right(text.breaks, position)
    return text.breaks[index - 1] if index else 0
