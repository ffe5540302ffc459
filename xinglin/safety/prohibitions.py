"""Which prohibitions of a source answer a rewritten answer no longer holds, by rules and word lists.

In: the source and the rewritten answer. Out: kind and clause of each that is gone or turned round::

    list(lost("别抽烟喝酒，胃溃疡禁用布洛芬。", "可以饮酒，戒烟。"))
    [("flipped prohibition", "别抽烟喝酒"), ("dropped prohibition", "胃溃疡禁用布洛芬")]

A prohibition is a marker (禁用, 别, 不要 …) with what it forbids, item by item; both texts are compared by the characters that
carry meaning, near words made one (饮酒, 喝酒). Colloquial 别挤痘 may become 避免挤压: a prohibition of the rewritten answer that
says nothing else of the source stands for one it shares a character with.
"""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.safety import terms

CLAUSES = re.compile(r"[。！？!?；;\n，,：:]")
SENTENCES = re.compile(r"[。！？!?；;\n]")
LABEL = re.compile(r"(?m)^\d[.、][ \t]*[^：:\n]{2,10}[：:]")  # the name of a point
LONGEST = 20  # characters that say what is prohibited; text without punctuation runs on
ENOUGH = 0.6  # share of the characters that say what is prohibited
SURE = 0.7  # the same where a permission is held against a prohibition
MOST = 0.5  # the same of the words that say for whom; then what is prohibited may be left to the context
NEW = 0.25  # at most this share of a paraphrase stands in the source
TOGETHER = "并"  # how the word list calls 一起, 同服, 合用


@dataclass(frozen=True)
class Ban:
    """A prohibition: its clause, its marker, whom or when it concerns, and what it forbids, as characters.

    ``strong``: not just 减少, 以免, 错开. ``late``: what it forbids stands before the marker.
    """

    said: str
    marker: str
    subject: frozenset[str]
    items: tuple[frozenset[str], ...]
    strong: bool = True
    late: bool = False

    @property
    def scope(self) -> frozenset[str]:
        return self.subject.union(*self.items)


@dataclass(frozen=True)
class Permission:
    """What is allowed; ``late``: the words stand before the permission, as in 孕妇可用."""

    scope: frozenset[str]
    late: bool


def lost(source: str, rewritten: str) -> Iterator[tuple[str, str]]:
    """Prohibitions of ``source`` that ``rewritten`` drops or turns into a permission."""
    wanted = [ban for ban in _bans(source) if ban.strong]
    if not wanted:
        return
    rewritten = LABEL.sub("", rewritten)
    kept = list(_bans(rewritten))
    known = [one.scope for one in _permitted(source)]
    allowed = [one for one in _permitted(rewritten) if not any(one.scope <= scope for scope in known)]
    spare = _spare(kept, wanted, source)
    for ban in wanted:
        if any(_allows(one, ban) for one in allowed):
            yield "flipped prohibition", ban.said
            continue
        missing = _missing(ban, kept)
        if not missing or _left_to_context(ban, kept, rewritten):
            continue
        partner = _partner(missing, spare, source)
        if partner is None:
            yield "dropped prohibition", ban.said
        else:
            spare.remove(partner)


def _partner(missing: list[frozenset[str]], spare: list[frozenset[str]], source: str) -> frozenset[str] | None:
    """A prohibition of the rewritten answer that may be meant: one that shares a character, or one in wholly other words."""
    near = next((scope for scope in spare if scope & missing[0]), None)
    if near is not None or len(missing) > 1:
        return near
    return next((scope for scope in spare if _is_new(scope, source)), None)


def _missing(ban: Ban, kept: list[Ban]) -> list[frozenset[str]]:
    """Items nothing holds; one character beside items that are held is a colloquial verb: 别说他、骂他."""
    missing = [item for item in ban.items if not any(_says(one, item) or _says_whole(one, ban.subject, item) for one in kept)]
    return [item for item in missing if len(item) > 1 or item <= _plain_words()] if len(missing) < len(ban.items) else missing


def _says(ban: Ban, item: frozenset[str]) -> bool:
    """Its words hold the item, or it is the item cut short: 避免挤压 for 别挤痘."""
    short = any(one <= item and (2 * len(one) >= len(item) or one <= _plain_words()) for one in ban.items)
    return short or _holds(ban.scope, item)


def _says_whole(ban: Ban, subject: frozenset[str], item: frozenset[str]) -> bool:
    """Its words hold most of the whole clause and some of the item: 热水澡别洗太久, 避免长时间热水洗浴."""
    return bool(subject and ban.scope & item) and _holds(ban.scope, subject | item)


def _allows(permission: Permission, ban: Ban) -> bool:
    """可以饮酒, or 孕妇可用 where what is allowed is left to the context."""
    whom = permission.late and len(ban.subject) > 1 and _holds(permission.scope, ban.subject, SURE)
    return whom or any(_holds(permission.scope, item, SURE) for item in ban.items)


