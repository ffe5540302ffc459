"""Which prohibitions of a source answer a rewritten answer no longer holds, by rules and word lists.

In: the source and the rewritten answer. Out: kind and clause of each that is gone or turned round::

    list(lost("别抽烟喝酒，胃溃疡禁用布洛芬。", "可以饮酒，戒烟。"))
    [("flipped prohibition", "别抽烟喝酒"), ("dropped prohibition", "胃溃疡禁用布洛芬")]

A prohibition is a marker (禁用, 别, 不要 …) with what it forbids, item by item. It is kept, in whatever words, when a clause of
the rewritten answer that warns of anything holds enough of the item's meaning (wording.py), or when one tells to do the opposite
(饮食清淡 for 别吃辣). A prohibition of the rewritten answer that the source has in no like words may stand for a missing one.
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.safety import wording
from xinglin.safety.wording import Words

CLAUSES = re.compile(r"[。！？!?；;\n，,：:]")
PIECES = re.compile(r"[，,：:()（）]")
SENTENCES = re.compile(r"[。！？!?；;\n]")
_SIGNS = re.compile(r"\W+")
LABEL = re.compile(r"(?m)^\d[.、][ \t]*[^：:\n]{2,10}[：:]")  # the name of a point
LONGEST = 32  # characters that say what is prohibited; text without punctuation runs on
# Share of the words that a clause must hold:
ENOUGH = 0.33  # of what is prohibited, where the clause warns
WHOLE = 0.6  # of that and of whom or when it concerns
FRONTED = 0.8  # of a thing named before the marker, as in 樟脑丸别放衣柜
SURE = 0.7  # of what is prohibited, where the clause permits
FULL = 0.8  # of what is prohibited, where no other prohibition can be meant
BARE = 2.2  # weight of the words of a warning that leaves to its neighbours what it is about
LIKE = 0.5  # of a prohibition of the rewritten answer, for the clause of the source to be where it comes from
# Share of the character pairs:
COPIED = 0.75  # of the source, for the rewritten answer to be in its words
TURN = 0.6  # of the source, for words beside a marker to be looked for
LITERAL = 0.4  # of what stands around a marker, in an answer in the source's words
VERBATIM = 0.8  # of a prohibition, for a clause to say it in the same words
REPEATED = 0.67  # of a clause, for it to be the repetition of another
BEFORE, AFTER = 6, 10  # characters around a marker; text without punctuation runs on
MAY = ("可以", "可用", "可", "能", "允许")


@dataclass(frozen=True)
class Ban:
    """A prohibition: its clause, its marker, whom or when it concerns, and what it forbids, as words.

    ``strong``: not just 减少, 以免, 错开. ``origin``: its clause, and those before it where they say what is forbidden.
    """

    said: str
    marker: str
    subject: Words
    items: tuple[Words, ...]
    strong: bool
    origin: tuple[str, ...]


@dataclass(frozen=True)
class Statement:
    """A clause: what it says; the meanings it says the opposite of; whether it warns, by itself forbids, permits, or just tells
    to stop."""

    text: str
    says: frozenset[str]
    opposes: frozenset[str]
    warns: bool
    forbids: bool
    permits: bool
    stops: bool


def lost(source: str, rewritten: str, question: str = "") -> Iterator[tuple[str, str]]:
    """Prohibitions of ``source`` that ``rewritten`` drops or turns into a permission."""
    wanted = [ban for ban in _bans(source) if ban.strong]
    if not wanted:
        return
    rewritten, before = LABEL.sub("", rewritten), f"{question}\n{source}"
    given, now = tuple(_clauses(before)), _clauses(rewritten)
    alike = _overlap(_pairs(source), _pairs(rewritten))
    copied = alike >= COPIED
    turned = [ban for ban in wanted if alike >= TURN and _is_turned(ban, rewritten, before)]
    yield from (("flipped prohibition", ban.said) for ban in turned)
    open_ = [ban for ban in wanted if ban not in turned and not _is_verbatim(ban, now, given)]
    if open_:
        yield from _lost_by_meaning(open_, wanted, source, rewritten, given, copied)


def _lost_by_meaning(
    bans: list[Ban], wanted: list[Ban], source: str, rewritten: str, given: tuple[str, ...], copied: bool
) -> Iterator[tuple[str, str]]:
    """``bans``: those of all ``wanted`` that the rewritten answer does not say in the source's words."""
    said = list(_statements(rewritten))
    repeats = {one.text: _repeats(one.text, given) for one in said if one.warns or one.opposes}
    dropped = []
    for ban in bans:
        own = [one for one in said if not _is_repeated(one, ban, repeats)]
        missing = [item for item in ban.items if not _is_kept(ban, item, own) or _is_borrowed(ban, item, own, wanted)]
        if copied and not missing and len(ban.origin) == 1 and not _is_copied(ban, said):
            missing = list(ban.items)
        if _is_flipped(ban, said, source):
            yield "flipped prohibition", ban.said
        elif missing and not _is_left_to_context(ban, rewritten):
            dropped.append((ban.said, _is_sure(missing[0])))
    unsure = sum(not sure for _, sure in dropped)
    spare = _spare(rewritten, source, wanted) if unsure else 0
    yield from (("dropped prohibition", ban) for ban, sure in dropped if sure or unsure > spare)


