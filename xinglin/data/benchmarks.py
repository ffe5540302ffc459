"""Benchmarks: rows that hold a question of an exam the tuned model will be measured on.

In: benchmark files (the same formats as corpora). Out: rows marked with the question they share

* 64 characters in a row with, or
* 13 words in a row, a Chinese character or a run of letters and digits being a word, or
* where a question has 8 to 12 words, all of it::

    benchmark: 13 words of cmexam/val.json:17 上消化道出血可单纯表现为呕血或黑便也可两者兼有这取决于

Punctuation and white space do not count. Windows of characters are looked up by their hashes first; only a row that hits is
compared word by word.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xinglin import reading
from xinglin.data.duplicates import Hashes, gram_hashes
from xinglin.shapes import QUESTIONS, Dialogue, Unreadable, dialogue

WORDS = 13
CHARACTERS = 64
FEWEST = 8  # words; shorter questions ("以下正确的是") say nothing about where a text comes from
_NOISE = re.compile(r"[\W_]+")
_WORD = re.compile(r"[0-9A-Za-zα-ωΑ-Ω]+|\w")
_NAMES = (*QUESTIONS, "title", "description", "problem", "stem", "题目", "题干")


class Item(NamedTuple):
    """One benchmark question: where it stands, and its text without punctuation."""

    file: str
    row: int
    text: str


class Windows(NamedTuple):
    """Sorted hashes of windows of ``size`` characters with the numbers of their items, and a filter in front of them."""

    size: int
    hashes: Hashes
    owners: NDArray[np.int64]
    seen: NDArray[np.bool_]


class Benchmarks:
    """The questions of the benchmark files, findable by their windows."""

    def __init__(self, files: Sequence[Path]) -> None:
        found = {path: list(_items(path)) for path in files}
        for path in (path for path, items in found.items() if not items):
            raise ValueError(f"{path}: no question found in it; name its column question")
        self.counts = {str(path): len(items) for path, items in found.items()}
        self.items = [item for items in found.values() for item in items]
        long = [number for number, item in enumerate(self.items) if len(_WORD.findall(item.text)) >= WORDS]
        short = sorted(set(range(len(self.items))) - set(long))
        self.windows = [_windows(self.items, long, WORDS, None), _windows(self.items, short, FEWEST, FEWEST)]

    def mark(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` with the reason set where a row that had none holds a question."""
        if not self.items:
            return rows
        good = rows.filter(pl.col("reason").is_null())
        found = pl.DataFrame({"row": good["row"], "hit": pl.Series(self.hits(good["text"].to_list()), dtype=pl.String)})
        return rows.join(found, on="row", how="left").with_columns(reason=pl.coalesce("reason", "hit")).drop("hit")

    def hits(self, texts: Sequence[str]) -> list[str | None]:
        """For every text the question it holds, as a reason, or None."""
        plain = [_plain(text) for text in texts]
        owners: list[set[int]] = [set() for _ in texts]
        for windows in self.windows:
            for text, owner in _shared(plain, windows):
                owners[text].add(owner)
        return [self._hit(text, sorted(found)) for text, found in zip(plain, owners, strict=True)]

    def _hit(self, text: str, owners: Sequence[int]) -> str | None:
        for item in (self.items[owner] for owner in owners):
            rule = shared_rule(text, item.text)
            if rule:
                return f"benchmark: {rule} of {item.file}:{item.row} {item.text[:60]}"
        return None


def shared_rule(text: str, question: str) -> str | None:
    """What of ``question`` stands in ``text`` (both without punctuation): 64 characters, 13 words, all of it, or None."""
    if any(question[start : start + CHARACTERS] in text for start in range(len(question) - CHARACTERS + 1)):
        return f"{CHARACTERS} characters"
    words, asked = _WORD.findall(text), _WORD.findall(question)
    size = min(WORDS, len(asked))
    said = {tuple(words[start : start + size]) for start in range(len(words) - size + 1)}
    if size >= FEWEST and any(tuple(asked[start : start + size]) in said for start in range(len(asked) - size + 1)):
        return f"{WORDS} words" if size == WORDS else "all"
    return None


def _plain(text: str) -> str:
    return _NOISE.sub("", text).lower()


def _items(path: Path) -> Iterator[Item]:
    for number, value in reading.rows(path, reading.detect(path), reading.Position()):
        for text in map(_plain, _questions(number, value)):
            if len(text) >= FEWEST:
                yield Item(f"{path.parent.name}/{path.name}", number, text)


def _questions(number: int, value: Any) -> list[str]:
    """What is asked in a row: its question columns, or the user's turns of a dialogue."""
    if isinstance(value, Unreadable):
        return []
    row = {str(key).strip().lower(): part for key, part in value.items()} if isinstance(value, dict) else {}
    named = [part for name in _NAMES if isinstance(part := row.get(name), str)]
    said = dialogue(number, value, {})
    return named or (list(said.turns[::2]) if isinstance(said, Dialogue) else [])


def _windows(items: Sequence[Item], numbers: Sequence[int], size: int, reach: int | None) -> Windows:
    """Windows of the items ``numbers``; of each only the first ``reach`` characters where that is given."""
    hashes, starts = gram_hashes([items[number].text[:reach] for number in numbers], size)
    owners = np.repeat(np.array(numbers, np.int64), np.diff(starts))
    order = np.argsort(hashes, kind="stable")
    seen = np.zeros(2**24, np.bool_)
    seen[hashes >> np.uint64(40)] = True
    return Windows(size, hashes[order], owners[order], seen)


def _shared(plain: Sequence[str], windows: Windows) -> Iterator[tuple[int, int]]:
    """Pairs of a text and an item that have a window in common, by their numbers."""
    hashes, starts = gram_hashes(plain, windows.size)
    likely = np.flatnonzero(windows.seen[hashes >> np.uint64(40)])
    first = np.searchsorted(windows.hashes, hashes[likely], "left")
    last = np.searchsorted(windows.hashes, hashes[likely], "right")
    texts = np.searchsorted(starts, likely, "right") - 1
    for text, start, end in zip(texts[last > first], first[last > first], last[last > first], strict=True):
        yield from ((int(text), int(owner)) for owner in windows.owners[start:end])