def _left_to_context(ban: Ban, kept: list[Ban], rewritten: str) -> bool:
    """What is to be stopped is often left to the context, and so is what somebody must not take."""
    if _words("stopped").search(ban.marker) and _words("stopped").search(rewritten):
        return True
    known = len(ban.subject) > 1 or (bool(ban.subject) and ban.subject <= _plain_words())
    return known and any(len(one.scope & ban.subject) >= MOST * len(ban.subject) for one in kept if one.late and one.strong)


def _spare(kept: list[Ban], wanted: list[Ban], source: str) -> list[frozenset[str]]:
    """Prohibitions of the rewritten answer that stand for none of the source by their words."""
    items = [item for ban in wanted for item in ban.items]
    return [ban.scope for ban in kept if ban.items and ban.strong and not any(_says(ban, item) for item in items)]


def _is_new(scope: frozenset[str], source: str) -> bool:
    """Said in wholly other words, and not the general advice that models add."""
    content = _content(_uniform(source))
    return len(scope & content) <= NEW * len(scope) and not scope & _usual()


# ---------------------------------------------------------------- reading


def _bans(text: str) -> Iterator[Ban]:
    """Every prohibition of ``text``, the first of each clause."""
    for sentence in SENTENCES.split(text):
        clauses, plain = CLAUSES.split(sentence), CLAUSES.split(_uniform(sentence))
        for number, clause in enumerate(plain):
            clause = _words("no_prohibition").sub("", clause)
            match = _markers().search(clause)
            if match and not _is_idle(match, clause, plain[number + 1 :]):
                yield _ban(clauses[number].strip(), match, clause, plain[number - 1] if number else "")


def _is_idle(match: re.Match[str], clause: str, after: list[str]) -> bool:
    """Not a prohibition: 可以停用, or a sign of danger, as in 不吃、尖叫马上去医院."""
    if match[0][0] in "停戒" and _words("permissions").search(clause[: match.start()]):
        return True
    if match[0] == "不" and clause.endswith(("的", "者", "时")):
        return True
    return match[0] in {"不", "不能"} and bool(_words("signs").search("".join([clause[match.end() :], *after])))


def _ban(said: str, match: re.Match[str], clause: str, previous: str) -> Ban:
    before, after = clause[: match.start()], clause[match.end() :]
    together = TOGETHER if _words("apart").search(match[0]) else ""
    if not _content(after) or (_is_lone(_content(after)) and len(_content(before)) > 1):
        early = (
            previous
            if (len(_content(before)) < 2 or before.startswith(("或", "及", "以及")))
            and not _words("permissions").search(previous)
            else ""
        )
        return Ban(said, match[0], _content(after), _items(early + before[-LONGEST:]), bool(match["strong"]), late=True)
    return Ban(said, match[0], _content(before), _items(after[:LONGEST] + together), bool(match["strong"]))


def _is_lone(content: frozenset[str]) -> bool:
    """Just a verb, what it is about stands before: 过敏的人不要贴."""
    return len(content) == 1 and content <= frozenset(data()["lone"])


def _items(text: str) -> tuple[frozenset[str], ...]:
    items = (_content(item) for item in _words("between").split(_words("again").sub("、", text)))
    return tuple(item for item in items if item)


def _permitted(text: str) -> list[Permission]:
    """What ``text`` allows, by clause; not what is allowed only later or on a condition."""
    found = []
    for clause in CLAUSES.split(_uniform(text)):
        match = _words("allowed").search(clause)
        if match and not _words("later").search(clause[: match.start()]):
            after = _content(_markers().split(clause[match.end() :], 1)[0])
            found.append(Permission(after or _content(clause[: match.start()]), not after))
    return [one for one in found if one.scope]


# ---------------------------------------------------------------- words


@functools.cache
def data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("prohibitions.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def _words(name: str) -> re.Pattern[str]:
    return re.compile(data()[name])


@functools.cache
def _markers() -> re.Pattern[str]:
    return re.compile(f"(?P<strong>{data()['prohibitions']})|{data()['softer']}")


@functools.cache
def _usual() -> frozenset[str]:
    return frozenset(data()["usual"])


@functools.cache
def _plain_words() -> frozenset[str]:
    return frozenset(data()["synonyms"])


@functools.cache
def _synonyms() -> tuple[dict[str, str], re.Pattern[str]]:
    return terms.mapping(data()["synonyms"])


def _uniform(text: str) -> str:
    """Near words made one; punctuation stays."""
    plain, pattern = _synonyms()
    return pattern.sub(lambda match: plain[match[0]], text)


@functools.cache
def _fillers() -> frozenset[str]:
    return frozenset(data()["fillers"])


def _content(text: str) -> frozenset[str]:
    """The characters of a text that carry its meaning."""
    return frozenset(character for character in text if character.isalnum()) - _fillers()


def _holds(scope: frozenset[str], item: frozenset[str], share: float = ENOUGH) -> bool:
    return item <= scope if len(item) < 3 else len(scope & item) >= share * len(item)
