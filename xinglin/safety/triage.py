"""Red flags in what the user wrote, found before any model runs: fixed rules in, at most one fixed Chinese text out.

In: the user's turns, oldest first, as typed (long, unpunctuated, with typos, traditional characters, emoji inside words).
Out: the alert of the highest level found in any turn, or ``None``::

    triage(["我爸胸口压着疼半个多小时了，一身冷汗，应该没事吧"])
    -> Alert(level="A", rule="heart-attack", message="可能是心肌梗死等急症。请立即拨打120……")

Two readers work together. A linear model over character n-grams (``ngrams.json``) scores the most alarming stretch of the text.
Rules (``triage.json``) are lists of patterns; a list counts when all its patterns match close together and every match is live:
not negated, not past, not taught, not supposed, not told from a film. Every list that counts adds to the score, none takes away;
the alert is raised above a threshold, with the level and the text of the rule, or those of the model where no rule counts.
Words that play a symptom down are not looked at by the rules, so they cannot lower a level.
"""

import functools
import hashlib
import json
import math
import operator
import re
import secrets
import unicodedata
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Any

LEVELS = "CBA"  # rising: today's doctor, emergency department now, call 120 now
TOLD_BEFORE = 160  # characters a film, a book or a lesson named before a match reaches
RECALLED = 400  # characters of earlier turns read together with a turn
REMEMBERED = 4096  # turns whose verdict is kept, under a keyed digest and never as text
STRETCHES = (10, 15, 20, 30, 40, 60, 80, 120, 160)  # characters scored as one; fixed, so that text around them changes nothing
FULL = 20  # characters from which a stretch has its full say
AROUND = 200  # characters beside an alarming stretch in which rules are looked for
CLASSIFIER_MESSAGE = (
    "您描述的情况可能是急症。请立即拨打120，或马上到最近的医院急诊；"
    "如果有伤害自己的念头，请拨打110或全国统一心理援助热线12356（不保证24小时接通），并请身边的人陪着您。"
)
PIECE = 4  # characters; shorter pieces between spaces are words typed apart
HINTS = 2  # lists of rules that add to a score
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
    """``when``: lists of patterns, each list one way to count. ``sure``: lists that raise the alert whatever the score.

    ``within``: characters the matches may lie apart.

    ``despite``: scopes that do not silence this rule, of negated, denied (negated inside), past, habitual,
    supposed, taught, told.
    """

    id: str
    group: str
    level: str
    message: str
    when: tuple[tuple[re.Pattern[str], ...], ...]
    sure: tuple[tuple[re.Pattern[str], ...], ...]
    within: int
    despite: frozenset[str]


@dataclass(frozen=True)
class Knowledge:
    """Everything ``triage.json`` holds, compiled; and from ``sounds.json``:

    ``sounds``: the syllable of a character. ``meant``: words by the first two syllables, longest first, with all syllables.
    ``real``: pairs of characters that sound like the start of such a word and are none.
    """

    rules: tuple[Rule, ...]
    scopes: dict[str, re.Pattern[str]]
    simplified: dict[int, int]
    respelled: dict[str, str]
    dialect: re.Pattern[str]
    typo: re.Pattern[str]
    idioms: re.Pattern[str]
    sounds: dict[str, str]
    meant: dict[tuple[str, str], list[tuple[list[str], str]]]
    real: frozenset[str]


@dataclass(frozen=True)
class Classifier:
    """A linear model over character n-grams: log-odds = bias + sum of weights / root of their number + ``hint`` per rule.

    ``hint``: what a list of a rule that counts adds, at most ``HINTS`` times. ``threshold``: an alert is raised above it.
    """

    bias: float
    hint: float
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

    Each turn is looked at alone and together with the end of those before it (an age named first, a fever named later), so
    an alert once raised stays for the rest of the conversation. The first of several alerts of one level wins.
    """
    return _highest(_remembered(text) for text in _together(texts))


def by_rules(texts: Sequence[str]) -> Alert | None:
    """What the rules alone would say if every list that counts raised an alert."""
    return _highest(_alert(fired(normalise(text))[0]) for text in _together(texts))


def _together(texts: Sequence[str]) -> Iterator[str]:
    before = ""
    for text in texts:
        yield text
        if before:
            yield f"{before}\n{text}"
        before = f"{before}\n{text}".lstrip()[-RECALLED:]


def _highest(alerts: Iterable[Alert | None]) -> Alert | None:
    return max((alert for alert in alerts if alert), key=lambda alert: LEVELS.index(alert.level), default=None)


_SECRET = secrets.token_bytes(32)
_verdicts: OrderedDict[bytes, Alert | None] = OrderedDict()


def _remembered(text: str) -> Alert | None:
    """The verdict on a turn. Earlier turns come again with every question: their verdicts are kept, their texts are not."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=_SECRET, digest_size=16).digest()
    if digest in _verdicts:
        return _verdicts[digest]
    verdict = _verdicts[digest] = _turn(text)
    if len(_verdicts) > REMEMBERED:
        _verdicts.popitem(last=False)
    return verdict


