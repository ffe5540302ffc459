"""Words of Chinese medical advice by their meaning, so that the same advice in other words is known again.

In: text. Out: the words that carry its meaning, and how much of them another text holds. Words count as the same when they
share a meaning of wording.json (饮酒, 喝酒, 戒酒; brand and generic name of a drug), others by their characters::

    words("以后千万别再喝酒")                            ("再", "喝酒")
    share(("喝酒", "吹风"), marks("避免饮酒和受风").says)     1.0
    marks("饮食清淡").opposes                            {"<辣>", "<油>", "<盐>"}

The words are our own (未经医师审定).
"""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.safety import terms

LISTED, LIGHT = 1.5, 0.25  # weight of a word of the list, and of one that says little (自行, 吃)
CHARACTER, LONGEST = 0.67, 3  # weight of a character of a word that is on no list, and how many count
DRUG = "<药名 "
_NONE: frozenset[str] = frozenset()

Words = tuple[str, ...]


@dataclass(frozen=True)
class Marks:
    """What a text says: characters, pairs of them, listed words and meanings; and the meanings it says the opposite of."""

    says: frozenset[str]
    opposes: frozenset[str]


@functools.lru_cache(maxsize=4096)
def words(text: str) -> Words:
    """The words of a text that carry its meaning; what is on no list stands whole between fillers."""
    found: list[str] = []
    last = 0
    for start, word in _listed(text):
        found += _loose(text[last:start])
        if word in _meanings():
            found.append(word)
        last = start + len(word)
    return tuple(dict.fromkeys([*found, *_loose(text[last:])]))


@functools.lru_cache(maxsize=4096)
def marks(text: str) -> Marks:
    says, opposes = {*text, *_pairs(text)}, set[str]()
    for _, word in _listed(text):
        says.add(word)
        says |= _meanings().get(word, _NONE)
        opposes |= _opposites().get(word, _NONE)
    return Marks(frozenset(says), frozenset(opposes))


def is_in(item: Words, texts: Iterable[frozenset[str]], least: float) -> bool:
    """Whether one of the texts holds ``least`` of an item's weight."""
    return any(share(item, text) >= least for text in texts)


def share(item: Words, text: frozenset[str]) -> float:
    """How much of an item's weight a text holds, 0 to 1."""
    return sum(weight(word) * _held(text, word) for word in item) / sum(map(weight, item))


def _held(text: frozenset[str], word: str) -> float:
    """1 for the same meaning; of words that are on no list the share of character pairs, half as much for single characters."""
    meanings = _meanings().get(word)
    if meanings is not None:
        return float(not meanings.isdisjoint(text) or word in text)
    pairs = _pairs(word)
    held = sum(pair in text for pair in pairs) / len(pairs)
    return held + (1 - held) * sum(character in text for character in word) / len(word) / 2 if len(word) > 1 else held


@functools.lru_cache(maxsize=4096)
def _pairs(word: str) -> tuple[str, ...]:
    return tuple(word[start : start + 2] for start in range(len(word) - 1)) or (word,)


# ---------------------------------------------------------------- kinds of words


@functools.cache
def weight(word: str) -> float:
    """What a word says of what is forbidden: 自行 and 吃 little, 酒 much."""
    meanings = _meanings().get(word)
    if word in data()["verbs"] or (meanings and meanings <= _named("weak")):
        return LIGHT
    return LISTED if meanings else max(1.0, min(len(word), LONGEST) * CHARACTER)


def is_weak(item: Words) -> bool:
    return all(weight(word) < 1 for word in item)


def is_heavy(word: str) -> bool:
    return weight(word) == LISTED and word in _meanings()


def is_drug(word: str) -> bool:
    return any(meaning.startswith(DRUG) for meaning in _meanings().get(word, _NONE))


def means(word: str, kind: str) -> bool:
    """Whether the word has a meaning of a kind: ``sure``, of which all words are listed; ``person``, whom or what state it
    concerns; ``stop``, to stop a medicine."""
    return not _meanings().get(word, _NONE).isdisjoint(_named(kind))


@functools.cache
def _named(kind: str) -> frozenset[str]:
    return frozenset(f"<{meaning}>" for meaning in data()[kind].split())


# ---------------------------------------------------------------- the list


@functools.cache
def data() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("wording.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def _meanings() -> dict[str, frozenset[str]]:
    """The meanings of each word, and the names of drugs. In the list the words behind | say the opposite."""
    named = [(spelling, f"{DRUG}{name}>") for spelling, name in terms.spellings().items()]
    return _by_word([*_of_list(0), *named])


@functools.cache
def _opposites() -> dict[str, frozenset[str]]:
    return _by_word(_of_list(2))


def _of_list(part: int) -> Iterator[tuple[str, str]]:
    for meaning, written in data()["meanings"].items():
        for word in written.partition("|")[part].split():
            yield word, f"<{meaning}>"


def _by_word(named: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for word, meaning in named:
        found[word].add(meaning)
    return {word: frozenset(meanings) for word, meanings in found.items()}


@functools.cache
def _vocabulary() -> tuple[frozenset[str], dict[str, list[int]]]:
    """All listed words, and the lengths of those that begin with a character, the longest first."""
    listed = frozenset((*_meanings(), *_opposites(), *data()["empty"].split()))
    lengths: dict[str, set[int]] = defaultdict(set)
    for word in listed:
        lengths[word[0]].add(len(word))
    return listed, {first: sorted(found, reverse=True) for first, found in lengths.items()}


def _listed(text: str) -> Iterator[tuple[int, str]]:
    """The listed words of a text with their places, the longest at each; a regular expression of all takes ten times as long."""
    listed, lengths = _vocabulary()
    end = 0
    for start, first in enumerate(text):
        if start < end or first not in lengths:
            continue
        for length in lengths[first]:
            if text[start : start + length] in listed:
                yield start, text[start : start + length]
                end = start + length
                break


def _loose(text: str) -> list[str]:
    return _separators().sub(" ", text).split()


@functools.cache
def _separators() -> re.Pattern[str]:
    return re.compile(rf"[^一-鿿A-Za-z]|[{data()['fillers']}]")
