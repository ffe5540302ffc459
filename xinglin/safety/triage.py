"""Red flags in what the user wrote, found before any model runs: fixed rules in, at most one fixed Chinese text out.

In: the user's turns, oldest first, as typed (long, unpunctuated, with typos, traditional characters, emoji inside words).
Out: the alert of the highest level found in any turn, or ``None``::

    triage(["我爸胸口压着疼半个多小时了，一身冷汗，应该没事吧"])
    -> Alert(level="A", rule="heart-attack", message="可能是心肌梗死等急症。请立即拨打120……")

Two readers work together. A linear model over character n-grams (``ngrams.json``) scores the most alarming stretch of the text.
Rules (``triage.json``) are lists of patterns; a list counts when all its patterns match close together and every match is live:
not negated, not past, not taught, not supposed, not told from a film. A rule that counts raises its alert unless the score says
that nothing points to an emergency, the less the more lists count; without a rule the score must be high; a few plain statements
(``sure``) need no score, in a long text next to none. What stands around a stretch is weighed with it: words that alarm do not
make a long story an emergency. Words that play a symptom down are not looked at by the rules, so they cannot lower a level.
"""

import functools
import hashlib
import json
import math
import operator
import re
import secrets
import threading
import unicodedata
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice, pairwise, product, repeat
from pathlib import Path
from re import _parser  # type: ignore[attr-defined]
from typing import Any

LEVELS = "CBA"  # rising: today's doctor, emergency department now, call 120 now
TOLD_BEFORE = 160  # characters a film, a book or a lesson named before a match reaches
RECALLED = 300  # characters of earlier turns read together with as many of a turn
REMEMBERED = 4096  # turns whose verdict is kept, under a keyed digest and never as text
STRETCHES = (10, 20, 40, 80, 160)  # characters scored as one; fixed, so that text around them changes nothing
SELF_HARM = "self-harm"
BRIEF = 14  # characters of a sentence in which a rule needs no score
FULL = 20  # characters from which a stretch has its full say
AROUND = 60  # characters beside an alarming stretch in which rules are looked for
SURROUNDINGS = 150  # characters beside an alarming stretch that are weighed with it
SMALL_TALK = 48  # of them, the characters at one end that may be left out, so that a greeting lowers nothing
AGAINST = 4.0  # log-odds the surroundings may at most speak against a stretch
CLAUSE = 16  # characters a habit reaches where no sign ends the clause
LONG = 120  # characters from which words of a sure rule may stand together by chance
DOUBT = -0.5  # log-odds the most alarming stretch of a long text must exceed for a sure rule
PAST = 40  # characters a time long past reaches where nothing ends the clause
CLASSIFIER_MESSAGE = (
    "您描述的情况可能是急症。请立即拨打120，或马上到最近的医院急诊；"
    "如果有伤害自己的念头，请拨打110或全国统一心理援助热线12356（不保证24小时接通），并请身边的人陪着您。"
)
PIECE = 4  # characters; shorter pieces between spaces are words typed apart
WITHIN = 40  # characters the matches of one list may lie apart: one or two clauses
MARGIN = 20  # characters a match may itself be long
MATCHES_LOOKED_AT = 12  # per pattern; repeating one word a thousand times must not cost time


@dataclass(frozen=True)
class Alert:
    """Level "A" call 120 now, "B" emergency department now, "C" see a doctor today; the rule's id; the fixed text."""

    level: str
    rule: str
    message: str


@dataclass(frozen=True)
class Patterns:
    """Patterns that must match close together. ``needs``: bits of the sets of signs (``Knowledge.bits``) a text must hold."""

    all: tuple[re.Pattern[str], ...]
    needs: int