def _turn(text: str) -> Alert | None:
    """The model first; rules of level A and B are looked for only where they could lift its score above the threshold."""
    normal, model = normalise(text), classifier()
    alarming = [_judged(normal, *place, model) for place in _places(normal, model)]
    return _highest([_alert(sure(normal)), *alarming]) or _alert(fired(normal, "C")[0])


def _judged(text: Text, start: int, end: int, value: float, model: Classifier) -> Alert | None:
    """The verdict on one place of the text, whose best stretch scores ``value``."""
    rules, lists = fired(_part(text, start, end), "AB")
    if value + model.hint * lists <= model.threshold:
        return None
    return _alert(rules) or Alert("A", "classifier", CLASSIFIER_MESSAGE)


def _alert(rules: Sequence[Rule]) -> Alert | None:
    return Alert(rules[0].level, rules[0].id, rules[0].message) if rules else None


def fired(text: Text, levels: str = LEVELS) -> tuple[list[Rule], int]:
    """The rules with a list that counts, highest level first, and how many lists count; no further than ``HINTS``."""
    knowledge, rules, lists = load(), [], 0
    for rule in knowledge.rules:
        if rule.level in levels and (counting := _counting(rule, text, knowledge.scopes)):
            rules.append(rule)
            lists += counting
            if lists >= HINTS:
                break
    return rules, min(lists, HINTS)


def sure(text: Text) -> list[Rule]:
    """The rules with a list that needs no score, highest level first."""
    knowledge = load()
    return [rule for rule in knowledge.rules if any(_all_match(lists, rule, text, knowledge.scopes) for lists in rule.sure)]


# ---------------------------------------------------------------- the linear model


@functools.cache
def classifier() -> Classifier:
    """The weights that ship with the package, fitted by ``bench/triage_fit.py``."""
    data = json.loads(Path(__file__).with_name("ngrams.json").read_text(encoding="utf-8"))
    return Classifier(data["bias"], data["hint"], data["threshold"], data["weights"])


def letters(text: Text) -> tuple[str, list[int]]:
    """What the model reads, without punctuation and masked idioms, and where each character stands in ``text.plain``."""
    places = [place for place, sign in enumerate(text.plain) if sign not in "。，、□"]
    return "".join(text.plain[place] for place in places), places


def ngrams(letters: str) -> list[str]:
    """Single characters, pairs and threes."""
    return [letters[place : place + size] for size in (1, 2, 3) for place in range(len(letters) - size + 1)]


def running(letters: str, model: Classifier) -> list[float]:
    """Sums of the weights of all n-grams that end at or before each place; 0.0 first."""
    get = model.weights.get
    ending = [get(sign, 0.0) for sign in letters]
    for size in (2, 3):
        for place in range(size - 1, len(letters)):
            ending[place] += get(letters[place - size + 1 : place + 1], 0.0)
    return list(accumulate(ending, initial=0.0))


def stretches(letters: str, model: Classifier) -> Iterator[tuple[int, list[float]]]:
    """For each length that fits: the log-odds of every stretch of that length, by where it starts.

    A stretch shorter than ``FULL`` is divided as if it had that length. Only its own characters count, so neither punctuation
    nor text around it changes its score.
    """
    sums = running(letters, model)
    for length in [length for length in STRETCHES if length <= len(letters)] or [len(letters)]:
        scale = 1 / math.sqrt(3 * max(length, FULL))
        yield length, [value * scale + model.bias for value in map(operator.sub, sums[length:], sums)]


def score(text: Text, model: Classifier) -> float:
    """The log-odds of the most alarming stretch, without rules."""
    return max(max(values) for _, values in stretches(letters(text)[0], model))


def best_stretch(text: str, model: Classifier) -> str:
    """The most alarming stretch of the letters of a text."""
    _, start, length = max((max(values), values.index(max(values)), length) for length, values in stretches(text, model))
    return text[start : start + length]


def _places(text: Text, model: Classifier) -> list[tuple[int, int, float]]:
    """Start, end and best score of the parts of the text that rules could lift above the threshold, with their surroundings."""
    read, places = letters(text)
    if not read:
        return []
    enough = model.threshold - HINTS * model.hint
    found = []
    for length, values in stretches(read, model):
        if max(values) > enough:
            found += [(start, start + length, value) for start, value in enumerate(values) if value > enough]
    merged: list[tuple[int, int, float]] = []
    for start, end, value in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]), max(value, merged[-1][2]))
        else:
            merged.append((start, end, value))
    return [(max(0, places[start] - AROUND), places[end - 1] + AROUND, value) for start, end, value in merged]