def _clauses(text: str) -> list[str]:
    return [clause for sentence in SENTENCES.split(text) for clause in PIECES.split(sentence) if clause]


def _is_repeated(one: Statement, ban: Ban, repeats: dict[str, list[tuple[float, str]]]) -> bool:
    """Whether the clause just repeats one of question or source that does not forbid what the ban does (整片吞，不可嚼碎)."""
    found = repeats.get(one.text, ())
    repeated = [(share, clause) for share, clause in found if clause not in ban.origin and not _tells(clause, ban)]
    pairs = _pairs(one.text)
    return bool(repeated) and max(repeated)[0] > max(_overlap(pairs, _pairs(clause)) for clause in ban.origin)


def _repeats(text: str, given: tuple[str, ...]) -> list[tuple[float, str]]:
    """The clauses that hold most of it, with the share."""
    pairs = _pairs(text)
    shares = ((_overlap(pairs, _pairs(clause)), clause) for clause in given)
    return [found for found in shares if found[0] >= REPEATED]


def _is_verbatim(ban: Ban, now: list[str], given: Iterable[str]) -> bool:
    """Whether as many clauses say it in its own words as before: 不要吃 alone may stand for several things."""
    kept = _times(ban, now)
    return kept > 0 and kept >= _times(ban, given)


def _times(ban: Ban, clauses: Iterable[str]) -> int:
    pairs = _pairs(ban.said)
    return sum(ban.marker in clause and (ban.said in clause or _overlap(pairs, _pairs(clause)) >= VERBATIM) for clause in clauses)


def _is_copied(ban: Ban, said: list[Statement]) -> bool:
    """Whether a clause that warns has about the words around the marker."""
    start = ban.said.find(ban.marker)
    wanted = _pairs(ban.said[max(0, start - BEFORE) : start + len(ban.marker) + AFTER])
    return any(one.warns and _overlap(wanted, _pairs(one.text)) >= LITERAL for one in said)


@functools.lru_cache(maxsize=4096)
def _pairs(text: str) -> frozenset[str]:
    text = _SIGNS.sub("", text)
    return frozenset(text[start : start + 2] for start in range(max(1, len(text) - 1)))


def _tells(clause: str, ban: Ban) -> bool:
    says = wording.marks(clause).says
    return bool(_marker(clause)) and any(wording.share(item, says) >= FULL for item in ban.items)


def _overlap(some: frozenset[str], others: frozenset[str]) -> float:
    return len(some & others) / len(some)


def _is_kept(ban: Ban, item: Words, said: list[Statement]) -> bool:
    stop = any(wording.means(word, "stop") for word in item)
    warnings = [one.says for one in said if one.warns and not (stop and one.stops)]
    warnings += [one.opposes for one in said if one.opposes]
    if any(map(wording.is_drug, item)) and any(wording.weight(word) > 1 for word in ban.subject):
        # Of a drug that some must not take it is enough to say who (孕妇禁用), but not just to name the drug.
        if not wording.is_in(ban.subject, [one.says for one in said], ENOUGH):
            return False
        if wording.is_in(ban.subject, warnings, ENOUGH):
            return True
    sure = [word for word in item if wording.means(word, "sure")]
    if wording.is_in(item, warnings, ENOUGH) and all(wording.is_in((word,), warnings, 1) for word in sure):
        return True
    return not wording.is_weak(ban.subject) and _is_kept_whole(ban.subject, item, warnings)


def _is_borrowed(ban: Ban, item: Words, said: list[Statement], wanted: list[Ban]) -> bool:
    """Whether only warnings speak of the item that say another prohibition of the source whole, and this one by words of that."""
    warnings = [(one.says, wording.share(item, one.says)) for one in said if one.warns or one.stops]
    near = [(says, share) for says, share in warnings if share >= ENOUGH]
    if not near or any(share >= FULL for _, share in near) or any(wording.is_in(item, [one.opposes], ENOUGH) for one in said):
        return False
    others = [other for one in wanted if one is not ban for other in one.items if not wording.is_in(item, [_marks(other)], LIKE)]
    return all(wording.share(item, says - _used(others, says)) < ENOUGH for says, _ in near)


