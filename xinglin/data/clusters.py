"""Clusters: which good rows are copies of one another, which one stays, and which questions belong together.

In: the prepared parts of a corpus. Out, for every good row, the number of the row that stands for it and of its question group::

    best  [0, 1, 0, 3]      row 2 is a copy of row 0
    group [0, 1, 0, 1]      row 3 asks what row 1 asks

What is held for a row in memory is a few numbers; its texts stay on disk and are read one by one to check candidates. They are
not mapped: the pages of a mapped file count as memory of the process, 12 GB for 10 M rows.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from xinglin import records, schema
from xinglin.data.duplicates import BANDS, Components, Hashes, Positions, band_hashes, jaccard, join_candidates
from xinglin.data.normalise import TURN
from xinglin.data.progress import Progress


class Places:
    """Good rows by their number over all parts: text, question and where they came from. Everything stays on disk."""

    def __init__(self, good: Sequence[Path], sources: Sequence[str] = ()) -> None:
        self.paths = list(good)
        self.files = [str(path.with_suffix(".text")) for path in good]
        self.indexes = [np.asarray(np.load(path.with_suffix(".index.npy"), mmap_mode="r")) for path in good]
        self.starts = [0, *accumulate(index.shape[1] for index in self.indexes)]
        self.sources = sources

    def _find(self, number: int) -> tuple[int, int]:
        part = bisect_right(self.starts, number) - 1
        return part, number - self.starts[part]

    def text(self, number: int) -> str:
        part, place = self._find(number)
        ends = self.indexes[part][0]
        start = int(ends[place - 1]) if place else 0
        with open(self.files[part], "rb", buffering=0) as file:
            file.seek(start)
            return file.read(int(ends[place]) - start).decode()

    def texts(self, part: int) -> list[str]:
        """The texts of all rows of a part."""
        data = Path(self.files[part]).read_bytes()
        ends = self.indexes[part][0].tolist()
        return [data[start:end].decode() for start, end in pairwise([0, *ends])]

    def question(self, number: int) -> str:
        return self.text(number).split(TURN)[-2]

    def marks(self, number: int) -> int:
        """How many personal data were replaced in a row."""
        part, place = self._find(number)
        return int(self.indexes[part][2, place])

    def source(self, number: int) -> str:
        part, place = self._find(number)
        return f"{self.sources[part]}:{self.indexes[part][1, place]}"


def write_texts(good: Path, rows: pl.DataFrame) -> None:
    """The texts of a part one after the other, and of each row (3, rows): where its text ends in bytes, its line, its marks."""
    index = rows.select(pl.col("text").str.len_bytes().cum_sum(), "row", pl.col("kinds").str.count_matches(r"\S+"))
    with records.room(good.with_suffix(".text")):
        np.save(good.with_suffix(".index.npy"), index.to_numpy().T.astype(np.int64))
        good.with_suffix(".text").write_bytes("".join(rows["text"]).encode())


class Fates(NamedTuple):
    best: Positions
    groups: Positions
    places: Places

    def group(self, number: int, text: str) -> str:
        """Name of a row's question group: the hash of its earliest question, so that it stays when rows are added behind."""
        earliest = int(self.groups[number])
        return records.digest(text.split(TURN)[-2] if earliest == number else self.places.question(earliest))


def write_sketch(path: Path, texts: Sequence[str]) -> None:
    """What is remembered of a part to find copies: (2 + 2 * BANDS, rows) hashes, of whole rows and of questions."""
    questions = [text.split(TURN)[-2] for text in texts]
    columns = [_exact(texts), *band_hashes(texts).T, _exact(questions), *band_hashes(questions).T]
    temporary = path.with_suffix(".part.npy")
    with records.room(path):
        np.save(temporary, np.stack(columns) if texts else np.empty((2 + 2 * BANDS, 0), np.uint64))
    temporary.replace(path)


def _exact(texts: Sequence[str]) -> Hashes:
    return pl.Series(texts, dtype=pl.String).hash(seed=1).to_numpy()


def find(sketches: Sequence[Path], good: Sequence[Path], threshold: float) -> Fates:
    """Join copies and like questions over all parts; choose the best row of every cluster of copies."""
    places = Places(good)
    with Progress("clean: finding copies", 2 * BANDS) as progress:
        rows = _joined(sketches, 0, places.text, threshold, progress)
        questions = _joined(sketches, 1 + BANDS, places.question, threshold, progress)
    return Fates(choose(rows.roots(), places), questions.roots(), places)


def column(sketches: Sequence[Path], index: int) -> Hashes:
    """One line of the sketches over all parts; not the whole sketches, which need not fit in memory."""
    lines = [np.load(path, mmap_mode="r")[index] for path in sketches]
    return np.concatenate(lines) if lines else np.empty(0, np.uint64)


def join_exact(exact: Hashes) -> tuple[Components, Positions]:
    """Rows with the same hash joined, and the earliest of each."""
    joined = Components(len(exact))
    order = np.argsort(exact, kind="stable")
    same = np.flatnonzero(exact[order][1:] == exact[order][:-1])
    for place in same.tolist():
        joined.join(int(order[place]), int(order[place + 1]))
    return joined, np.sort(np.delete(order, same + 1))


def _joined(sketches: Sequence[Path], first: int, text: Callable[[int], str], threshold: float, progress: Progress) -> Components:
    """Rows with the same text joined, then, among one of each, those similar by ``threshold``."""
    joined, single = join_exact(column(sketches, first))

    def bands() -> Iterator[Hashes]:
        for band in range(BANDS):
            done = (first > 0) * BANDS + band
            progress.update(done, len(joined.parent) * done // (2 * BANDS))
            yield column(sketches, first + 1 + band)[single]

    if threshold < 1:
        join_candidates(joined, single, bands(), text, threshold)
    return joined


def choose(roots: Positions, places: Places) -> Positions:
    """For every row the one that stands for its cluster; a row without copies stands for itself."""
    best = np.arange(len(roots))
    for members in copies(roots):
        best[members] = best_of(members, places)
    return best


def copies(roots: Positions) -> list[Positions]:
    """The clusters of more than one row, in the order of their first rows."""
    copied = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
    order = copied[np.argsort(roots[copied], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(roots[order])) + 1) if len(order) else []


def best_of(members: Positions, places: Places) -> int:
    return int(min(members.tolist(), key=lambda number: _worth(number, places)))


def _worth(number: int, places: Places) -> tuple[bool, int, bool, int, int]:
    """Smallest is best: complete in three sections, least personal data, finished, longest answer, earliest."""
    answer = places.text(number).split(TURN)[-1]
    unfinished = answer[-1:] not in "。！？!?.;；）)"
    return bool(schema.check(answer)), places.marks(number), unfinished, -len(answer), number


def duplicate_reason(text: str, kept: str, source: str) -> str:
    if text == kept:
        return f"exact_duplicate: of {source}"
    return f"near_duplicate: of {source} (similarity {jaccard(text, kept):.2f})"
