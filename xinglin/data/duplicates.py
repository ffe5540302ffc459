"""Duplicates: near-identical texts found by MinHash, every candidate pair checked by exact Jaccard similarity.

In: texts. Out: pairs of rows whose sets of character 5-grams overlap by the threshold or more, and their connected components::

    ["胃疼三天，饭后加重", "胃疼三天了，饭后加重", "头晕"], 0.8   ->   components [0, 0, 2]

128 permutations in 16 bands of 8: a pair at Jaccard 0.8 becomes a candidate with probability 0.95, at 0.9 with 0.9999.
"""

import functools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

GRAM = 5
PERMUTATIONS = 128
BANDS = 16
SEED = 42
BLOCK = 2_000  # texts hashed at once: some tens of MB, which the caches still like
REACH = 64  # neighbours each row of a long run of candidates is compared with

Hashes = NDArray[np.uint64]
Positions = NDArray[np.int64]

_PACK = struct.Struct(f"{PERMUTATIONS}I").pack  # a signature: numbers of 32 bits
_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], np.uint64
)


def gram_hashes(texts: Sequence[str], size: int = GRAM) -> tuple[Hashes, Positions]:
    """Hashes of all character n-grams, row after row, and where each row begins (one more entry than rows).

    A text shorter than ``size`` is one gram: itself, padded with NUL.
    """
    padded = [text if len(text) >= size else text.ljust(size, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    hashes = _roll(codes, size)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    counts = lengths - size + 1
    offsets = np.concatenate(([0], np.cumsum(counts)))
    kept = np.arange(offsets[-1]) + np.repeat(starts[:-1] - offsets[:-1], counts)
    return hashes[kept], offsets


def _roll(codes: Hashes, size: int) -> Hashes:
    """One 64-bit hash per window of ``size`` code points, mixed so that every bit depends on every character."""
    total = max(len(codes) - size + 1, 0)
    hashes = np.zeros(total, np.uint64)
    for place in range(size):
        hashes = (hashes ^ codes[place : place + total]) * _MULTIPLIERS[place % len(_MULTIPLIERS)]
        hashes ^= hashes >> np.uint64(29)
    return hashes


def band_hashes(texts: Sequence[str], bands: int = BANDS) -> Hashes:
    """MinHash signatures folded into one hash per band: (rows, bands). More bands find pairs that are less alike."""
    parts = [_band_hashes(texts[start : start + BLOCK], bands) for start in range(0, len(texts), BLOCK)]
    return np.concatenate(parts) if parts else np.empty((0, bands), np.uint64)


def _band_hashes(texts: Sequence[str], bands: int) -> Hashes:
    from rensa import RMinHash

    hashes, offsets = gram_hashes(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), PERMUTATIONS, SEED)
    packed = b"".join([_PACK(*row) for row in matrix.to_rows()])  # twice as fast as np.array on lists
    signature = np.frombuffer(packed, np.uint32).astype(np.uint64).reshape(len(texts), bands, -1)
    folded = np.zeros((len(texts), bands), np.uint64)
    for column in range(signature.shape[2]):
        folded = (folded ^ signature[:, :, column]) * _MULTIPLIERS[0]
        folded ^= folded >> np.uint64(31)
    return folded


def jaccard(first: str, second: str) -> float:
    """Exact Jaccard similarity of the two sets of character 5-grams, 0 to 1."""
    return overlap(grams(first), grams(second))


def overlap(one: set[str], other: set[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def grams(text: str) -> set[str]:
    return {text[start : start + GRAM] for start in range(max(len(text) - GRAM + 1, 1))}


def remembered(text: Callable[[int], str]) -> Callable[[int], set[str]]:
    """The grams of a row by its number; of the last rows they are not made again."""
    return functools.lru_cache(4096)(lambda number: grams(text(number)))


# ---------------------------------------------------------------- components


class Components:
    """Union-find over rows; the root of a component is its earliest row."""

    def __init__(self, rows: int) -> None:
        self.parent = np.arange(rows)

    def root(self, row: int) -> int:
        parent = self.parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return int(row)

    def join(self, first: int, second: int) -> None:
        one, other = self.root(first), self.root(second)
        self.parent[max(one, other)] = min(one, other)

    def roots(self) -> Positions:
        return np.fromiter(map(self.root, range(len(self.parent))), np.int64, len(self.parent))


def join_candidates(
    joined: Components, rows: Positions, bands: Iterable[Hashes], text: Callable[[int], str], threshold: float
) -> None:
    """Join ``rows`` (their numbers) that share a hash in some band and whose exact similarity reaches ``threshold``.

    ``bands`` yields, band after band, one hash per row; ``text`` gives the text of a row number.
    """
    apart = np.empty(0, np.int64)  # pairs already checked and found different, as first * total + second
    total = len(joined.parent)
    for column in bands:
        for pairs in candidates(column, rows):
            keys = np.setdiff1d(pairs[:, 0] * total + pairs[:, 1], apart)
            failed = _verify(joined, keys, total, text, threshold)
            apart = np.union1d(apart, np.array(failed, np.int64))


def candidates(column: Hashes, rows: Positions) -> Iterator[Positions]:
    """Pairs of rows with the same hash: first all neighbours, so that long runs join early, then those farther apart.

    Of a run longer than ``REACH`` every row is paired with the first one and the next ``REACH``.
    """
    order = np.argsort(column, kind="stable")
    hashes, numbers = column[order], rows[order]
    near = _lagged(hashes, numbers, 1)
    yield near
    far, lag = [], 2
    while len(near) and lag <= REACH:
        near = _lagged(hashes, numbers, lag)
        far.append(near)
        lag += 1
    if len(near):
        first = np.searchsorted(hashes, hashes, "left")
        apart = np.arange(len(hashes)) - first > REACH
        far.append(np.sort(np.stack([numbers[first[apart]], numbers[apart]], 1), 1))
    if far:
        yield np.concatenate(far)


def _lagged(hashes: Hashes, numbers: Positions, lag: int) -> Positions:
    equal = np.flatnonzero(hashes[lag:] == hashes[:-lag])
    return np.sort(np.stack([numbers[equal], numbers[equal + lag]], 1), 1)


def _verify(joined: Components, keys: Positions, total: int, text: Callable[[int], str], threshold: float) -> list[int]:
    """Join the pairs that are similar enough; returns the keys of those that are not."""
    failed = []
    known = remembered(text)
    for key in keys.tolist():
        first, second = divmod(key, total)
        if joined.root(first) == joined.root(second):
            continue
        if overlap(known(first), known(second)) >= threshold:
            joined.join(first, second)
        else:
            failed.append(key)
    return failed


def components(texts: Sequence[str], threshold: float) -> Components:
    """Texts joined wherever their exact similarity reaches ``threshold``; for a list that fits in memory."""
    joined = Components(len(texts))
    join_candidates(joined, np.arange(len(texts)), band_hashes(texts).T, texts.__getitem__, threshold)
    return joined