def _used(items: list[Words], says: frozenset[str]) -> set[str]:
    """What the items explain of a text that holds them whole."""
    return {mark for item in items if wording.share(item, says) >= FULL for mark in _marks(item)}


def _marks(item: Words) -> frozenset[str]:
    return frozenset[str]().union(*(wording.marks(word).says for word in item))


def _is_kept_whole(subject: Words, item: Words, warnings: list[frozenset[str]]) -> bool:
    """By most of the whole clause, or by the thing where what not to do with it is said in other words."""
    if wording.is_in((*subject, *item), warnings, WHOLE):
        return True
    thing = not any(wording.means(word, "person") or wording.is_drug(word) for word in subject)
    return thing and not any(map(wording.is_heavy, item)) and wording.is_in(subject, warnings, FRONTED)


def _is_flipped(ban: Ban, said: list[Statement], source: str) -> bool:
    permitted = [one.says for one in said if one.permits]
    allowed = [item for item in ban.items if wording.is_in(item, permitted, SURE)]
    if not allowed or _permits(ban.said, among=True):
        return False
    before = list(_statements(source))
    known = [one.says for one in before if one.permits]
    return any(not wording.is_in(item, known, SURE) and _forbids(item, said) < _forbids(item, before) for item in allowed)


def _is_turned(ban: Ban, rewritten: str, given: str) -> bool:
    """Whether a word that permits now stands in the place of the marker, between the same words."""
    for match in _markers().finditer(ban.said):
        before, after = ban.said[: match.start()], ban.said[match.end() :]
        for may in MAY:
            turned = [may + after[:4], before[-2:] + may + after[:1]] if after else [before[-3:] + may]
            if any(words != may and _is_new_in(rewritten, words, given) for words in turned):
                return True
    return False


def _is_new_in(text: str, words: str, given: str) -> bool:
    place = text.find(words)
    return place > 0 and text[place - 1] not in "不别勿" and words not in given


def _forbids(item: Words, said: list[Statement]) -> int:
    """How many clauses forbid it."""
    return sum(one.forbids and wording.share(item, one.says) >= SURE for one in said)


def _is_left_to_context(ban: Ban, rewritten: str) -> bool:
    """What is to be stopped is often left to the context."""
    return bool(_pattern("stopped").search(ban.marker) and _pattern("stopped").search(rewritten))


def _is_sure(item: Words) -> bool:
    """Names something of which all words are listed, so that no other words can be meant."""
    return any(wording.means(word, "sure") or wording.is_drug(word) for word in item)


def _spare(rewritten: str, source: str, wanted: list[Ban]) -> int:
    """How many prohibitions of the rewritten answer no clause of the source says in like words."""
    clauses = [wording.marks(clause).says for clause in CLAUSES.split(source)]
    items = [item for ban in wanted for item in ban.items]
    found = [ban.said for ban in _bans(rewritten) if _pattern("firm").match(ban.marker)]
    return sum(
        _is_new(said, clauses) and not any(wording.is_in(item, [wording.marks(said).says], ENOUGH) for item in items)
        for said in found
    )


def _is_new(said: str, clauses: list[frozenset[str]]) -> bool:
    words = wording.words(said)
    return not (wording.is_weak(words) or _is_sure(words) or wording.is_in(words, clauses, LIKE))


# ---------------------------------------------------------------- reading


def _statements(text: str) -> Iterator[Statement]:
    for sentence in SENTENCES.split(text):
        clauses = [clause for clause in PIECES.split(sentence) if clause]
        warns = [bool(_pattern("cautions").search(clause)) for clause in clauses]
        bare = [warning and _is_bare(clause) for warning, clause in zip(warns, clauses, strict=True)]
        continued = [bool(_pattern("continued").match(clause)) for clause in clauses] if any(warns) else []
        for number, clause in enumerate(clauses):
            marks, permits = wording.marks(clause), _permits(clause)
            listed = number > 0 and warns[number - 1] and continued[number]
            opens = warns[number + 1 :][:1] == [True] and (continued[number + 1] or clause[-1] in "者人时")
            beside = warns[number] or listed or opens or any(bare[max(0, number - 1) : number + 2])
            stops = (
                "停" in clause and bool(_pattern("stopped").search(clause)) and not _pattern("against_stopping").search(clause)
            )
            asks = beside and bool(_pattern("asks").search(clause))
            forbids = warns[number] and not permits and not asks
            yield Statement(clause, marks.says, marks.opposes, beside and not permits and not asks, forbids, permits, stops)