def _part(text: Text, start: int, end: int) -> Text:
    if start == 0 and end >= len(text.plain):
        return text
    return Text(text.plain[start:end], tuple(place - start for place in text.breaks if start < place < end))


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
    dialect, typo = _any_of(data["dialect"]), _any_of(data["typos"])
    idioms = re.compile(_expand("|".join(data["idioms"]), words))
    return Knowledge(tuple(rules), scopes, table, {**data["dialect"], **data["typos"]}, dialect, typo, idioms, *_sounds())


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))


def _sounds() -> tuple[dict[str, str], dict[tuple[str, str], list[tuple[list[str], str]]], frozenset[str]]:
    data = json.loads(Path(__file__).with_name("sounds.json").read_text(encoding="utf-8"))
    sounds = {sign: sound for sound, signs in data["alphabet"].items() for sign in signs}
    meant: dict[tuple[str, str], list[tuple[list[str], str]]] = {}
    for word in sorted(data["meant"], key=len, reverse=True):
        spoken = [sounds[sign] for sign in word]
        meant.setdefault((spoken[0], spoken[1]), []).append((spoken, word))
    return sounds, meant, frozenset(data["real"].split())


def _rule(entry: dict[str, Any], words: dict[str, str]) -> Rule:
    when, sure = (_lists(entry.get(name, ()), words) for name in ("when", "sure"))
    despite = frozenset(entry.get("despite", ()))
    return Rule(entry["id"], entry["group"], entry["level"], entry["message"], when, sure, entry.get("within", 60), despite)


def _lists(lists: Sequence[Sequence[str]], words: dict[str, str]) -> tuple[tuple[re.Pattern[str], ...], ...]:
    return tuple(tuple(re.compile(_expand(pattern, words)) for pattern in patterns) for patterns in lists)


def _expand(pattern: str, words: dict[str, str]) -> str:
    """Put the word lists in for their names: ``{胸}{痛}`` becomes ``(?:胸口|心口|…)(?:痛|疼|…)``."""
    while re.search(r"\{[^\d{},][^{}]*\}", pattern):
        pattern = re.sub(r"\{([^\d{},][^{}]*)\}", lambda name: f"(?:{words[name[1]]})", pattern)
    return pattern


# ---------------------------------------------------------------- normalising


def normalise(text: str) -> Text:
    """Full width to half width, traditional and dialect to common words, slips of typing mended, nothing left inside words."""
    knowledge = load()
    folded = unicodedata.normalize("NFKC", text).lower().translate(knowledge.simplified)
    folded = knowledge.dialect.sub(lambda found: knowledge.respelled[found[0]], folded)
    folded = re.sub(r"(?<=\d)[.。](?=\d)", "\ue000", folded)
    folded = re.sub(r"[!?;。…\r\n]+|\.{2,}", "。", folded)
    folded = re.sub(r"[,:，：]", "，", folded)
    pieces = re.split(r"(?:[^\w。，、\ue000]|_)+", folded)
    plain = "".join(pieces).replace("\ue000", ".")
    mended = _as_meant(knowledge.typo.sub(lambda found: knowledge.respelled[found[0]], plain), knowledge)
    return Text(knowledge.idioms.sub(lambda found: "□" * len(found[0]), mended), _breaks(pieces))


def _as_meant(plain: str, knowledge: Knowledge) -> str:
    """Words the rules know put in for characters that sound like them and are no other word (凶口, 呕土)."""
    sounds = [knowledge.sounds.get(sign, "") for sign in plain]
    signs, past = list(plain), 0
    for place, key in enumerate(pairwise(sounds)):
        if place >= past and key in knowledge.meant and plain[place : place + 2] not in knowledge.real:
            word = next((word for spoken, word in knowledge.meant[key] if sounds[place : place + len(word)] == spoken), "")
            signs[place : place + len(word)] = word
            past = place + len(word)
    return "".join(signs)


def _breaks(pieces: Sequence[str]) -> tuple[int, ...]:
    """Where, in the joined pieces, a space may have ended a clause: between two pieces long enough not to be parts of a word."""
    ends = [0, *accumulate(len(piece) for piece in pieces)]
    return tuple(ends[place] for place in range(1, len(pieces)) if min(len(pieces[place - 1]), len(pieces[place])) >= PIECE)


# ---------------------------------------------------------------- matching


def _counting(rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> int:
    """How many of the rule's lists count."""
    return sum(_all_match(patterns, rule, text, scopes) for patterns in rule.when)


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