@dataclass(frozen=True)
class Rule:
    """``when``: lists of patterns, each list one way to count. ``sure``: lists that raise the alert whatever the score.

    ``brief``: lists that count in a sentence of a few words only, where a sign needs no second one.

    ``within``: characters the matches may lie apart.

    ``despite``: scopes that do not silence this rule, of negated, denied (negated inside), past, habitual,
    supposed, taught, told.
    """

    id: str
    group: str
    level: str
    message: str
    when: tuple["Patterns", ...]
    sure: tuple["Patterns", ...]
    brief: tuple["Patterns", ...]
    within: int
    despite: frozenset[str]


@dataclass(frozen=True)
class Knowledge:
    """Everything ``triage.json`` holds, compiled; and from ``sounds.json``:

    ``sounds``: the syllable of a character. ``meant``: words by the first two syllables, longest first, with all syllables.
    ``real``: pairs of characters that sound like the start of such a word and are none.

    ``bits``: for a sign, the sets of signs it stands in, one bit each. A pattern cannot match a text that holds no sign of one
    of its sets; most lists are passed over by one comparison of numbers instead of a search.
    """

    rules: tuple[Rule, ...]
    scopes: dict[str, re.Pattern[str]]
    simplified: dict[int, int]
    respelled: dict[str, str]
    dialect: re.Pattern[str]
    typo: re.Pattern[str]
    idioms: re.Pattern[str]
    bits: dict[str, int]
    sounds: dict[str, str]
    meant: dict[tuple[str, str], list[tuple[list[str], str]]]
    real: frozenset[str]


@dataclass(frozen=True)
class Classifier:
    """A linear model over character n-grams: log-odds of an emergency = bias + sum of weights / root of their number.

    What is compared is the log-odds of the most alarming stretch plus those of the stretch with its surroundings. ``bars``:
    what the sum must exceed by itself, where one list of the rules counts as well, where two do, and three; falling.
    """

    bias: float
    bars: tuple[float, ...]
    weights: dict[str, float]


@dataclass(frozen=True)
class Text:
    """A normalised turn: no spaces, emoji or invisible characters; ``breaks`` are the positions where a space stood."""

    plain: str
    breaks: tuple[int, ...]
    found: dict[str, list[tuple[int, int]]] = field(default_factory=dict, compare=False)

    @functools.cached_property
    def holds(self) -> int:
        """The bits of all sets of signs the text holds one of."""
        return functools.reduce(operator.or_, (load().bits.get(sign, 0) for sign in set(self.plain)), 0)


def triage(texts: Sequence[str]) -> Alert | None:
    """The alert of the highest level over all user turns, oldest first; ``None`` when nothing in them is a red flag.

    Each turn is looked at alone and its beginning together with the end of those before it (an age named first, a fever
    named later), so an alert once raised stays for the rest of the conversation. The first of several alerts of one level wins.
    """
    return _highest(_remembered(text) for text in _together(texts))


def every(texts: Sequence[str]) -> list[Alert]:
    """The alerts of all user turns, one per rule, the newest turn's first; level C comes last, so that it stands before no other.

    An alert found in a turn together with those before it is new only where nothing raised it earlier.
    """
    found: dict[str, Alert] = {}
    own = set(texts)
    for text in _together(texts):
        alert = _remembered(text)
        for one in (*_beside(alert, text), alert) if alert else ():
            if text in own or one.rule not in found:
                found.pop(one.rule, None)
                found[one.rule] = one
    newest_first = list(found.values())[::-1]
    return sorted(newest_first, key=lambda alert: alert.level == "C")


def _beside(alert: Alert, text: str) -> Iterator[Alert]:
    """Talk of suicide in a turn that raised another alarm: the help line is told as well. A turn speaks of one sign else."""
    rule = next(rule for rule in load().rules if rule.id == SELF_HARM)
    if alert.rule != rule.id and _counts(rule.when, rule, normalise(text)):
        yield Alert(rule.level, rule.id, rule.message)


def by_rules(texts: Sequence[str]) -> Alert | None:
    """What the rules would say if they raised an alert whatever the score."""
    return _highest(_alert(fired(normalise(text))) for text in _together(texts))