def _is_bare(clause: str) -> bool:
    """A warning that leaves to its neighbours what it is about: 均应避免, 应注意."""
    if _pattern("ends_with_ban").search(clause):
        return True
    if len(clause) > LONGEST / 2:
        return False
    rest = _pattern("cautions").sub("", _markers().sub("", clause))
    return sum(map(wording.weight, wording.words(rest))) < BARE


def _permits(clause: str, among: bool = False) -> bool:
    """Not what is allowed only later or on a condition, nor, unless ``among``, where something is forbidden with it."""
    match = _pattern("allowed").search(clause)
    if not match or _pattern("later").search(clause[: match.start()]):
        return False
    return among or not _markers().search(_pattern("no_ban_beside").sub("", clause))


def _bans(text: str) -> Iterator[Ban]:
    """Every prohibition of ``text``, one of each clause."""
    for sentence in SENTENCES.split(text):
        clauses = PIECES.split(sentence)
        for number, said in enumerate(clauses):
            clause = _pattern("no_prohibition").sub("", said)
            match = _marker(clause)
            if match and not _is_idle(match, clause, clauses[number + 1 :]):
                ban = _ban(said.strip(), match, clause, clauses[:number])
                if ban.items:
                    yield ban


def _marker(clause: str) -> re.Match[str] | None:
    """The first strong one, else the first."""
    found = list(_markers().finditer(clause))
    return next((match for match in found if match["strong"]), found[0] if found else None)


def _is_idle(match: re.Match[str], clause: str, after: list[str]) -> bool:
    """Not a prohibition: 可以停用, 不吃也没事, or a sign of danger, as in 不吃、尖叫马上去医院."""
    if match[0][0] in "停戒不" and _pattern("permissions").search(clause[: match.start()]):
        return True
    if _pattern("harmless").search(clause):
        return True
    if match[0] == "不" and (clause.endswith(("的", "者", "时")) or "的时候" in clause[match.end() :]):
        return True
    return match[0] in {"不", "不能"} and bool(_pattern("signs").search("".join([clause[match.end() :], *after])))


def _ban(said: str, match: re.Match[str], clause: str, earlier: list[str]) -> Ban:
    """What is forbidden stands after the marker, before it (胃溃疡的人别吃), in a clause before, or is the marker (禁食)."""
    before, after = clause[: match.start()], clause[match.end() :]
    after = _pattern("reason").split(after)[0][:LONGEST]
    items, subject = _items(after), wording.words(before)
    if items:
        return Ban(said, match[0], subject, items, bool(match["strong"]), (said,))
    if not after and not _items(before) and match[0] in {"别", "不要", "不可", "不能"}:
        return Ban(said, match[0], (), (), strong=False, origin=(said,))  # 千万别: of what a neighbour says
    own = wording.words(match[0] if match[0][0] == "禁" else after)
    if not _items(before) and any(word not in _bare() for word in own):
        return Ban(said, match[0], (), (own,), bool(match["strong"]), (said,))
    told = (_items(text[-LONGEST:]) for text in (before, *reversed(earlier)) if not _pattern("permissions").search(text))
    return Ban(said, match[0], (), next(filter(None, told), (own,) if own else ()), bool(match["strong"]), (said, *earlier))


def _items(text: str) -> tuple[Words, ...]:
    listed = _pattern("between").split(_pattern("again").sub("、", text))
    items = (wording.words(item) for item in listed if not _pattern("allowed").search(item))
    return tuple(one for item in items for one in _apart(item) if not wording.is_weak(one))


def _apart(item: Words) -> list[Words]:
    """抽烟喝酒 are two things, without anything between them."""
    sure = [word for word in item if wording.means(word, "sure")]
    return [item] if len(sure) < 2 else [*((word,) for word in sure), tuple(word for word in item if word not in sure)]


# ---------------------------------------------------------------- words


@functools.cache
def _data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("prohibitions.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(_data()[name])


@functools.cache
def _markers() -> re.Pattern[str]:
    return re.compile(f"(?P<strong>{_data()['prohibitions']})|{_data()['softer']}")


@functools.cache
def _bare() -> frozenset[str]:
    """Verbs that leave to the words before what they are about."""
    return frozenset((*wording.data()["verbs"], *_data()["bare"].split()))