def _together(texts: Sequence[str]) -> Iterator[str]:
    before = ""
    for text in texts:
        yield text
        if before:
            yield f"{before}\n{text[:RECALLED]}"
            if later := _after_small_talk(text):
                yield f"{before}\n{later[:RECALLED]}"
        before = f"{before}\n{text}".lstrip()[-RECALLED:]


def _after_small_talk(text: str) -> str:
    """What follows a short first sentence, which must not push the rest away from the turns before; empty if there is none."""
    first, _, rest = text.partition("。")
    return rest if 0 < len(first) <= SMALL_TALK else ""


def _highest(alerts: Iterable[Alert | None]) -> Alert | None:
    return max((alert for alert in alerts if alert), key=lambda alert: LEVELS.index(alert.level), default=None)


_SIGN = re.compile(r"[a-z]+|.", re.DOTALL)
_BLURRED = re.compile(r"(?<=^[zcs])h|(?<=n)g$")
_SECRET = secrets.token_bytes(32)
_verdicts: OrderedDict[bytes, Alert | None] = OrderedDict()
_lock = threading.Lock()


def _remembered(text: str) -> Alert | None:
    """The verdict on a turn. Earlier turns come again with every question: their verdicts are kept, their texts are not."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=_SECRET, digest_size=16).digest()
    with _lock:  # long turns are read in threads
        if digest in _verdicts:
            return _verdicts[digest]
    verdict = _turn(text)
    with _lock:
        _verdicts[digest] = verdict
        if len(_verdicts) > REMEMBERED:
            _verdicts.popitem(last=False)
    return verdict


def _turn(text: str) -> Alert | None:
    """The model first; rules of level A and B are looked for only where its score leaves them something to say.

    A sentence of a few words gives the model nothing to weigh: there a rule is enough.
    """
    normal = normalise(text)
    alarming = [_judged(normal, *place) for place in _places(normal, classifier())]
    return _highest([_alert(_credible(sure(normal), normal)), _alert(brief(normal)), *alarming]) or _alert(fired(normal, "C"))


def _credible(rule: Rule | None, text: Text) -> Rule | None:
    """The rule, unless it was found in a long story no stretch of which alarms: words far apart that only look like a sign."""
    read, _ = letters(text)
    return None if rule and len(read) > LONG and score(read, classifier()) <= DOUBT else rule


def _judged(text: Text, start: int, end: int, value: float) -> Alert | None:
    """The verdict on one place of the text, weighed at ``value``: as many lists must count as its weight asks for."""
    needed = next(lists for lists, bar in enumerate(classifier().bars) if value > bar)
    found = list(islice(counting(_part(text, start, end), "AB"), max(needed, 1)))
    if len(found) < needed:
        return None
    return _alert(found[0]) if found else Alert("B", "classifier", CLASSIFIER_MESSAGE)


def _alert(rule: Rule | None) -> Alert | None:
    return Alert(rule.level, rule.id, rule.message) if rule else None


def fired(text: Text, levels: str = LEVELS) -> Rule | None:
    """The first rule of the highest of these levels that counts in the text."""
    return next(counting(text, levels), None)


def counting(text: Text, levels: str = LEVELS) -> Iterator[Rule]:
    """A rule of these levels for each of its lists that counts in the text, highest level first."""
    chosen = ((rule, patterns) for rule in load().rules if rule.level in levels for patterns in rule.when)
    return (rule for rule, patterns in chosen if _list_counts(patterns, rule, text))


def sure(text: Text) -> Rule | None:
    """The first rule with a list that needs no score."""
    return next((rule for rule in load().rules if _counts(rule.sure, rule, text)), None)


def brief(text: Text) -> Rule | None:
    """The first rule of level A or B that counts in a sentence of a few words by itself, pleasantries and the like left out."""
    small_talk = load().scopes["small_talk"]
    for sentence in text.plain.split("。"):
        said = "，".join(clause for clause in sentence.split("，") if clause and not small_talk.search(clause))
        if 0 < len(said.replace("，", "")) <= BRIEF:
            alone = Text(said, ())
            if rule := fired(alone, "AB") or next((rule for rule in load().rules if _counts(rule.brief, rule, alone)), None):
                return rule
    return None


# ---------------------------------------------------------------- the linear model


@functools.cache
def classifier() -> Classifier:
    """The weights that ship with the package, fitted by ``bench/triage_fit.py``."""
    data = json.loads(Path(__file__).with_name("ngrams.json").read_text(encoding="utf-8"))
    return Classifier(data["bias"], tuple(data["bars"]), data["weights"])


def letters(text: Text) -> tuple[str, list[int]]:
    """What the model reads, without punctuation and masked idioms, and where each character stands in ``text.plain``."""
    places = [place for place, sign in enumerate(text.plain) if sign not in "。，、□"]
    return "".join(text.plain[place] for place in places), places


def ngrams(letters: str) -> list[str]:
    """Single characters, pairs and threes."""
    return [letters[place : place + size] for size in (1, 2, 3) for place in range(len(letters) - size + 1)]


def running(letters: str, model: Classifier) -> list[float]:
    """Sums of the weights of all n-grams that end at or before each place; 0.0 first."""
    get, none = model.weights.get, repeat(0.0)
    pairs = list(map(operator.add, letters, letters[1:]))
    threes = map(operator.add, pairs, letters[2:])
    one, two, three = map(get, letters, none), map(get, pairs, none), map(get, threes, none)
    ending = map(operator.add, map(operator.add, one, chain((0.0,), two)), chain((0.0, 0.0), three))
    return list(accumulate(ending, initial=0.0))


def stretches(letters: str, model: Classifier) -> Iterator[tuple[int, float, list[float]]]:
    """For each length that fits: a factor and, by where it starts, the sum of the weights of every stretch of that length.

    Log-odds = sum times factor + bias. A stretch shorter than ``FULL`` is divided as if it had that length. Only its own
    characters count, so neither punctuation nor text around it changes its score.
    """
    sums = running(letters, model)
    for length in [length for length in STRETCHES if length <= len(letters)] or [len(letters)]:
        yield length, 1 / math.sqrt(3 * max(length, FULL)), list(map(operator.sub, sums[length:], sums))


def score(letters: str, model: Classifier) -> float:
    """The log-odds of the most alarming stretch, without rules."""
    return max(max(values) * factor for _, factor, values in stretches(letters, model)) + model.bias


def best_stretch(letters: str, model: Classifier) -> str:
    """The most alarming stretch of the letters of a text."""
    best = max((max(values) * factor, values.index(max(values)), length) for length, factor, values in stretches(letters, model))
    return letters[best[1] : best[1] + best[2]]


def surroundings(sums: Sequence[float], start: int, end: int, model: Classifier) -> float:
    """The log-odds of a stretch with what stands around it, less the ``SMALL_TALK`` at one end that speaks most against it.

    ``sums``: what ``running`` returns. A long story of everyday complaints has a low value even where some words of it alarm.
    """
    low, high = max(0, start - SURROUNDINGS), min(len(sums) - 1, end + SURROUNDINGS)
    later = ((min(low + cut, start), high) for cut in range(0, SMALL_TALK + 1, 4))
    sooner = ((low, max(high - cut, end)) for cut in range(4, SMALL_TALK + 1, 4))
    return (
        max((sums[last] - sums[first]) / math.sqrt(3 * max(last - first, FULL)) for first, last in chain(later, sooner))
        + model.bias
    )


def weighed(letters: str, model: Classifier) -> list[tuple[int, int, float]]:
    """Start, end and weight of the alarming places of the letters, the weights above the lowest bar.

    Stretches that overlap are one place; its weight is the log-odds of the best of them, alone and with its surroundings.
    """
    sums, found = running(letters, model), []
    for length, factor, values in stretches(letters, model):
        enough = (model.bars[-1] / 2 - model.bias) / factor
        if max(values) > enough:
            found += [
                (start, start + length, value * factor + model.bias) for start, value in enumerate(values) if value > enough
            ]
    places = []
    for start, end, value, (first, last) in _merged(found):
        weight = value + max(surroundings(sums, first, last, model), -AGAINST)
        if weight > model.bars[-1]:
            places.append((start, end, weight))
    return places


def _merged(found: Sequence[tuple[int, int, float]]) -> list[tuple[int, int, float, tuple[int, int]]]:
    """Overlapping stretches joined: start, end, the highest value and the stretch that has it."""
    merged: list[tuple[int, int, float, tuple[int, int]]] = []
    for start, end, value in sorted(found):
        if merged and start <= merged[-1][1]:
            first, last, best, where = merged[-1]
            merged[-1] = (first, max(last, end), *max((best, where), (value, (start, end))))
        else:
            merged.append((start, end, value, (start, end)))
    return merged


def weight(letters: str, model: Classifier) -> float:
    """The weight of the whole text: the highest of its alarming places, minus infinity where there is none."""
    return max((value for _, _, value in weighed(letters, model)), default=-math.inf)


def _places(text: Text, model: Classifier) -> list[tuple[int, int, float]]:
    """Start, end and weight, with their surroundings, of the parts of the text that weigh enough for a rule to count."""
    read, places = letters(text)
    found = weighed(read, model) if read else []
    return [(max(0, places[start] - AROUND), places[end - 1] + AROUND, value) for start, end, value in found]


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
    sets: dict[frozenset[str], int] = {}
    rules = [_rule(entry, words, sets) for entry in data["rules"]]
    rules.sort(key=lambda rule: -LEVELS.index(rule.level))
    scopes = {name: re.compile(_expand(pattern, words)) for name, pattern in data["scopes"].items()}
    table = str.maketrans(data["traditional"]["from"], data["traditional"]["to"])
    dialect, typo = _any_of(data["dialect"]), _any_of(data["typos"])
    idioms = re.compile(_expand("|".join(data["idioms"]), words))
    respelled = {**data["dialect"], **data["typos"]}
    return Knowledge(tuple(rules), scopes, table, respelled, dialect, typo, idioms, _bits(sets), *_sounds())


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


def _rule(entry: dict[str, Any], words: dict[str, str], sets: dict[frozenset[str], int]) -> Rule:
    when, sure, brief_ = (tuple(_patterns(one, words, sets) for one in entry.get(name, ())) for name in ("when", "sure", "brief"))
    despite = frozenset(entry.get("despite", ()))
    return Rule(
        entry["id"], entry["group"], entry["level"], entry["message"], when, sure, brief_, entry.get("within", WITHIN), despite
    )


def _patterns(written: Sequence[str], words: dict[str, str], sets: dict[frozenset[str], int]) -> Patterns:
    """Compile one list, what is found least often first; ``sets`` numbers the sets of signs as they come."""
    needed = {(expanded := _expand(pattern, words)): _needed(expanded) for pattern in written}
    rarest_first = sorted(needed, key=lambda expanded: min(map(len, needed[expanded]), default=len(expanded)))
    every = {signs for several in needed.values() for signs in several}
    return Patterns(tuple(map(_compiled, rarest_first)), sum(1 << sets.setdefault(signs, len(sets)) for signs in every))


@functools.cache
def _compiled(expanded: str) -> re.Pattern[str]:
    return re.compile(expanded)


def _bits(sets: dict[frozenset[str], int]) -> dict[str, int]:
    bits: dict[str, int] = {}
    for signs, place in sets.items():
        for sign in signs:
            bits[sign] = bits.get(sign, 0) | 1 << place
    return bits


def _expand(pattern: str, words: dict[str, str]) -> str:
    """Put the word lists in for their names: ``{胸}{痛}`` becomes ``(?:胸口|心口|…)(?:痛|疼|…)``."""
    while re.search(r"\{[^\d{},][^{}]*\}", pattern):
        pattern = re.sub(r"\{([^\d{},][^{}]*)\}", lambda name: f"(?:{words[name[1]]})", pattern)
    return pattern


def _needed(pattern: str) -> set[frozenset[str]]:
    """Sets of signs; every text that matches holds at least one sign of each."""
    return _needed_of(_parser.parse(pattern))


def _needed_of(parsed: Any) -> set[frozenset[str]]:
    return {signs for part in parsed for signs in _needed_of_part(*part)}


def _needed_of_part(kind: Any, value: Any) -> set[frozenset[str]]:
    match str(kind):
        case "LITERAL":
            return {frozenset(chr(value))}
        case "IN" if all(str(name) == "LITERAL" for name, _ in value):
            return {frozenset(chr(sign) for _, sign in value)}
        case "SUBPATTERN":
            return _needed_of(value[3])
        case "MAX_REPEAT" if value[0] > 0:
            return _needed_of(value[2])
        case "BRANCH":
            branches = [_needed_of(branch) for branch in value[1]]
            return {frozenset().union(*(min(signs, key=len) for signs in branches))} if all(branches) else set()
    return set()


# ---------------------------------------------------------------- normalising


def normalise(text: str) -> Text:
    """Full width to half width, traditional and dialect to common words, slips of typing mended, nothing left inside words."""
    knowledge = load()
    folded = unicodedata.normalize("NFKC", text).lower().translate(knowledge.simplified)
    folded = knowledge.dialect.sub(lambda found: knowledge.respelled[found[0]], folded)
    folded = re.sub(r"(?<=\d)[^\w。，、.]*[.。][^\w。，、.]*(?=\d)", "\ue000", folded)
    folded = re.sub(r"[!?;。…\r\n]+|\.{2,}", "。", folded)
    folded = re.sub(r"[,:，：]", "，", folded)
    pieces = re.split(r"(?:[^\w。，、\ue000]|_)+", folded)
    plain = "".join(pieces).replace("\ue000", ".")
    mended = _as_meant(knowledge.typo.sub(lambda found: knowledge.respelled[found[0]], plain), knowledge)
    return Text(knowledge.idioms.sub(lambda found: "□" * len(found[0]), mended), _breaks(pieces))


def _as_meant(plain: str, knowledge: Knowledge) -> str:
    """Words the rules know put in for characters or Latin syllables that sound like them and are no other word (凶口, 今tian)."""
    signs = _SIGN.findall(plain)
    sounds = [knowledge.sounds.get(sign) or _sound(sign) for sign in signs]
    past = 0
    for place, key in enumerate(pairwise(sounds)):
        if place >= past and key in knowledge.meant and "".join(signs[place : place + 2]) not in knowledge.real:
            heard = (word for spoken, word in knowledge.meant[key] if sounds[place : place + len(word)] == spoken)
            word = next((word for word in heard if not _cuts(signs, sounds, place + 1, place + len(word), knowledge)), "")
            signs[place : place + len(word)] = word
            past = place + len(word)
    return "".join(signs)


def _cuts(signs: Sequence[str], sounds: Sequence[str], start: int, end: int, knowledge: Knowledge) -> bool:
    """Whether a word written as it is meant begins from ``start`` on and ends after ``end``: in 所以今天 no 已经 is meant."""
    return any(
        "".join(signs[place : place + len(word)]) == word and place + len(word) > end
        for place in range(start, end)
        for _, word in knowledge.meant.get((sounds[place], "".join(sounds[place + 1 : place + 2])), ())
    )


def _sound(syllable: str) -> str:
    """A Latin syllable as the table of sounds spells it, which takes zh for z and ng for n."""
    return _BLURRED.sub("", syllable) if syllable.isascii() and syllable.isalpha() else ""


def _breaks(pieces: Sequence[str]) -> tuple[int, ...]:
    """Where, in the joined pieces, a space may have ended a clause: between two pieces long enough not to be parts of a word."""
    ends = [0, *accumulate(len(piece) for piece in pieces)]
    return tuple(ends[place] for place in range(1, len(pieces)) if min(len(pieces[place - 1]), len(pieces[place])) >= PIECE)


# ---------------------------------------------------------------- matching


def _counts(lists: Sequence[Patterns], rule: Rule, text: Text) -> bool:
    return any(_list_counts(patterns, rule, text) for patterns in lists)


def _list_counts(patterns: Patterns, rule: Rule, text: Text) -> bool:
    return _possible(patterns, text) and _all_match(patterns, rule, text, load().scopes)


def _possible(patterns: Patterns, text: Text) -> bool:
    return patterns.needs & text.holds == patterns.needs


def _all_match(patterns: Patterns, rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> bool:
    """Whether all patterns match live, close together; the later ones are looked for only around matches of the first."""
    if not all(_matches(pattern, text) for pattern in patterns.all):
        return False
    first, *others = patterns.all
    for start, end in _live(_matches(first, text), rule, text, scopes):
        low, high = max(0, start - rule.within - MARGIN), end + rule.within + MARGIN
        spans = [_live([found.span() for found in other.finditer(text.plain, low, high)], rule, text, scopes) for other in others]
        if any(_spread(chosen) <= rule.within for chosen in product([(start, end)], *spans)):
            return True
    return False


def _live(spans: Sequence[tuple[int, int]], rule: Rule, text: Text, scopes: dict[str, re.Pattern[str]]) -> list[tuple[int, int]]:
    return [span for span in spans if _is_live(text, span, rule.despite, scopes)]


def _matches(pattern: re.Pattern[str], text: Text) -> list[tuple[int, int]]:
    """The first matches, looked for once a text. Kept under what is written, since the hash of a pattern is not kept by it."""
    spans = text.found.get(pattern.pattern)
    if spans is None:
        spans = text.found[pattern.pattern] = [found.span() for found in islice(pattern.finditer(text.plain), MATCHES_LOOKED_AT)]
    return spans


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
    near = plain[max(clause_start, start - CLAUSE) : min(clause_end, end + CLAUSE)]
    here = scopes["here"].search(sentence)
    if scopes["negation"].search(clause) or scopes["negation_after"].match(after):
        yield "negated"
    if scopes["negation_inside"].search(plain[start:end]):
        yield "denied"
    if _since("past", plain[max(clause_start, start - PAST) : end], "lately", scopes) or (
        scopes["over"].search(rest) and _since("past", before, "now", scopes)
    ):
        yield "past"
    if not here and scopes["settled"].search(sentence):
        yield "past"
    if (
        scopes["treated"].search(rest)
        and not scopes["worse"].search(rest)
        and not scopes["now"].search(before + plain[start:end])
    ):
        yield "past"
    if scopes["supposed"].search(before):
        yield "supposed"
    if _since("told", plain[max(0, start - TOLD_BEFORE) : start], "person", scopes) or (not here and scopes["told"].search(rest)):
        yield "told"
    if not here and scopes["taught"].search(sentence):
        yield "taught"
    if not here and scopes["habitual"].search(near):
        yield "habitual"


def _since(name: str, before: str, ended_by: str, scopes: dict[str, re.Pattern[str]]) -> bool:
    """Whether the last word of a scope in ``before`` comes after the last word that ends the scope."""
    opened = [found.end() for found in scopes[name].finditer(before)]
    ended = [found.end() for found in scopes[ended_by].finditer(before)]
    return max(opened, default=-1) > max(ended, default=-1)


def _break_before(text: Text, position: int) -> int:
    index = bisect_right(text.breaks, position)
    return text.breaks[index - 1] if index else 0
